"""Forked workers: nothing that a program does before it forks may initialise CUDA, and a child of any parent computes or says why not."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import needs_jit

from interp.compare import find_quern

QUERN = find_quern()
FAKE_CUDA = Path(QUERN).resolve().parent.parent / "lib" / "libquern-fake-cuda.so" if QUERN else None
needs_fake = pytest.mark.skipif(not (FAKE_CUDA and FAKE_CUDA.exists()), reason="libquern-fake-cuda.so is not built; scripts/test.sh builds it")

PRELUDE = """
import os, sys, threading, warnings
import torch, quern
warnings.filterwarnings("ignore", category=DeprecationWarning)  # of forking with threads, which is the point here
codes = torch.randint(0, 256, (64 * 64 // 2,), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
weights = quern.pack(codes=codes, absmax=torch.ones(64), shape=(64, 64), codec="nf4", blocksize=64, dtype=torch.float32)
x = torch.ones(3, 64)
linear = quern.load("linear").linear
expected = x @ quern.dequantize(weights, torch.float32).t()

def correct():
    return torch.allclose(linear(x, weights), expected, rtol=1e-3, atol=1e-3)

def children(work, count=4):
    "Forks `count` children that end with work()'s truth; whether all of them did well."
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if work() else 1
            finally:
                os._exit(code)
        pids.append(pid)
    return all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
"""


def run(tmp_path, code, **variables):
    environment = os.environ | {"QUERN_CACHE_DIR": str(tmp_path / "cache")} | {k: str(v) for k, v in variables.items()}
    result = subprocess.run([sys.executable, "-c", PRELUDE + textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs_jit
@needs_fake
def test_no_call_on_the_cpu_touches_cuda(tmp_path):
    log = tmp_path / "calls"
    log.touch()
    run(
        tmp_path,
        """
        assert correct() and quern.device_problem("cpu") is None and quern.stats()
        try:
            quern.doctor(json=True)
        except quern.RuntimeFailure:
            pass  # no command line tool beside this package
        import subprocess
        subprocess.run([os.environ["QUERN"], "list"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([os.environ["QUERN"], "doctor"], check=True, stdout=subprocess.DEVNULL)
        """,
        QUERN_CUDA_LIBRARY=FAKE_CUDA,
        QUERN_FAKE_CUDA_LOG=log,
        QUERN=QUERN,
    )
    calls = set(log.read_text().split())
    assert calls == {"cuDriverGetVersion"}, "doctor asks for the version, and nobody for more"


@needs_jit
def test_data_loader_workers(tmp_path):
    """Workers that torch forks after the parent has run kernels with its threads."""
    run(
        tmp_path,
        """
        assert correct()
        class Rows(torch.utils.data.Dataset):
            def __len__(self):
                return 8
            def __getitem__(self, i):
                return linear(x * i, weights)
        loader = torch.utils.data.DataLoader(Rows(), batch_size=2, num_workers=2, multiprocessing_context="fork")
        batches = torch.cat(list(loader))
        assert torch.allclose(batches, torch.stack([expected * i for i in range(8)]), rtol=1e-3, atol=1e-2)
        assert correct()
        """,
    )


@needs_jit
def test_forks_beside_compiling_threads(tmp_path):
    """Children are forked at whatever moment eight threads compile in; each runs a kernel that its parent has, and compiles another one."""
    run(
        tmp_path,
        """
        assert correct()
        text = "use nf4\\nkernel f(x: act[T, K], w: nf4[N, K]) -> y: f32[T, N] {{ y[t, n] = {0}.0 * sum(k) x[t, k] * w[n, k] }}"
        def compile(number):
            return torch.allclose(quern.load(text.format(number)).f(x, weights), number * expected, rtol=1e-3, atol=1e-2)
        results = []
        threads = [threading.Thread(target=lambda first=first: results.extend(compile(n) for n in range(first, first + 2))) for first in range(2, 18, 2)]
        for thread in threads:
            thread.start()
        assert children(correct, 6)
        for thread in threads:
            thread.join()
        assert len(results) == 16 and all(results)
        assert children(lambda: compile(30), 3)
        """,
    )


@needs_fake
def test_a_child_of_a_process_with_cuda_is_told(tmp_path):
    run(
        tmp_path,
        """
        from quern import _quern
        device = _quern.open_device("cuda", 0)
        def refused():
            try:
                _quern.open_device("cuda", 0)
            except quern.Error as error:
                return "CUDA was in use before this process was forked" in str(error) and "spawn" in str(error)
        assert children(refused, 2)
        assert _quern.open_device("cuda", 0).arch == "sm_90a"
        """,
        QUERN_CUDA_LIBRARY=FAKE_CUDA,
    )
