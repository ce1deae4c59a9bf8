"""The cache with kernels that are compiled for real: made once by many processes, found by others anywhere without the compiler, and
explained when they are not found. A QUERN_JIT_LIBRARY that does not exist proves that nothing was compiled."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cache_helpers import QUERN, entry_files, environment, listing, needs_quern, private_folder, quern, verified

pytestmark = needs_quern
WIDTHS = (32, 64, 96, 128, 160, 192)


def linear(width):
    return ["linear", "--kernel", "linear", "--dim", f"T=1,N={width},K=64"]


def run(folder, width=32, **more):
    """Runs a kernel and compares it with the oracle."""
    return quern(None, "run", *linear(width), "--repeat", "0", "--check", env=environment(folder, **more))


def warmup_command(width):
    return ["warmup", "linear", "--kernel", "linear", "--dim", f"N={width},K=64", "--arch", "cpu", "--json", "--quiet"]


def warmup(folder, width):
    result = quern(folder, *warmup_command(width))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def without_compiler(folder, **more):
    return run(folder, QUERN_JIT_LIBRARY="/nonexistent/libquern-jit.so", **more)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache with the kernel of `run(folder)`."""
    folder = tmp_path_factory.mktemp("kernels") / "cache"
    result = run(folder)
    if "libquern-jit.so" in result.stderr:
        pytest.skip("the compiler library libquern-jit.so is not built")
    assert result.returncode == 0, result.stdout + result.stderr
    assert [e["key"]["kernel"] for e in listing(folder)["entries"]] == ["linear"]
    return folder


def test_four_processes_compile_six_kernels_once(warm, tmp_path):
    """The loader's own log says which of the 24 processes opened the compiler."""
    folder, seed, log = tmp_path / "cache", random.randrange(2**32), tmp_path / "log"
    print(f"seed {seed}")
    log.mkdir()

    def rank(number):
        order = list(WIDTHS)
        random.Random(seed + number).shuffle(order)
        for step, width in enumerate(order):
            result = run(folder, width, LD_DEBUG="files", LD_DEBUG_OUTPUT=log / f"{number}-{step}")
            assert result.returncode == 0 and result.stderr == ""

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rank, range(4)))
    logs = [path.read_text(errors="replace") for path in log.iterdir()]
    assert len(logs) == 24 and all("libc.so" in text for text in logs)
    assert sum("libquern-jit.so" in text for text in logs) == 6
    verified(folder, 6)


