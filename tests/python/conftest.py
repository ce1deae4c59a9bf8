"""A cache of their own for the tests: their counts of compilations do not depend on what an earlier run left."""

import atexit
import os
import shutil
import tempfile

if "QUERN_CACHE_DIR" not in os.environ:  # before quern is imported, which reads it once
    os.environ["QUERN_CACHE_DIR"] = tempfile.mkdtemp(prefix="quern-test-cache-")
    atexit.register(shutil.rmtree, os.environ["QUERN_CACHE_DIR"], ignore_errors=True)
