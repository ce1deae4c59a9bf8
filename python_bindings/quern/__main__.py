"""`python -m quern COMMAND`: the command line tool of this package; `doctor` asks this Python."""

import os
import sys

from ._doctor import tool

arguments = sys.argv[1:]
if arguments[:1] == ["doctor"] and "--python" not in " ".join(arguments):
    arguments += ["--python", sys.executable]
path = tool()
sys.stdout.flush()
os.execv(path, [path, *arguments])