def test_killed_warmup_goes_on(warm, tmp_path):
    """kill -9 at random moments of six warmups in a row; the last row finds what was kept and makes the rest."""
    folder, seed = tmp_path / "cache", random.randrange(2**32)
    print(f"seed {seed}")
    random.seed(seed)
    row = " && ".join(shlex.join([QUERN, *warmup_command(width)]) for width in WIDTHS)
    kills = 0
    for attempt in range(4):
        process = subprocess.Popen(row, shell=True, start_new_session=True, env=environment(folder), stdout=subprocess.DEVNULL)
        time.sleep(random.uniform(0.05, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    kept = len(entry_files(folder))
    reports = [warmup(folder, width) for width in WIDTHS]
    assert sum(r["cached"] for r in reports) == kept and sum(r["compiled"] for r in reports) == 6 - kept
    assert kills > 0, "the processes ended before they were killed: nothing was tested"
    verified(folder, 6)


def test_a_copied_cache_compiles_nothing(warm, tmp_path):
    assert without_compiler(warm).returncode == 0
    copy = tmp_path / "home of another" / "cache"
    shutil.copytree(warm, copy)
    place = {"HOME": copy.parent, "LANG": "tr_TR.UTF-8", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kathmandu", "USER": "x", "QUERN_NUM_THREADS": "1"}
    result = without_compiler(copy, **place)
    assert result.returncode == 0, result.stderr
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    env = environment(copy, QUERN_JIT_LIBRARY="/nonexistent", **place)
    assert quern(None, "run", *linear(32), "--repeat", "0", env=env, cwd=cwd).returncode == 0
    archive = tmp_path / "kernels.tar.zst"
    assert quern(warm, "cache", "export", archive).returncode == 0
    assert quern(tmp_path / "imported", "cache", "import", archive).returncode == 0
    assert without_compiler(tmp_path / "imported").returncode == 0
    # The proof is one: another kernel does need the compiler.
    missing = run(copy, 64, QUERN_JIT_LIBRARY="/nonexistent/libquern-jit.so")
    assert missing.returncode == 2 and "libquern-jit.so" in missing.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user (and needs setpriv)")
def test_another_user_compiles_nothing(warm, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(warm, folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for part in (folder, *folder.parents):
        if part.stat().st_mode & 0o001 == 0:
            part.chmod(part.stat().st_mode | 0o055)
    env = {"QUERN_CACHE_DIR": str(folder), "QUERN_JIT_LIBRARY": "/nonexistent", "PATH": os.environ["PATH"]}
    command = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", QUERN, "run", *linear(32), "--repeat", "0", "--check"]
    result = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=60)
    if "failed to execute" in result.stderr:
        pytest.skip("the build folder is closed to other users")
    assert result.returncode == 0 and len(result.stderr.splitlines()) <= 1, result.stderr
    shutil.rmtree(private_folder(12345), ignore_errors=True)


def test_a_damaged_kernel_is_made_again(warm, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(warm, folder)
    (path,) = entry_files(folder)
    good = path.read_bytes()
    for place in random.sample(range(len(good)), 2):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert quern(folder, "cache", "verify").returncode == 1
        result = run(folder)
        assert result.returncode == 0 and len(result.stderr.splitlines()) <= 2, result.stderr
        verified(folder, 1)
        assert without_compiler(folder).returncode == 0


@pytest.mark.skipif(not shutil.which("prlimit"), reason="no prlimit (util-linux)")
def test_a_limit_on_the_length_of_files(warm, tmp_path):
    """`ulimit -f`: an entry that is too long is not kept, and a kernel that is too long for the loader is an error; no signal ends the process."""
    (entry,) = entry_files(warm)

    def under(limit):
        return subprocess.run(
            ["prlimit", f"--fsize={limit}", QUERN, "run", *linear(32), "--repeat", "0", "--check"],
            env=environment(tmp_path / "cache"), capture_output=True, text=True, timeout=60,
        )

    uncached = under(entry.stat().st_size - 1)
    assert uncached.returncode == 0 and "PASS" in uncached.stdout, uncached.stderr
    assert len(uncached.stderr.splitlines()) == 1 and "ulimit -f" in uncached.stderr
    assert entry_files(tmp_path / "cache") == []
    refused = under(1000)
    assert refused.returncode == 2 and "bytes is longer than the files that this process may write" in refused.stderr


def explain(folder, *arguments):
    result = quern(folder, "cache", "explain", *arguments, "--json")
    assert result.returncode in (0, 1), result.stderr
    report = json.loads(result.stdout)
    assert report["image"]["hit"] == (result.returncode == 0)
    return report["image"]


def test_explain(warm):
    hit = explain(warm, *linear(32))
    assert hit["hit"] and hit["hash"] == entry_files(warm)[0].name[:32]
    text = quern(warm, "cache", "explain", *linear(32))
    assert text.returncode == 0 and "\nhit   " in text.stdout

    def fields(image):
        assert not image["hit"]
        return [d["field"] for d in image["nearest"]["differences"]]

    other = explain(warm, *linear(64))
    assert fields(other) == ["dims"] and other["nearest"]["hash"] == hit["hash"]
    assert other["nearest"]["differences"][0] == {"field": "dims", "ours": "K=64 N=64", "theirs": "K=64 N=32"}
    assert fields(explain(warm, *linear(64), "--dtype", "f32"))[:2] == ["dims", "act"]
    assert fields(explain(warm, *linear(32), "--features", "-avx2")) == ["cpu features"]
    text = quern(warm, "cache", "explain", *linear(64), "--dtype", "f32").stdout
    assert "\nmiss  " in text and "differs first in 'dims':\n        here   K=64 N=64\n        there  K=64 N=32\n" in text
    assert "also differs in 'act'" in text and "No tuning result for this call" in text
    nothing = quern(warm, "cache", "explain", *linear(32), "--arch", "sm_90a")
    assert nothing.returncode == 1 and "no entry of kind gpu" in nothing.stdout
    bad = quern(warm, "cache", "explain", "linear", "--kernel", "no")
    assert bad.returncode == 2 and "has no kernel 'no'" in bad.stderr
