"""Decoded weights are bit-identical to bitsandbytes': every byte, block size, flat and nested, dtype, and strange scales."""

import bitsandbytes.functional as BF
import pytest
import torch
from bitsandbytes.functional import QuantState
from helpers import BLOCKSIZES, DTYPES, assert_same_values, dequantize, seeded, table

import quern

LAYOUTS = ("bnb", "cpu", "gpu")
SPECIAL = [0.0, -0.0, 1e-45, 3e-42, 1.1754942e-38, 1.17549435e-38, 2e-38, 6e-8, 5.9e-8, 1e-5, 6.1e-5, 1.0, -1.0, 0.37, 65504.0, 65520.0,
           7e4, 1e30, 3.3895314e38, 3.4028235e38, float("inf"), float("-inf"), float("nan")]  # fmt: skip


def all_bytes(count, generator):
    """`count` bytes that hold every value 0..255, in random order."""
    assert count >= 256
    values = torch.arange(count) % 256
    return values[torch.randperm(count, generator=generator)].to(torch.uint8)


def expected_decode(codes, absmax, shape, blocksize, quant_type, dtype):
    """(bitsandbytes' values, the same without flushing subnormals, where the product or its rounding is subnormal)."""
    state = QuantState(absmax, torch.Size(shape), table(quant_type), blocksize, quant_type, dtype)
    n = state.shape.numel()
    index = torch.stack([codes >> 4, codes & 15], -1).reshape(-1)[:n].long()
    product = table(quant_type)[index] * absmax.repeat_interleave(blocksize)[:n]
    kept = product.to(dtype)
    subnormal = (product.abs() < torch.finfo(torch.float32).tiny) | (kept.abs() < torch.finfo(dtype).tiny)
    return dequantize(codes.reshape(-1, 1), state), kept.view(shape), subnormal.view(shape)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("blocksize", BLOCKSIZES)
