"""What the tests of the cache share: the command line and a cheap workload, each as a process with its own environment."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from interp.compare import find_quern

QUERN = find_quern()
WORKER = str(Path(QUERN).parent / "quern-cache-worker") if QUERN else ""
needs_quern = pytest.mark.skipif(not QUERN, reason="no quern program: neither QUERN_CLI nor build/bin/quern exists; run scripts/setup.sh")
needs_worker = pytest.mark.skipif(not os.path.exists(WORKER), reason=f"no {WORKER or 'quern-cache-worker'}: build the target quern-tests")
# A kernel of a few milliseconds.
TINY = ["linear", "--kernel", "linear", "--dim", "T=1,N=32,K=64"]


def environment(folder, **more):
    """This process's environment without what places a cache, and the cache in `folder`."""
    names = ("QUERN_CACHE_DIR", "QUERN_CACHE_LIMIT", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
    env = {k: v for k, v in os.environ.items() if k not in names}
    if folder is not None:
        env["QUERN_CACHE_DIR"] = str(folder)
    env.update({k: str(v) for k, v in more.items() if v is not None})
    return {k: v for k, v in env.items() if k not in [n for n, v in more.items() if v is None]}


def quern(folder, *arguments, env=None, text=True, input=None, **options):
    return subprocess.run(
        [QUERN, *map(str, arguments)], env=env or environment(folder), capture_output=True, text=text, input=input, timeout=120, **options
    )


def start_worker(folder, log, *, entries=40, size=2000, seed=0, milliseconds=0, env=None):
    """quern-cache-worker (tests/support/cache_worker.cpp): asks for each entry once, in an order drawn from `seed`."""
    return subprocess.Popen(
        [WORKER, str(entries), str(size), str(seed), str(milliseconds), str(log)],
        env=env or environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def finish(process):
    """The counters that a worker prints; its warnings are in "warnings"."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return {**json.loads(out), "warnings": err.splitlines()}


def fill(folder, log, **options):
    return finish(start_worker(folder, log, **options))


def listing(folder, *arguments):
    result = quern(folder, "cache", "ls", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def entry_files(folder):
    return sorted(p for p in Path(folder).glob("v1/*/*") if p.suffix in (".entry", ".json"))


def verified(folder, entries):
    """`cache verify` finds this many entries, all good, and no temporary file."""
    result = quern(folder, "cache", "verify", "--json")
    report = json.loads(result.stdout)
    assert result.returncode == 0 and report["bad"] == [], report
    assert report["temporary"] == 0, report
    if entries is not None:
        assert report["good"] == entries, report
    return report


def private_folder(uid):
    """Where Quern keeps locks, and a cache when it finds no other place for one."""
    return Path("/tmp") / f"quern-{uid}"
