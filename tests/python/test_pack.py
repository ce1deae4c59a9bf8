"""quern.pack and quern.unpack: exact round trips, in place and copied; every bad source gets one error and nothing changes."""

import copy
import re

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from helpers import assert_same_values, dequantize, linear4bit, params4bit, seeded

import quern


def modules(experts=3, n=96, k=128, seed=0, **options):
    generator = seeded(seed)
    return [linear4bit(n, k, generator, **options) for _ in range(experts)]


def snapshot(source):
    """Everything that quern could damage, as copies."""
    return [copy.deepcopy((m.weight.data, m.weight.quant_state)) for m in source]


def same_bytes(a, b):
    """Weights stored as bfloat16 may hold NaN patterns, so values do not compare."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def assert_state(found, expected):
    assert type(found) is type(expected)
    assert torch.equal(found.absmax, expected.absmax) and found.absmax.dtype == expected.absmax.dtype
    assert found.shape == expected.shape and found.blocksize == expected.blocksize and found.quant_type == expected.quant_type
    assert found.dtype == expected.dtype and found.nested == expected.nested and torch.equal(found.code, expected.code)
    if expected.nested:
        assert torch.equal(found.offset, expected.offset) and found.offset.dtype == expected.offset.dtype
        assert_state_inner(found.state2, expected.state2)


def assert_state_inner(found, expected):
    assert torch.equal(found.absmax, expected.absmax) and torch.equal(found.code, expected.code)
    assert found.blocksize == expected.blocksize and found.dtype == expected.dtype


def assert_pairs(pairs, expected):
    assert len(pairs) == len(expected)
    for (codes, state), (codes0, state0) in zip(pairs, expected):
        assert same_bytes(codes, codes0)
        assert_state(state, state0)


@pytest.mark.parametrize("layout", ["cpu", "gpu", "bnb"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16, torch.float32])
def test_round_trip(layout, nested, quant_type, storage):
    source = modules(nested=nested, quant_type=quant_type, storage=storage)
    before = snapshot(source)
    packed = quern.pack(source, layout=layout)
    assert packed.shape == (3, 96, 128) and packed.layout == layout and packed.blocksize == 64 and packed.codec.name == quant_type
    assert_pairs(quern.unpack(packed), before)
    assert_pairs(snapshot(source), before)  # the source is untouched
    assert_pairs(quern.unpack(packed), before)  # and unpack left `packed` as it was


@pytest.mark.parametrize("layout", ["cpu", "gpu"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16])
def test_in_place(layout, nested, storage):
    source = modules(nested=nested, storage=storage, bias=True)
    before, states = snapshot(source), [m.weight.quant_state for m in source]
    saved = [{k: v.clone() for k, v in m.state_dict().items()} for m in source]
    x = torch.randn(2, 128).bfloat16()
    y = source[0](x)
    pointers = [m.weight.data_ptr() for m in source]
    expected = torch.stack([dequantize(codes, state) for codes, state in before])

    packed = quern.pack(source, inplace=True, layout=layout)
    assert packed.inplace and [t.data_ptr() for t in packed._codes] == pointers
    assert_same_values(packed.dequantize(), expected)
    raw = packed._codes[0].clone()
    assert not torch.equal(raw, before[0][0].reshape(-1).view(torch.uint8)), "re-tiling must have moved bytes"
    for m, old in zip(source, saved):  # what is saved is bitsandbytes' own
        new = m.state_dict()
        assert new.keys() == old.keys() and all(same_bytes(new[k], old[k]) for k in old)

    assert quern.unpack(packed) == source
    assert_pairs([(m.weight.data, m.weight.quant_state) for m in source], before)
    assert [m.weight.quant_state for m in source] == states and all(type(m.weight) is Params4bit for m in source)
    assert all(m.quant_state is m.weight.quant_state for m in source)
    assert torch.equal(source[0](x), y)
    with pytest.raises(quern.ArgumentError, match="was unpacked"):
        packed.dequantize()


@pytest.mark.parametrize(
    "use",
    [
        lambda m, x: m(x),
        lambda m, x: m.eval()(x),
        lambda m, x: m.forward(x),
        lambda m, x: m.weight.data,
        lambda m, x: m.weight + 1,
        lambda m, x: m.weight.clone(),
        lambda m, x: m.weight.to("meta"),
        lambda m, x: copy.deepcopy(m),
        lambda m, x: copy.copy(m.weight),
        lambda m, x: m.weight.quant_state.absmax,
        lambda m, x: m.weight.numpy(),
        lambda m, x: m.weight.copy_(torch.zeros(1)),
    ],
)
def test_held_weights_refuse(use):
    source = modules()
    packed = quern.pack(source, inplace=True)
    codes = packed._codes[0].clone()
    with pytest.raises(quern.PackedInPlaceError, match=re.escape("call quern.unpack(packed) first")):
        use(source[0], torch.randn(2, 128).bfloat16())
    assert torch.equal(packed._codes[0], codes)
    quern.unpack(packed)


def test_held_weights_stay_where_they_are():
    source = modules()
    packed = quern.pack(source, inplace=True)
    model = torch.nn.ModuleList(source).to("cpu").to(torch.bfloat16).train(False)
    assert model[0].weight.shape == (96 * 128 // 2, 1) and "packed in place" in repr(model[0].weight)
    assert sum(p.numel() for p in model.parameters()) == 3 * 96 * 64
    quern.unpack(packed)


def test_load_state_dict_into_held_changes_nothing():
    source = modules()
    saved = {k: v.clone() for k, v in source[0].state_dict().items() if k == "weight"}
    packed = quern.pack(source, inplace=True)
    codes = packed._codes[0].clone()
    with pytest.raises((RuntimeError, quern.PackedInPlaceError)):
        source[0].load_state_dict(saved)
    assert torch.equal(packed._codes[0], codes)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("nested", [True, False])
def test_stacked_params(inplace, nested):
    generator = seeded(1)
    params = params4bit(torch.randn(4, 64, 96, generator=generator).bfloat16(), nested=nested)
    codes, state = copy.deepcopy((params.data, params.quant_state))
    packed = quern.pack(params, inplace=inplace)
    assert packed.shape == (4, 64, 96)
    assert_same_values(packed.dequantize(), dequantize(codes, state))
    owner = torch.nn.Module()
    owner.stack = params
    assert torch.equal(owner.state_dict()["stack"], codes)
    if inplace:
        assert quern.unpack(packed) is params
        assert torch.equal(params.data, codes)
        assert_state(params.quant_state, state)
    else:
        assert_pairs([quern.unpack(packed)], [(codes, state)])


def test_one_module_is_dense():
    (module,) = modules(1)
    packed = quern.pack(module)
    assert packed.shape == (96, 128) and packed.num_experts == 1
    assert_pairs([quern.unpack(packed)], snapshot([module]))


@pytest.mark.parametrize("nested", [True, False])
def test_joined(nested):
    gate, up = modules(3, n=32, nested=nested, seed=1), modules(3, n=64, nested=nested, seed=2)
    packed = quern.pack([[g, u] for g, u in zip(gate, up)])
    assert packed.shape == (3, 96, 128)
    expected = [torch.cat([dequantize(*p) for p in pair]) for pair in zip(snapshot(gate), snapshot(up))]
    assert_same_values(packed.dequantize(), torch.stack(expected))
    groups = quern.unpack(packed)
    assert_pairs([g[0] for g in groups], snapshot(gate))
    assert_pairs([g[1] for g in groups], snapshot(up))
    with pytest.raises(quern.ArgumentError, match="joined along N"):
        quern.pack([[g, u] for g, u in zip(gate, up)], inplace=True)


@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_experts_that_end_inside_a_block(experts, nested, inplace):
    """Each expert was quantized by itself, so its last block is short."""
    source = modules(experts, n=33, k=66, nested=nested)
    before = snapshot(source)
    packed = quern.pack(source, inplace=inplace)
    assert_same_values(packed.dequantize(), torch.stack([dequantize(*pair) for pair in before]))
    quern.unpack(packed) if inplace else assert_pairs(quern.unpack(packed), before)
    assert_pairs(snapshot(source), before)
    with pytest.raises(quern.ArgumentError, match=r"has N \* K = 2178, not a multiple of its blocksize 64"):
        quern.pack([[m, m] for m in source])


def test_nested_codes_that_absmax_cannot_tell_apart():
    """Where absmax2 is 0 every q expands to the offset: the true bytes are kept beside."""
    source = modules(2)
    for module in source:
        state = module.weight.quant_state
        state.absmax.copy_(torch.randint(0, 256, state.absmax.shape, dtype=torch.uint8))
        state.state2.absmax.zero_()
    before = snapshot(source)
    packed = quern.pack(source)
    assert_pairs(quern.unpack(packed), before)
    assert packed._origin.nbytes <= sum(s.absmax.numel() + 4 * (256 + s.state2.absmax.numel()) for _, s in before)


def test_size_against_bitsandbytes():
    """At most 1.10 times bitsandbytes' bytes for gpt-oss' down projection with nested absmax."""
    generator = seeded(2)
    params = params4bit(torch.randn(2880, 2880, generator=generator).bfloat16())
    state = params.quant_state
    theirs = params.numel() + state.absmax.numel() + 4 * (state.state2.absmax.numel() + state.state2.code.numel() + state.code.numel())
    packed = quern.pack(params)
    assert packed.nbytes <= 1.10 * theirs, (packed.nbytes, theirs)


def test_raw_tensors_round_trip():
    generator = seeded(3)
    codes = torch.randint(0, 256, (2, 32, 64), dtype=torch.uint8, generator=generator)
    absmax = torch.rand(2, 32 * 128 // 64, generator=generator)
    packed = quern.pack(codes=codes, absmax=absmax, shape=(2, 32, 128), codec="nf4")
    assert packed.dtype is torch.bfloat16 and packed.blocksize == 64
    raw = quern.unpack(packed)
    assert torch.equal(raw.codes, codes.view(2, -1)) and torch.equal(raw.absmax, absmax) and raw.zeros is None
    as_lists = quern.pack(codes=list(codes), absmax=list(absmax), shape=(2, 32, 128), codec="nf4")
    assert torch.equal(as_lists.dequantize(), packed.dequantize())

    held, scales = codes.clone(), absmax.clone()
    packed = quern.pack(codes=held, absmax=scales, shape=(2, 32, 128), codec="nf4", inplace=True)
    assert not torch.equal(held, codes)
    back = quern.unpack(packed)
    assert back.codes is held and torch.equal(held, codes) and torch.equal(scales, absmax)


def test_packed_shows_itself():
    packed = quern.pack(modules(2))
    assert repr(packed) == "quern.Packed(nf4[2, 96, 128], blocksize=64, dtype=bf16, layout='cpu', 0.0 MB)"
    assert packed.to("gpu") is packed and packed.layout == "gpu"
    with pytest.raises(quern.ArgumentError, match="found 'tpu', expected 'bnb', 'cpu' or 'gpu'"):
        packed.to("tpu")
    assert packed.layout == "gpu"


def repack_for_cpu(module):
    """What bitsandbytes' eval-mode forward does on an AVX512-BF16 CPU."""
    import bitsandbytes.functional as BF

    module.weight.data, module.weight.quant_state = BF._convert_weight_packed_for_cpu(module.weight.data, module.weight.quant_state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_repacked_weights_are_refused_or_undone(dtype):
    source = modules(2, nested=False, dtype=dtype)
    before = snapshot(source)
    repack_for_cpu(source[1])
    state = source[1].weight.quant_state
    with pytest.raises(quern.ArgumentError, match=r"(?s)'source\[1\]': has lost its exact scales.*support_avx512bf16_for_cpu = False"):
        quern.pack(source)
    # With exact scales at hand the bytes are undone exactly.
    state.absmax = before[1][1].absmax.view(96, 2).t().contiguous()
    packed = quern.pack(source)
    assert_same_values(packed.dequantize(), torch.stack([dequantize(*p) for p in before]))
    codes, restored = quern.unpack(packed)[1]
    assert torch.equal(codes.view(-1), before[1][0].view(-1))
    assert_state(restored, before[1][1])
    with pytest.raises(quern.ArgumentError, match="repacked for bitsandbytes' CPU path"):
        quern.pack(source, inplace=True)


@pytest.mark.parametrize("nested", [False, True])
def test_weights_saved_after_a_repack_are_refused(nested):
    """state_dict() undoes the repack of the bytes, not of the scales."""
    source = modules(1, nested=nested)
    repack_for_cpu(source[0])
    source[0].state_dict()
    with pytest.raises(quern.ArgumentError, match="has lost its exact scales"):
        quern.pack(source)


def spoil(source, i, change):
    change(source[i].weight, source[i].weight.quant_state, source[i])
    return source


BAD = {
    "not a module": (lambda s: [*s[:2], "x"], r"'source\[2\]': found str, expected bitsandbytes Linear4bit or Params4bit"),
    "a plain linear": (lambda s: [s[0], torch.nn.Linear(4, 4)], r"'source\[1\]': is not a bitsandbytes 4-bit weight: Linear with a torch.float32 weight"),
    "empty": (lambda s: [], "'source': is an empty list"),
    "unquantized": (lambda s: [s[0], Linear4bit(128, 96)], r"'source\[1\]': is not quantized yet \(quant_state is None\)"),
    "unfrozen": (
        lambda s: [s[0], linear4bit(96, 128, seeded(0), storage=torch.float32).requires_grad_(True)],
        r"'source\[1\]': requires grad, expected a frozen weight",
    ),
    "N differs": (lambda s: [s[0], *modules(1, n=64)], r"'source\[1\]': has N = \[64\], but source\[0\] has \[96\]"),
    "K differs": (lambda s: [s[0], *modules(1, k=64)], r"'source\[1\]': has K = 64, but source\[0\] has 128"),
    "blocksize differs": (lambda s: [s[0], *modules(1, blocksize=128)], r"'source\[1\]': has blocksize = 128, but source\[0\] has 64"),
    "quant_type differs": (lambda s: [s[0], *modules(1, quant_type="fp4")], r"'source\[1\]': has quant_type = fp4, but source\[0\] has nf4"),
    "dtype differs": (lambda s: [s[0], *modules(1, dtype=torch.float16)], r"'source\[1\]': has dtype = torch.float16"),
    "odd K": (lambda s: modules(2, n=64, k=33), r"'source\[0\]': has odd K = 33"),
    "bytes do not fit": (
        lambda s: spoil(s, 1, lambda w, q, m: setattr(w, "data", w.data[:-3])),
        r"'source\[1\]': has 6141 bytes of codes, but its shape \(96, 128\) needs 6144",
    ),
    "absmax does not fit": (
        lambda s: spoil(s, 1, lambda w, q, m: setattr(q, "absmax", q.absmax[:-1])),
        r"'source\[1\]': has 191 absmax, but shape \(96, 128\) with blocksize 64 needs 192",
    ),
    "bad blocksize": (lambda s: spoil(s, 0, lambda w, q, m: setattr(q, "blocksize", 48)), r"'source\[0\]': has blocksize 48"),
    "other table": (lambda s: spoil(s, 1, lambda w, q, m: q.code.mul_(2)), r"'source\[1\]': has a code table that differs from codec 'nf4'"),
    "meta": (lambda s: [s[0], Linear4bit(128, 96, device="meta")], r"'source\[1\]': is not quantized yet"),
    "quantized on meta": (
        lambda s: spoil(s, 1, lambda w, q, m: setattr(m, "weight", Params4bit(w.data.to("meta"), quant_state=q, bnb_quantized=True))),
        r"'source\[1\]': is on 'meta', expected 'cpu'",
    ),
    "a stack in a list": (
        lambda s: [params4bit(torch.randn(2, 64, 64))],
        r"'source\[0\]': has quant_state.shape \(2, 64, 64\), expected \[N, K\]$",
    ),
    "a stack whose blocks cross": (
        lambda s: params4bit(torch.randn(2, 33, 66)),
        r"'source': has blocks of 64 that cross an expert's end \(N \* K = 2178\)",
    ),
    "bf16 absmax": (
        lambda s: spoil(s, 1, lambda w, q, m: setattr(q, "absmax", q.absmax.bfloat16())),
        r"(?s)'source\[1\]': has lost its exact scales",
    ),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_bad_sources(case, inplace):
    make, message = BAD[case]
    good = modules(3)
    source = make(good)
    untouched = [m for m in good if m.weight.device.type == "cpu"]
    before = snapshot(untouched)
    with pytest.raises(quern.ArgumentError, match=message):
        quern.pack(source, inplace=inplace)
    for m, (codes, state) in zip(untouched, before):
        assert torch.equal(m.weight.data, codes) and type(m.weight) is Params4bit and torch.equal(m.weight.quant_state.absmax, state.absmax)


def test_in_place_needs_its_own_memory():
    module = modules(1)[0]
    with pytest.raises(quern.ArgumentError, match=r"shares memory with source\[0\]: only inplace=False can pack it"):
        quern.pack([module, module], inplace=True)
    assert quern.pack([module, module]).num_experts == 2
    plain = modules(1)[0]
    plain._parameters["weight"] = torch.nn.Parameter(plain.weight.data, requires_grad=False)  # as FSDP leaves it
    assert quern.pack([plain]).num_experts == 1
    with pytest.raises(quern.ArgumentError, match="plain Parameter"):
        quern.pack([plain], inplace=True)


def test_already_held():
    source = modules(2)
    packed = quern.pack(source, inplace=True)
    with pytest.raises(quern.ArgumentError, match=r"'source\[0\]': is already packed in place"):
        quern.pack(source)
    quern.unpack(packed)
    assert quern.pack(source).num_experts == 2


RAW = dict(codes=torch.zeros(2 * 32 * 32, dtype=torch.uint8), absmax=torch.ones(64), shape=(2, 32, 64), blocksize=64, codec="nf4")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(codes=torch.zeros(2047, dtype=torch.uint8)), r"'codes': holds 2047 elements, but the shape needs 2048 \(2 experts of 1024\)"),
        (dict(codes=torch.zeros(2048)), r"'codes': found torch.float32, expected torch.uint8"),
        (dict(codes=torch.zeros(2048, dtype=torch.uint8, device="meta")), r"'codes': is on 'meta', expected 'cpu'"),
        (dict(codes=b"xx"), r"'codes': found bytes, expected a tensor"),
        (dict(absmax=torch.ones(63)), r"'absmax': holds 63 elements, but the shape needs 64"),
        (dict(absmax=torch.ones(64, dtype=torch.float16)), r"'absmax': found torch.float16, expected torch.float32"),
        (dict(absmax=None), r"'absmax': is required with codes"),
        (dict(shape=(2, 32, 63)), r"'shape': has odd K = 63"),
        (dict(shape=(64,)), r"'shape': found \(64,\), expected \[N, K\] or \[E, N, K\]"),
        (dict(shape=(2, 0, 64)), r"'shape': found \(2, 0, 64\)"),
        (dict(blocksize=48), r"'blocksize': found 48, expected a power of two in 32..4096"),
        (dict(blocksize=4096), r"'absmax': holds 64 elements, but the shape needs 2 \(2 experts of 1\)"),
        (dict(codec="nf5"), r"codec 'nf5': there is no shipped codec of this name"),
        (dict(codec=None), r"'codec': is required with codes"),
        (dict(dtype=torch.float64), r"'dtype': found torch.float64"),
        (dict(zeros=torch.zeros(64, dtype=torch.uint8)), r"'zeros': codec 'nf4' has no zeros"),
        (dict(layout="amx"), r"'layout': found 'amx'"),
        (dict(source=[]), r"'source': give either source"),
    ],
)
def test_bad_raw_tensors(change, message):
    with pytest.raises(quern.ArgumentError, match=message):
        quern.pack(**{**RAW, **change})


def test_raw_options_do_not_mix_with_bitsandbytes():
    with pytest.raises(quern.ArgumentTypeError, match="'blocksize': belongs to raw tensors"):
        quern.pack(modules(1), blocksize=64)
    with pytest.raises(TypeError):
        quern.unpack("x")
    with pytest.raises(quern.ArgumentError, match="found str, expected quern.Packed"):
        quern.dequantize("x")
