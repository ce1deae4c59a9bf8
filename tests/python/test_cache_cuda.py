"""The cuda path from a warm cache, on a CUDA driver without a device (tests/support/fake_cuda): the first process compiles and keeps kernel and
device code, the next launches them and opens neither compiler, ptxas nor NVRTC. What the driver refuses is made anew once, over processes."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cache_helpers import QUERN, entry_files, environment, listing, quern

BUILD = Path(QUERN).resolve().parent.parent if QUERN else Path("build")
FAKE_CUDA, COMPILER = BUILD / "lib/libquern-fake-cuda.so", BUILD / "lib/libquern-jit.so"
missing = [str(path) for path in (FAKE_CUDA, COMPILER) if not path.exists()]
pytestmark = pytest.mark.skipif(not QUERN or bool(missing), reason=f"not built: quern, {missing}; scripts/test.sh builds them")
# Without routing, which is compared with the host's: nothing runs on this device.
CALL = ["run", "linear", "--kernel", "linear", "--dim", "T=4,N=64,K=64", "--target", "cuda", "--repeat", "0", "--json"]
NOWHERE = {"QUERN_JIT_LIBRARY": "/nonexistent/libquern-jit.so", "QUERN_NVRTC": "none"}


def run(folder, log, **more):
    """One process: its report, the shared objects that the loader opened for it, the driver calls it made, its warnings."""
    for old in Path(log).parent.glob(Path(log).name + "*"):
        old.unlink()
    calls = Path(f"{log}-calls")
    env = environment(folder, QUERN_CUDA_LIBRARY=FAKE_CUDA, QUERN_FAKE_CUDA_LOG=calls, LD_DEBUG="files", LD_DEBUG_OUTPUT=log, **more)
    done = subprocess.run([QUERN, *CALL], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    opened = set()
    for written in Path(log).parent.glob(Path(log).name + ".*"):  # of ptxas too, one file per process
        opened |= set(re.findall(r"file=(\S+) \[\d+\];  generating link map", written.read_text(errors="replace")))
    assert any("libquern-fake-cuda" in name for name in opened), "the loader's log is not understood"
    return json.loads(done.stdout), opened, calls.read_text().split(), done.stderr.splitlines()


def compilers(opened):
    return sorted(name for name in opened if re.search(r"lib(LLVM|MLIR|quern-jit|nvrtc|nvptxcompiler)", name))


def processes(log):
    return len(list(Path(log).parent.glob(Path(log).name + ".*")))


def kinds(folder):
    return sorted(entry["key"]["kind"] if "kind" in entry["key"] else entry["kind"] for entry in listing(folder)["entries"])


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    top = tmp_path_factory.mktemp("cuda")
    folder = top / "cache"
    report, opened, calls, warnings = run(folder, top / "log")
    found = " ".join(compilers(opened))
    if "nvrtc" not in found:
        pytest.skip("no NVRTC on this machine")
    if processes(top / "log") < 2:
        pytest.skip("no ptxas on this machine")
    assert "quern-jit" in found and report["compile_ms"] > 0 and warnings == []
    assert calls.count("cuLaunchKernelEx") > 0
    assert kinds(folder) == ["device", "gpu", "made-by", "made-by", "tool", "tool"]
    return folder


def test_the_second_process_compiles_nothing(warm, tmp_path):
    before = {path: path.read_bytes() for path in entry_files(warm)}
    report, opened, calls, warnings = run(warm, tmp_path / "log")
    assert compilers(opened) == [] and report["compile_ms"] == 0 and warnings == []
    assert processes(tmp_path / "log") == 1, "a tool was started"
    assert calls.count("cuModuleLoadDataEx") == 2 and calls.count("cuLaunchKernelEx") > 0 and "PTX" not in calls
    assert {path: path.read_bytes() for path in entry_files(warm)} == before


def test_no_warm_start_waits_for_the_drivers_own_cache(warm, tmp_path):
    """Row 46: the cubins are ours, so nothing depends on ~/.nv; where they are refused, the driver does compile."""
    report, opened, calls, warnings = run(warm, tmp_path / "log", CUDA_CACHE_DISABLE="1", HOME=tmp_path)
    assert report["compile_ms"] == 0 and "PTX" not in calls and warnings == []
    assert not (tmp_path / ".nv").exists()
    folder = tmp_path / "cache"
    shutil.copytree(warm, folder)
    report, opened, calls, warnings = run(folder, tmp_path / "log", CUDA_CACHE_DISABLE="1", QUERN_FAKE_CUDA_REFUSES="linear")
    assert calls.count("PTX") == 1


@pytest.mark.parametrize("tools", [NOWHERE, NOWHERE | {"QUERN_PTXAS": "none"}], ids=["no compiler", "no ptxas either"])
def test_a_machine_without_the_tools_launches_from_the_cache(warm, tmp_path, tools):
    folder = tmp_path / "elsewhere"
    shutil.copytree(warm, folder)
    report, opened, calls, warnings = run(folder, tmp_path / "log", **tools)
    assert compilers(opened) == [] and report["compile_ms"] == 0 and warnings == []
    # The proof is one: another kernel does need the compiler.
    env = environment(folder, QUERN_CUDA_LIBRARY=FAKE_CUDA, **tools)
    other = quern(None, *[word.replace("N=64", "N=128") for word in CALL], env=env)
    assert other.returncode == 2 and "libquern-jit.so" in other.stderr


def test_what_an_older_driver_refuses_is_compiled_once_over_processes(warm, tmp_path):
    """A rebuild gives the same cubin: that is kept, and the processes after it run the PTX at once."""
    folder = tmp_path / "cache"
    shutil.copytree(warm, folder)
    first, opened, calls, warnings = run(folder, tmp_path / "log", QUERN_FAKE_CUDA_REFUSES="linear")
    assert first["compile_ms"] > 0 and "CUDA_ERROR_NO_BINARY_FOR_GPU" in warnings[0] and len(warnings) == 1
    assert kinds(folder).count("gpu") == 1 and "rebuilt" in kinds(folder)
    for tools in ({}, NOWHERE):
        report, opened, calls, warnings = run(folder, tmp_path / "log", QUERN_FAKE_CUDA_REFUSES="linear", **tools)
        assert report["compile_ms"] == 0 and compilers(opened) == [] and calls.count("cuLaunchKernelEx") > 0
        assert len(warnings) == 1 and "CUDA_ERROR_NO_BINARY_FOR_GPU" in warnings[0]
    report, opened, calls, warnings = run(folder, tmp_path / "log")  # a driver that takes it
    assert report["compile_ms"] == 0 and warnings == [] and compilers(opened) == []


def test_a_refused_image_is_not_lost_where_it_cannot_be_compiled(warm, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(warm, folder)
    for _ in range(2):
        report, opened, calls, warnings = run(folder, tmp_path / "log", QUERN_FAKE_CUDA_REFUSES="linear", **NOWHERE)
        assert report["compile_ms"] == 0 and calls.count("cuLaunchKernelEx") > 0 and len(warnings) == 1
    report, opened, calls, warnings = run(folder, tmp_path / "log", **NOWHERE)
    assert report["compile_ms"] == 0 and warnings == []
