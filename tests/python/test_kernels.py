"""Calling kernels from Python: numbers against exact references, every kind of argument, bad arguments, counters, threads."""

import functools
import threading

import numpy
import pytest
import torch
from helpers import DTYPES, assert_close_tiles, dequantize, linear4bit, needs_jit, seeded

import quern

pytestmark = needs_jit
load = functools.lru_cache(maxsize=None)(quern.load)  # a module keeps what it compiled
GATE = {torch.float32: 2e-4, torch.bfloat16: 4e-3, torch.float16: 6e-4}  # fp32 gate, plus one rounding of a 16-bit output


def dense(n=96, k=128, seed=0, dtype=torch.bfloat16, **options):
    module = linear4bit(n, k, seeded(seed), dtype=dtype, **options)
    return quern.pack(module), dequantize(module.weight.data, module.weight.quant_state)


def exact_linear(x, weight, bias=None):
    """float64 of what the kernel reads: weights rounded to the activations' dtype."""
    y = x.double() @ weight.to(x.dtype).double().t()
    return y if bias is None else y + bias.double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 33, 70])
@pytest.mark.parametrize("n, k", [(96, 128), (33, 66), (1, 2), (40, 2880)])
def test_linear(dtype, tokens, n, k):
    packed, weight = dense(n, k, dtype=dtype)
    x = torch.randn(tokens, k, generator=seeded(tokens)).to(dtype)
    y = load("linear").linear(x, packed)
    assert y.dtype is dtype and y.shape == (tokens, n)
    assert_close_tiles(y, exact_linear(x, weight), GATE[dtype])


@pytest.mark.parametrize("layout", ["gpu", "bnb"])
@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize("n, k", [(96, 128), (70, 200)])
def test_every_layout_is_read(layout, tokens, n, k):
    """Slower than 'cpu', but right: the layouts check each other."""
    packed, weight = dense(n, k)
    x = torch.randn(tokens, k, generator=seeded(1)).bfloat16()
    assert_close_tiles(load("linear").linear(x, packed.to(layout)), exact_linear(x, weight), GATE[torch.bfloat16])


@pytest.mark.parametrize("quant_type, blocksize, nested", [("nf4", 128, True), ("nf4", 4096, False), ("nf4", 32, True)])
def test_other_blocks(quant_type, blocksize, nested):
    packed, weight = dense(64, 192, blocksize=blocksize, nested=nested, quant_type=quant_type)
    x = torch.randn(5, 192, generator=seeded(1)).bfloat16()
    assert_close_tiles(load("linear").linear(x, packed), exact_linear(x, weight), GATE[torch.bfloat16])


def test_fp4_kernel():
    text = "use fp4\nkernel mul(x: act[T, K], w: fp4[N, K]) -> y: f32[T, N] { y[t, n] = sum(k) x[t, k] * w[n, k] }"
    packed, weight = dense(quant_type="fp4")
    x = torch.randn(9, 128, generator=seeded(1)).bfloat16()
    assert_close_tiles(quern.load(text).mul(x, packed), exact_linear(x, weight), GATE[torch.float32])
    with pytest.raises(quern.ArgumentError, match="'w': packed with codec 'fp4', which is not the kernel's codec 'nf4'"):
        load("linear").linear(x, packed)


