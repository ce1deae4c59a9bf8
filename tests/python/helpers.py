"""What the tests share: bitsandbytes weights, exact references, comparisons that forgive only what the contract forgives."""

import functools
import math
import os
from pathlib import Path

import bitsandbytes.functional as BF
import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit

import quern

BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
JIT_LIBRARY = Path(quern.__file__).parent / "libquern-jit.so"

needs_jit = pytest.mark.skipif(
    not (JIT_LIBRARY.exists() or "QUERN_JIT_LIBRARY" in os.environ), reason=f"built without the compiler: no {JIT_LIBRARY.name} in the package"
)


def seeded(seed):
    """A generator, its seed printed (pytest shows it when the test fails)."""
    print(f"seed {seed}")
    return torch.Generator().manual_seed(seed)


def params4bit(weight, *, blocksize=64, nested=True, quant_type="nf4", storage=torch.uint8):
    return Params4bit(
        weight, blocksize=blocksize, compress_statistics=nested, quant_type=quant_type, quant_storage=storage
    ).to("cpu")


def linear4bit(n, k, generator, *, dtype=torch.bfloat16, bias=False, **options):
    """A Linear4bit with random weights, quantized by bitsandbytes; its CPU repacking is off, as quern asks."""
    module = Linear4bit(k, n, bias=bias, compute_dtype=dtype, quant_type=options.get("quant_type", "nf4"))
    params = params4bit((torch.randn(n, k, generator=generator) * 0.05).to(dtype), **options)
    module.weight, module.quant_state, params.module = params, params.quant_state, module
    if bias:
        module.bias = torch.nn.Parameter((torch.randn(n, generator=generator) * 0.1).to(dtype), requires_grad=False)
    module.support_avx512bf16_for_cpu = False
    return module.train()


@functools.lru_cache(maxsize=None)
def table(quant_type):
    return BF.get_4bit_type(quant_type, device="cpu")


def dequantize(codes, state):
    """bitsandbytes' own decode, called with shape [1, numel]: its AVX-512 path is wrong when K % blocksize != 0."""
    shape, state.shape = state.shape, torch.Size([1, state.shape.numel()])
    try:
        return BF.dequantize_4bit(codes, state).view(shape)
    finally:
        state.shape = shape


def bits(tensor):
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


def assert_same_values(found, expected, kept=None, subnormal=None):
    """Bitwise equal, but NaN payloads are free, and where `subnormal` says so, zero is as good as `kept`, the unflushed value."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    same = (bits(found) == bits(expected)) | (found.isnan() & expected.isnan())
    if kept is not None:
        if subnormal is None:
            subnormal = kept.abs() < torch.finfo(kept.dtype).tiny
        flushed_or_kept = lambda t: (bits(t) == bits(kept)) | (t == 0)  # noqa: E731
        same |= subnormal & flushed_or_kept(found) & flushed_or_kept(expected)
    where = (~same).nonzero()
    if len(where):
        at = tuple(where[0].tolist())
        pytest.fail(f"{len(where)} of {same.numel()} values differ, first at {at}: {found[at].item()!r}, expected {expected[at].item()!r}")


def tiles(tensor, size=16):
    """L2 norm of every size x size tile of [rows, columns]."""
    padded = torch.nn.functional.pad(tensor.double(), (0, -tensor.shape[1] % size, 0, -tensor.shape[0] % size))
    return padded.view(padded.shape[0] // size, size, -1, size).square().sum((1, 3)).sqrt()


def assert_close_tiles(found, expected, gate):
    """Relative L2 error of every 16 x 16 tile within `gate`."""
    assert found.shape == expected.shape
    assert bool(torch.isfinite(found).all()), "not finite"
    error = tiles(found.double() - expected.double()) / tiles(expected).clamp_min(1e-12)
    worst = int(error.argmax())
    row, column = divmod(worst, error.shape[1])
    assert float(error.max()) <= gate, f"tile ({row}, {column}) has relative error {float(error.max()):.2e}, gate {gate:.1e}"


def route_naive(ids, weights, experts):
    """Rows (token, choice) sorted by expert, by plain Python."""
    rows, offsets = [], [0]
    for e in range(experts):
        for t in range(ids.shape[0]):
            for c in range(ids.shape[1]):
                if int(ids[t, c]) == e:
                    rows.append((t, c, float(weights[t, c])))
        offsets.append(len(rows))
    return rows, offsets


def is_nan(value):
    return isinstance(value, float) and math.isnan(value)
