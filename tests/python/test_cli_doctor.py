"""`quern doctor`: marks, exit codes, advice; drivers of several versions, asked for nothing but their version."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import quern
from interp.compare import find_quern

QUERN = find_quern()
pytestmark = pytest.mark.skipif(not QUERN, reason="no quern program: neither QUERN_CLI nor build/bin/quern exists; run scripts/setup.sh")
FAKE_CUDA = Path(QUERN).resolve().parent.parent / "lib" / "libquern-fake-cuda.so" if QUERN else None
needs_fake = pytest.mark.skipif(not (FAKE_CUDA and FAKE_CUDA.exists()), reason="libquern-fake-cuda.so is not built; scripts/test.sh builds it")


def script(path, body):
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return path


def run(tmp_path, *arguments, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("QUERN_", "CUDA_"))}
    environment |= {"QUERN_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    environment |= {k: str(v) for k, v in variables.items()}
    return subprocess.run([QUERN, "doctor", "--python", sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def diagnose(tmp_path, code=0, **variables):
    """(the whole diagnosis, {what: finding}; of several findings of one name the first)."""
    result = run(tmp_path, "--json", **variables)
    assert result.returncode == code, result.stdout + result.stderr
    diagnosis = json.loads(result.stdout)
    findings = {}
    for section in diagnosis["sections"]:
        for finding in section["findings"]:
            assert finding["mark"] in ("ok", "missing", "problem")
            findings.setdefault(finding["what"], finding)
    return diagnosis, findings


def with_driver(tmp_path, version, **variables):
    """A diagnosis under a driver of this version and an H100, and the calls that the driver got."""
    log = tmp_path / "calls"
    log.unlink(missing_ok=True)
    bin = tmp_path / "bin"
    bin.mkdir(exist_ok=True)
    script(bin / "nvidia-smi", 'echo "NVIDIA H100 80GB HBM3, 580.65.06, 9.0, 81559 MiB"\n')
    ptxas = script(tmp_path / "ptxas", 'echo "Cuda compilation tools, release 13.0, V13.0.88"\n')
    variables = {"QUERN_PTXAS": ptxas, "PATH": f"{bin}:{os.environ['PATH']}"} | variables
    diagnosis, findings = diagnose(
        tmp_path, QUERN_CUDA_LIBRARY=FAKE_CUDA, QUERN_FAKE_CUDA_VERSION=version, QUERN_FAKE_CUDA_LOG=log, **variables
    )
    return diagnosis, findings, log.read_text().split()



def test_the_text(tmp_path):
    result = run(tmp_path)
    if "compiler library" in result.stdout and "missing  compiler library" in result.stdout:
        pytest.skip("the compiler library libquern-jit.so is not built")
    assert result.returncode == 0, result.stdout + result.stderr
    for title in ("CPU", "Compiler", "GPU", "Cache", "Python"):
        assert re.search(rf"^{title}$", result.stdout, re.M), title
    assert re.search(r"^  ok       test kernel +correct", result.stdout, re.M)
    assert "CPU kernels: work\n" in result.stdout and "GPU kernels: " in result.stdout
    assert result.stderr == ""


def test_what_the_json_says(tmp_path):
    diagnosis, found = diagnose(tmp_path)
    assert diagnosis["cpu_works"] is True
    assert found["folder"]["place"] == str(tmp_path / "cache") and found["folder"]["found"] == "writable"
    assert found["folder"]["why"] == "QUERN_CACHE_DIR names it"
    assert re.match(r"\d+ entries, ", found["contents"]["found"]) and "at most 4.0 GB" in found["contents"]["why"]
    assert found["instruction set"]["found"] in ("x86-64", "avx2", "avx512", "avx512bf16", "amx")
    assert found["Python"]["found"] == "%d.%d.%d" % sys.version_info[:3]
    import torch

    assert found["PyTorch"]["found"].split("+")[0] == torch.__version__.split("+")[0] and found["PyTorch"]["place"] == torch.__file__


def test_without_the_compiler(tmp_path):
    diagnosis, found = diagnose(tmp_path, code=1, QUERN_JIT_LIBRARY="/nonexistent.so")
    assert not diagnosis["cpu_works"] and found["compiler library"]["mark"] == "missing"
    assert "/nonexistent.so" in found["compiler library"]["why"] and found["compiler library"]["advice"]


def test_fewer_features(tmp_path):
    _, found = diagnose(tmp_path, QUERN_CPU_FEATURES="-avx2")
    assert found["instruction set"]["found"] == "x86-64" and "QUERN_CPU_FEATURES" in found["instruction set"]["why"]
    assert found["QUERN_CPU_FEATURES"]["found"] == "-avx2"


def test_variables_that_nothing_reads(tmp_path):
    _, found = diagnose(tmp_path, QUERN_CASH_DIR="x")
    assert found["QUERN_CASH_DIR"]["mark"] == "problem" and "nothing reads it" in found["QUERN_CASH_DIR"]["why"]


def test_a_folder_that_others_may_write(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    diagnosis, found = diagnose(tmp_path, QUERN_CACHE_DIR=shared)
    assert diagnosis["cpu_works"] and found["folder"]["mark"] == "problem"
    assert found["folder"]["place"] != str(shared) and "QUERN_CACHE_DIR" in found["folder"]["advice"]


@pytest.mark.parametrize("body, said", [("exit 3\n", "status 3"), ("echo nonsense\n", "answered something else"), ("kill -9 $$\n", "it ended")])
def test_a_python_that_misbehaves(tmp_path, body, said):
    python = script(tmp_path / "python", body)
    _, found = diagnose(tmp_path)  # the one that works
    result = subprocess.run([QUERN, "doctor", "--json", "--python", python], capture_output=True, text=True, timeout=120)
    sections = json.loads(result.stdout)["sections"]
    [finding] = [f for s in sections for f in s["findings"] if f["what"] == "Python"]
    assert found["Python"]["mark"] == "ok" and finding["mark"] == "problem" and said in finding["why"]


@needs_fake
def test_a_driver_of_13(tmp_path):
    diagnosis, found, calls = with_driver(tmp_path, 13000)
    assert found["driver"]["found"] == "CUDA 13.0" and found["driver"]["place"] == str(FAKE_CUDA)
    assert found["GPU 0"]["mark"] == "ok" and "H100" in found["GPU 0"]["found"]
    assert found["ptxas"]["mark"] == "ok" and found["ptxas"]["found"] == "13.0.88" and "used" in found["ptxas"]["why"]
    assert diagnosis["gpu_works"] == (found["NVRTC"]["mark"] == "ok")
    assert set(calls) == {"cuDriverGetVersion"}, "CUDA is not initialised"


@needs_fake
def test_a_driver_of_12_4(tmp_path):
    diagnosis, found, calls = with_driver(tmp_path, 12040)
    assert found["driver"]["found"] == "CUDA 12.4"
    assert found["ptxas"]["mark"] == "problem" and "newer than the driver's CUDA 12.4" in found["ptxas"]["why"]
    assert found["ptxas"]["advice"] == "pip install nvidia-cuda-nvcc-cu12"
    if found["NVRTC"]["mark"] != "ok":  # what this machine has is of CUDA 13
        assert found["NVRTC"]["advice"] == "pip install nvidia-cuda-nvrtc-cu12"
        assert not diagnosis["gpu_works"] and "NVRTC" in diagnosis["gpu_reason"]
    assert set(calls) == {"cuDriverGetVersion"}


@needs_fake
def test_a_driver_that_is_too_old(tmp_path):
    diagnosis, found, calls = with_driver(tmp_path, 11080)
    assert found["driver"]["mark"] == "problem" and "CUDA 11.8; Quern needs 12.0" in found["driver"]["why"]
    assert not diagnosis["gpu_works"] and diagnosis["cpu_works"] and set(calls) == {"cuDriverGetVersion"}


@needs_fake
def test_a_ptxas_that_does_not_run_and_a_gpu_of_another_kind(tmp_path):
    diagnosis, found, _ = with_driver(tmp_path, 13000, QUERN_PTXAS="/nonexistent/ptxas")
    assert found["ptxas"]["mark"] == "problem" and "No such file" in found["ptxas"]["why"]
    assert diagnosis["gpu_reason"] == "ptxas cannot be run"
    bin = tmp_path / "other"
    bin.mkdir()
    script(bin / "nvidia-smi", 'echo "NVIDIA A100-SXM4-80GB, 580.65.06, 8.0, 81920 MiB"\n')
    diagnosis, found, _ = with_driver(tmp_path, 13000, PATH=f"{bin}:{os.environ['PATH']}")
    assert found["GPU 0"]["mark"] == "problem" and "9.0" in diagnosis["gpu_reason"]


def test_from_python(capsys):
    try:
        report = quern.doctor(json=True)
    except quern.RuntimeFailure as error:
        pytest.skip(str(error))
    python = next(f for s in report["sections"] for f in s["findings"] if f["what"] == "Python")
    assert os.path.realpath(python["place"]) == os.path.realpath(sys.executable) and "--python" in python["why"]
    assert quern.doctor() is None and "GPU kernels: " in capsys.readouterr().out
    result = subprocess.run([sys.executable, "-m", "quern", "doctor", "--json"], capture_output=True, text=True, timeout=120)
    assert result.returncode in (0, 1) and json.loads(result.stdout)["sections"] is not None