def test_exact_sums_bit_for_bit():
    """Codes 0, 7 and 15 are exactly -1, 0, 1: small integers and power-of-two scales give exact sums."""
    generator = seeded(2)
    n, k = 48, 320
    signs = torch.randint(0, 3, (n * k,), generator=generator)
    codes = torch.tensor([0, 7, 15])[signs].view(-1, 2)
    packed = quern.pack(
        codes=(codes[:, 0] << 4 | codes[:, 1]).to(torch.uint8), absmax=torch.full((n * k // 64,), 0.5), shape=(n, k), codec="nf4"
    )
    x = torch.randint(-8, 9, (37, k), generator=generator).bfloat16()
    text = "use nf4\nkernel mul(x: act[T, K], w: nf4[N, K]) -> y: f32[T, N] { y[t, n] = sum(k) x[t, k] * w[n, k] }"
    exact = x.float() @ ((signs.view(n, k) - 1) * 0.5).float().t()
    assert torch.equal(quern.load(text).mul(x, packed), exact)


STRIDES = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.t().contiguous().t(),
    "rows apart": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "columns apart": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "reversed memory": lambda x: x.flip(0).contiguous().flip(0),
    "offset": lambda x: torch.cat([x.new_zeros(1, x.shape[1]), x])[1:],
    "a Parameter": lambda x: torch.nn.Parameter(x, requires_grad=False),
}


@pytest.mark.parametrize("strides", STRIDES)
def test_any_strides(strides):
    packed, _ = dense()
    x = torch.randn(20, 128, generator=seeded(3)).bfloat16()
    linear = load("linear").linear
    assert torch.equal(linear(STRIDES[strides](x), packed), linear(x, packed))


def test_expanded_rows():
    packed, _ = dense()
    x = torch.randn(1, 128, generator=seeded(4)).bfloat16()
    linear = load("linear").linear
    assert torch.equal(linear(x.expand(7, 128), packed), linear(x.repeat(7, 1), packed))


def test_numpy_and_scalars():
    packed, weight = dense(dtype=torch.float32)
    generator = seeded(5)
    x, a, b = torch.randn(6, 128, generator=generator), torch.randn(8, 128, generator=generator), torch.randn(96, 8, generator=generator)
    module = load("linear")
    expected = exact_linear(x, weight) + 0.25 * (x.double() @ a.double().t()) @ b.double().t()
    assert_close_tiles(module.lora_linear(x, packed, a, b, 0.25), expected, 2e-4)
    frozen = x.numpy()
    frozen.flags.writeable = False
    for s in (0.25, numpy.float32(0.25), torch.tensor(0.25)):
        assert torch.equal(module.lora_linear(frozen, w=packed, s=s, B=b, A=a), module.lora_linear(x, packed, a, b, 0.25))


@pytest.mark.parametrize("bias_dtype", DTYPES)
def test_bias_of_any_dtype(bias_dtype):
    packed, weight = dense()
    generator = seeded(6)
    x, bias = torch.randn(4, 128, generator=generator).bfloat16(), torch.randn(96, generator=generator).to(bias_dtype)
    y = load("linear").linear_bias(x, packed, bias)
    assert_close_tiles(y, exact_linear(x, weight, bias), GATE[torch.bfloat16])


def test_inputs_are_not_changed():
    packed, _ = dense()
    x = torch.randn(4, 128, generator=seeded(7)).bfloat16()
    before, codes = x.clone(), packed._codes[0].clone()
    load("linear").linear(x, packed)
    assert torch.equal(x, before) and torch.equal(packed._codes[0], codes)


def test_no_tokens():
    packed, _ = dense()
    y = load("linear").linear(torch.empty(0, 128).bfloat16(), packed)
    assert y.shape == (0, 96) and y.dtype is torch.bfloat16


X = torch.zeros(4, 128, dtype=torch.bfloat16)
BIAS = torch.zeros(96)


def bad_calls(packed):
    stack = quern.pack([linear4bit(96, 128, seeded(0))] * 2)
    grad = torch.zeros(4, 128, requires_grad=True)
    return {
        "missing": (dict(x=X, w=packed), TypeError, "argument 'b': missing in the call of linear_bias"),
        "unknown": (dict(x=X, w=packed, b=BIAS, c=1), TypeError, r"argument 'c': linear_bias has no such parameter: linear_bias\(x: act\[T, K\]"),
        "dtype": (dict(x=X.double(), w=packed, b=BIAS), TypeError, "argument 'x': found dtype torch.float64, expected float32, bfloat16 or float16"),
        "integer": (dict(x=X, w=packed, b=BIAS.int()), TypeError, "argument 'b': found dtype torch.int32"),
        "device": (dict(x=X.to("meta"), w=packed, b=BIAS), ValueError, "argument 'x': found a tensor on 'meta', expected 'cpu'"),
        "rank": (dict(x=X[0], w=packed, b=BIAS), ValueError, r"argument 'x': has 1 dimensions? \[128\].*expected 2"),
        "K": (dict(x=X[:, :64], w=packed, b=BIAS), ValueError, "argument '(x|w)'"),
        "N": (dict(x=X, w=packed, b=BIAS[:95]), ValueError, "argument 'b'"),
        "not packed": (dict(x=X, w=X, b=BIAS), TypeError, r"argument 'w': found Tensor, expected nf4\[N, K\] as made by quern.pack"),
        "stack": (dict(x=X, w=stack, b=BIAS), ValueError, "argument 'w'"),
        "a list": (dict(x=[1], w=packed, b=BIAS), TypeError, "argument 'x': found list, expected a tensor"),
        "grad": (dict(x=grad, w=packed, b=BIAS), ValueError, r"argument 'x': requires grad while gradients are recorded.*torch.no_grad\(\)"),
        "sparse": (dict(x=torch.zeros(4, 128).to_sparse(), w=packed, b=BIAS), ValueError, "argument 'x': found a torch.sparse_coo tensor"),
    }


@pytest.mark.parametrize("case", list(bad_calls(None)))
def test_bad_arguments(case):
    packed, _ = dense()
    kwargs, error, message = bad_calls(packed)[case]
    before = quern.stats()
    with pytest.raises(quern.ArgumentError, match=message) as caught:
        load("linear").linear_bias(**kwargs)
    assert isinstance(caught.value, error)
    assert quern.stats().compilations == before.compilations


def test_too_many_and_twice():
    packed, _ = dense()
    linear = load("linear").linear
    with pytest.raises(quern.ArgumentTypeError, match="linear takes 2 arguments, found 3"):
        linear(X, packed, 1)
    with pytest.raises(quern.ArgumentTypeError, match="argument 'x': given twice, by position and by keyword"):
        linear(X, packed, x=X)
    with pytest.raises(quern.ArgumentTypeError, match="argument 's': found str, expected a number"):
        load("linear").lora_linear(X, packed, torch.zeros(2, 128), torch.zeros(96, 2), "1")


def test_no_grad_accepts_leaves():
    packed, _ = dense(dtype=torch.float32)
    x = torch.ones(2, 128, requires_grad=True)
    with torch.no_grad():
        assert not load("linear").linear(x, packed).requires_grad


def test_second_call_compiles_nothing():
    packed, _ = dense(64, 256)
    text = "use nf4\nkernel fresh(x: act[T, K], w: nf4[N, K]) -> y: act[T, N] { y[t, n] = 3.0 * sum(k) x[t, k] * w[n, k] }"
    x = torch.randn(3, 256, generator=seeded(8)).bfloat16()
    module, start = quern.load(text), quern.stats()
    first = module.fresh(x, packed)
    once = quern.stats()
    assert once.compilations == start.compilations + 1 and once.compile_ms > start.compile_ms
    assert torch.equal(module.fresh(x, packed), first)
    module.fresh(x[:2], packed)  # another T: the same kernel
    twice = quern.stats()
    assert twice.compilations == once.compilations and twice.memory_hits == once.memory_hits + 2


def test_same_bits_whatever_the_threads():
    packed, _ = dense(192, 256)
    x = torch.randn(50, 256, generator=seeded(9)).bfloat16()
    linear = load("linear").linear
    expected = linear(x, packed)
    try:
        for count in (1, 2, 3, 7):
            quern.set_num_threads(count)
            assert quern.num_threads() == count
            assert torch.equal(linear(x, packed), expected)
    finally:
        quern.set_num_threads(0)
    assert "libgomp" in quern.thread_library()
    with pytest.raises(quern.ArgumentError, match="'count': found -1"):
        quern.set_num_threads(-1)


def test_calls_from_many_threads():
    packed, _ = dense()
    linear = load("linear").linear
    inputs = [torch.randn(5, 128, generator=seeded(i)).bfloat16() for i in range(4)]
    expected = [linear(x, packed) for x in inputs]
    wrong = []

    def work(i):
        for _ in range(20):
            if not torch.equal(linear(inputs[i], packed), expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
