"""A warm cache: a second process compiles nothing and maps no LLVM, wherever the folder was copied; what changes the code compiles."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = Path(os.environ.get("QUERN_BUILD_DIR", ROOT / "build"))
QUERN = BUILD / "bin/quern"
COMPILER = BUILD / "lib/libquern-jit.so"
CALL = ["gpt_oss", "--kernel", "gate_up", "--repeat", "1"]

pytestmark = pytest.mark.skipif(not (QUERN.exists() and COMPILER.exists()), reason=f"not built: {QUERN}, {COMPILER}")


def run(cache, log, *arguments, cwd=None, **variables):
    """One call in a process of its own; the shared objects it opened, by the loader's own account."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QUERN_")}
    environment |= {"QUERN_CACHE_DIR": str(cache), "LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(log), **variables}
    done = subprocess.run([QUERN, "run", *CALL, *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no warning"
    (written,) = Path(log).parent.glob(Path(log).name + ".*")
    opened = set(re.findall(r"file=(\S+) \[\d+\];  generating link map", written.read_text()))
    written.unlink()
    assert any("libc.so" in name for name in opened), "the loader's log is not understood"
    return opened


def maps_llvm(opened):
    return any(re.search(r"lib(LLVM|MLIR|quern-jit)", name) for name in opened)


def entries(cache):
    return sorted(p.relative_to(cache) for p in Path(cache).rglob("*.entry"))


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder with the call's kernel in it."""
    folder = tmp_path_factory.mktemp("warm")
    assert maps_llvm(run(folder / "cache", folder / "log"))
    assert len(entries(folder / "cache")) == 1
    return folder / "cache"


def test_second_process_maps_no_llvm(warm, tmp_path):
    opened = run(warm, tmp_path / "log")
    assert not maps_llvm(opened), opened
    assert any(re.match(r"/proc/self/.*fd/", name) for name in opened), "the kernel is opened from memory"
    assert len(entries(warm)) == 1


def test_no_compiler_is_needed_at_all(warm, tmp_path):
    run(warm, tmp_path / "log", QUERN_JIT_LIBRARY="/nonexistent/libquern-jit.so")


def test_a_copied_folder_compiles_nothing_anywhere(warm, tmp_path):
    copy = tmp_path / "elsewhere" / "cache"
    shutil.copytree(warm, copy)
    (tmp_path / "home").mkdir()
    variables = {"HOME": str(tmp_path / "home"), "LANG": "tr_TR.UTF-8", "TMPDIR": str(tmp_path), "QUERN_NUM_THREADS": "1"}
    assert not maps_llvm(run(copy, tmp_path / "log", cwd="/", **variables))
    assert len(entries(copy)) == 1


@pytest.mark.parametrize(
    "arguments, variables",
    [
        ([], {"QUERN_CPU_SCHEDULE": "rows=4 tokens=6"}),
        ([], {"QUERN_CPU_FEATURES": "-avx512f,-amx"}),
        ([], {"QUERN_CPU_FEATURES": "-popcnt"}),
        (["--dtype", "f32"], {}),
        (["--block", "128"], {}),
        (["--dim", "N=320"], {}),
    ],
)
def test_what_changes_the_code_compiles(warm, tmp_path, arguments, variables):
    copy = tmp_path / "cache"
    shutil.copytree(warm, copy)
    assert maps_llvm(run(copy, tmp_path / "log", *arguments, **variables))
    assert len(entries(copy)) == 2
    assert not maps_llvm(run(copy, tmp_path / "log", *arguments, **variables))


SCRIPT = """
import sys, torch, bitsandbytes, quern
x = torch.ones(2, 128)
from bitsandbytes.nn import Params4bit
packed = quern.pack(Params4bit(torch.eye(64, 128), quant_type="nf4").to("cpu"))
quern.load("linear").linear(x.bfloat16(), packed)
maps = open("/proc/self/maps").read()
print(quern.stats().compilations, quern.stats().disk_hits, int("libquern-jit" in maps))
"""


def test_python_maps_no_compiler(tmp_path):
    quern = pytest.importorskip("quern")
    path = os.pathsep.join([str(Path(quern.__file__).parents[1]), *sys.path])
    environment = dict(os.environ, QUERN_CACHE_DIR=str(tmp_path / "cache"), PYTHONPATH=path)

    def counts():
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-3:]

    assert counts() == ["1", "0", "1"]
    assert counts() == ["0", "1", "0"]


STAMP = ROOT / "cmake/CompilerStamp.cmake"


def stamp(root, llvm="22.1.8", files=("codegen/a.cpp", "codegen/b.h")):
    """The generated header for sources below `root`."""
    out = root / "stamp.h"
    command = ["cmake", f"-DOUT={out}", f"-DROOT={root}", f"-DLLVM={llvm}", f"-DFILES={'|'.join(files)}", "-P", STAMP]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return out.read_text()


@pytest.mark.skipif(not shutil.which("cmake"), reason="no cmake")
def test_the_compilers_stamp_is_its_sources(tmp_path):
    def tree(name, a="a", b="b"):
        (tmp_path / name / "codegen").mkdir(parents=True)
        (tmp_path / name / "codegen/a.cpp").write_text(a)
        (tmp_path / name / "codegen/b.h").write_text(b)
        return tmp_path / name

    base = stamp(tree("one"))
    assert base == stamp(tree("elsewhere")), "no path of the machine, no time"
    assert base == stamp(tmp_path / "one", files=("codegen/b.h", "codegen/a.cpp")), "the order of the list is no matter"
    others = [stamp(tree("edited", a="c")), stamp(tree("swapped", a="b", b="a")), stamp(tmp_path / "one", llvm="22.1.9")]
    others.append(stamp(tmp_path / "one", files=("codegen/a.cpp",)))
    assert len({base, *others}) == 5