@pytest.mark.parametrize("nested", [False, True])
def test_all_bytes(blocksize, dtype, quant_type, nested):
    generator = seeded(blocksize)
    n, k = 96, 320 if blocksize <= 2048 else 4096  # blocks straddle rows; 96 x 320 = 15 x 2048; edges in both layouts
    weight = (torch.randn(n, k, generator=generator) * torch.rand(n, 1, generator=generator)).to(dtype)
    _, state = BF.quantize_4bit(weight, blocksize=blocksize, compress_statistics=nested, quant_type=quant_type)
    codes = all_bytes(n * k // 2, generator).view(-1, 1)
    expected = dequantize(codes, state)
    params = quern_params(codes, state)
    packed = quern.pack(params, layout="bnb")
    for layout in LAYOUTS:
        found = quern.dequantize(packed.to(layout))
        assert_same_values(found, expected)
    for out in DTYPES:
        assert_same_values(quern.dequantize(packed, out), expected.to(out), expected.to(out))


def quern_params(codes, state):
    from bitsandbytes.nn import Params4bit

    return Params4bit(codes, quant_state=state, quant_type=state.quant_type, blocksize=state.blocksize, bnb_quantized=True)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strange_scales(layout, dtype, quant_type):
    """Each special scale meets each of the 256 bytes: blocks of 512 codes hold them all."""
    generator = seeded(11)
    blocks = len(SPECIAL) + 9
    n, k = 64, 8 * blocks  # 64 * 8 * blocks codes = blocks of 512
    absmax = torch.cat([torch.tensor(SPECIAL), torch.rand(9, generator=generator)])
    codes = torch.cat([all_bytes(256, generator) for _ in range(blocks)])
    expected, kept, subnormal = expected_decode(codes, absmax, (n, k), 512, quant_type, dtype)
    packed = quern.pack(codes=codes, absmax=absmax, shape=(n, k), blocksize=512, codec=quant_type, dtype=dtype, layout=layout)
    assert_same_values(quern.dequantize(packed), expected, kept, subnormal)


def test_gpt_oss_shape_with_straddling_blocks():
    """K = 2880 with blocks of 128: bitsandbytes' own Linear4bit is wrong here on AVX-512, Quern must not be."""
    generator = seeded(3)
    weight = torch.randn(64, 2880, generator=generator).bfloat16()
    codes, state = BF.quantize_4bit(weight, blocksize=128, compress_statistics=True, quant_type="nf4")
    packed = quern.pack(quern_params(codes, state))
    assert_same_values(quern.dequantize(packed), dequantize(codes, state))


def test_stack_equals_experts():
    generator = seeded(4)
    weight = torch.randn(3, 64, 128, generator=generator).bfloat16()
    codes, state = BF.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    packed = quern.pack(quern_params(codes, state))
    assert packed.shape == (3, 64, 128)
    assert_same_values(quern.dequantize(packed), dequantize(codes, state))


def test_mxfp4():
    """e8m0 scales: 2^(s - 127), 255 is NaN; low nibble first (OCP Microscaling 1.0)."""
    generator = seeded(5)
    values = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    values = torch.cat([values, -values])
    n, k = 64, 256
    codes = torch.randint(0, 256, (n * k // 2,), dtype=torch.uint8, generator=generator)
    scales = (torch.arange(n * k // 32) % 256).to(torch.uint8)
    index = torch.stack([codes & 15, codes >> 4], -1).reshape(-1).long()
    factor = torch.where(scales == 255, torch.nan, torch.exp2(scales.double() - 127)).float()
    exact = (values[index] * factor.repeat_interleave(32)).view(n, k)
    for layout in LAYOUTS:
        packed = quern.pack(codes=codes, absmax=scales, shape=(n, k), codec="mxfp4", dtype=torch.float32, layout=layout)
        assert packed.blocksize == 32
        assert_same_values(quern.dequantize(packed), exact, exact)


def test_int4():
    """codes 0..15 with zero 8, one bf16 scale per 128."""
    generator = seeded(6)
    n, k = 48, 384
    codes = torch.randint(0, 256, (n * k // 2,), dtype=torch.uint8, generator=generator)
    scales = torch.rand(n * k // 128, generator=generator).bfloat16()
    codec = quern.load("int4").codecs["int4"]
    index = torch.stack([codes >> 4, codes & 15] if codec.high_first else [codes & 15, codes >> 4], -1).reshape(-1).long()
    exact = ((index - 8).float() * scales.float().repeat_interleave(128)).view(n, k).bfloat16()
    zeros = torch.full((n * k // 128,), 8, dtype=torch.uint8) if codec.has_zero else None
    packed = quern.pack(codes=codes, absmax=scales, shape=(n, k), codec=codec, zeros=zeros)
    assert_same_values(quern.dequantize(packed), exact)


def test_a_user_codec():
    text = """codec mine { table = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]  first = low  scale f32 per 64 zero u4 per 64 }
    kernel k(x: act[T, K], w: mine[N, K]) -> y: act[T, N] { y[t, n] = sum(k) x[t, k] * w[n, k] }"""
    generator = seeded(7)
    codes = torch.randint(0, 256, (4 * 64 // 2,), dtype=torch.uint8, generator=generator)
    absmax, zeros = torch.tensor([1.0, 0.5, -2.0, 3.0]), torch.tensor([0, 15, 8, 3], dtype=torch.uint8)
    codec = quern.load(text).codecs["mine"]
    assert codec.has_zero and not codec.high_first
    index = torch.stack([codes & 15, codes >> 4], -1).reshape(4, 64).float()
    exact = (index - zeros.float()[:, None]) * absmax[:, None]
    packed = quern.pack(codes=codes, absmax=absmax, zeros=zeros, shape=(4, 64), codec=codec, dtype=torch.float32)
    assert_same_values(quern.dequantize(packed), exact)
