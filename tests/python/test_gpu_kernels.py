"""Kernels, routing, packing and decoding on device data, from Python: on the simulator (CPU tensors, target="sim") and on a CUDA GPU, the
same tests. References are float64 sums over the exactly decoded weights, and the CPU target. Needs neither bitsandbytes nor LLVM.

QUERN_TEST_TARGET=sim or cuda chooses one; QUERN_TEST_SMALL=1 leaves the larger shapes out."""

import functools
import os

import pytest
import torch

import quern
from quern._device import place_of

GATE = {torch.float32: 2e-4, torch.bfloat16: 4e-3, torch.float16: 6e-4}  # fp32 gate, plus one rounding of a 16-bit output
TARGETS = [t for t in ("sim", "cuda") if os.environ.get("QUERN_TEST_TARGET", t) == t]
load = functools.lru_cache(maxsize=None)(quern.load)  # a module keeps what it compiled


@functools.lru_cache(maxsize=None)
def problem(target):
    """Why a target cannot be tested here, or None."""
    if target == "cuda":
        return quern.device_problem("cuda")
    try:
        place_of(torch.device("cpu"), "sim")
    except quern.Error as error:
        return str(error).splitlines()[0]


class Place:
    """One of the targets: where tensors go, and what calls need to be told."""

    def __init__(self, target):
        self.target, self.device = target, torch.device("cuda", 0) if target == "cuda" else torch.device("cpu")
        self.said = {} if target == "cuda" else {"target": "sim"}  # CUDA tensors say it themselves
        self.native = place_of(self.device, self.said.get("target"))

    def to(self, *tensors):
        moved = [None if t is None else t.to(self.device) for t in tensors]
        return moved[0] if len(moved) == 1 else moved


@pytest.fixture(params=TARGETS)
def place(request):
    if reason := problem(request.param):
        pytest.skip(f"{request.param}: {reason}")
    return Place(request.param)


@pytest.fixture
def cuda():
    if "cuda" not in TARGETS or problem("cuda"):
        pytest.skip(f"cuda: {problem('cuda') or 'QUERN_TEST_TARGET chooses another'}")
    return Place("cuda")


def seeded(seed):
    """A generator, its seed printed (pytest shows it when the test fails)."""
    print(f"seed {seed}")
    return torch.Generator().manual_seed(seed)


def raw(shape, generator, *, blocksize=64):
    """(codes, absmax) of a stack [E, N, K] or [N, K]: all 256 bytes, scales around 0.05."""
    e, n, k = shape if len(shape) == 3 else (1, *shape)
    codes = torch.randint(0, 256, (e, n * k // 2), dtype=torch.uint8, generator=generator)
    return codes, (torch.rand(e, -(-n * k // blocksize), generator=generator) + 0.5) * 0.05


def pack(shape, codes, absmax, place=None, **options):
    """On the CPU for the CPU target, or where `place` wants it, in the gpu layout."""
    if place is not None:
        codes, absmax = place.to(codes, absmax)
        options.setdefault("layout", "gpu")
    return quern.pack(codes=codes, absmax=absmax, shape=shape, codec="nf4", **options)


def ragged(tokens, experts, top_k, generator, sentinels=True):
    """ids and weights of a skewed router: one expert without rows, some pairs that no expert takes."""
    scores = torch.rand(tokens, experts, generator=generator) ** 3
    if experts > top_k:
        scores[:, experts // 2] = -1
    ids = scores.topk(top_k).indices
    if sentinels and tokens > 2:
        ids[1, 0], ids[2, -1] = experts, -1
    return ids, torch.randn(tokens, top_k, generator=generator).softmax(-1)


def tiles(tensor, size=16):
    """L2 norm of every size x size tile of [rows, columns]."""
    padded = torch.nn.functional.pad(tensor.double(), (0, -tensor.shape[1] % size, 0, -tensor.shape[0] % size))
    return padded.view(padded.shape[0] // size, size, -1, size).square().sum((1, 3)).sqrt()


def assert_close_tiles(found, expected, gate):
    """Relative L2 error of every 16 x 16 tile within `gate`."""
    assert found.shape == expected.shape and bool(torch.isfinite(found).all())
    error = tiles(found.cpu().double() - expected.double()) / tiles(expected).clamp_min(1e-12)
    worst = divmod(int(error.argmax()), error.shape[1]) if error.numel() else None
    assert not error.numel() or float(error.max()) <= gate, f"tile {worst} has relative error {float(error.max()):.2e}, gate {gate:.1e}"


def gate_fn(kind, y):
    if kind == "gpt_oss":
        g, u = y[:, ::2].clamp(max=7.0), y[:, 1::2].clamp(-7.0, 7.0)
        return (u + 1) * g * torch.sigmoid(1.702 * g)
    g, u = y.chunk(2, -1)
    return g * torch.sigmoid(g) * u


def products(rows, route, weight, bias):
    """float64 [R, N]: rows [R, K] times each one's expert; zero beyond the live rows."""
    out = torch.zeros(route.rows, weight.shape[1], dtype=torch.float64)
    for e, (a, b) in enumerate(zip(route.offsets.tolist(), route.offsets.tolist()[1:])):
        out[a:b] = rows[a:b].double() @ weight[e].double().t() + (0 if bias is None else bias[e].double())
    return out


def exact_gate_up(kind, x, route, weight, bias):
    live = route.live_rows
    rows = torch.zeros(route.rows, x.shape[1], dtype=x.dtype)
    rows[:live] = x[route.row_token[:live]]
    h = gate_fn(kind, products(rows, route, weight, bias))
    h[live:] = 0
    return h


def exact_down(h, route, weight, bias):
    live = route.live_rows
    z = products(h, route, weight, bias)[:live] * route.row_weight[:live, None].double()
    return torch.zeros(route.tokens, weight.shape[1], dtype=torch.float64).index_add_(0, route.row_token[:live], z)


# Full tiles, edge strips in both directions, straddling blocks, one row of tiles.
SHAPES = [(4, 128, 128), (3, 72, 96), (1, 64, 64), (5, 16, 192)]
TOKENS = [1, 17] if os.environ.get("QUERN_TEST_SMALL") else [1, 17, 70]


@pytest.mark.parametrize("kind", ["gpt_oss", "qwen3", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gate_up(place, kind, dtype, tokens, shape):
    experts, n, k = shape
    generator = seeded(tokens + n)
    codes, absmax = raw(shape, generator)
    x = torch.randn(tokens, k, generator=generator).to(dtype)
    bias = torch.randn(experts, n, generator=generator).to(dtype) if kind == "gpt_oss" else None
    ids, weights = ragged(tokens, experts, min(2, experts), generator)
    weight = quern.dequantize(pack(shape, codes, absmax), dtype)
    route = quern.routing(ids, weights, num_experts=experts)
    device_route = quern.routing(*place.to(ids, weights), num_experts=experts, **place.said)
    extra = [] if bias is None else [place.to(bias)]
    found = load(kind).gate_up(place.to(x), device_route, pack(shape, codes, absmax, place), *extra, **place.said)
    assert found.dtype is dtype and found.device == place.device
    expected = exact_gate_up(kind, x, route, weight, bias)
    assert_close_tiles(found[: route.live_rows], expected[: route.live_rows], GATE[dtype])
    assert not found[route.live_rows :].any(), "rows that no pair owns are not zero"


@pytest.mark.parametrize("kind", ["gpt_oss", "qwen3", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_down(place, kind, dtype, tokens, shape):
    experts, n, k = shape
    generator = seeded(tokens + k)
    codes, absmax = raw(shape, generator)
    ids, weights = ragged(tokens, experts, min(2, experts), generator)
    route = quern.routing(ids, weights, num_experts=experts)
    h = torch.randn(route.rows, k, generator=generator).to(dtype)
    h[route.live_rows :] = float("nan")  # never read
    bias = torch.randn(experts, n, generator=generator).to(dtype) if kind == "gpt_oss" else None
    device_route = quern.routing(*place.to(ids, weights), num_experts=experts, **place.said)
    extra = [] if bias is None else [place.to(bias)]
    found = load(kind).down(place.to(h), device_route, pack(shape, codes, absmax, place), *extra, **place.said)
    assert found.dtype is torch.float32 and found.shape == (tokens, n)
    expected = exact_down(h, route, quern.dequantize(pack(shape, codes, absmax), dtype), bias)
    assert_close_tiles(found, expected, GATE[torch.float32])


@pytest.mark.parametrize("n, k, blocksize", [(64, 64, 64), (96, 160, 128), (40, 288, 4096), (128, 64, 32)])
def test_linear(place, n, k, blocksize):
    generator = seeded(k)
    codes, absmax = raw((n, k), generator, blocksize=blocksize)
    x = torch.randn(19, k, generator=generator).bfloat16()
    weight = quern.dequantize(pack((n, k), codes, absmax, blocksize=blocksize)).double()
    found = load("linear").linear(place.to(x), pack((n, k), codes, absmax, place, blocksize=blocksize), **place.said)
    assert_close_tiles(found, x.double() @ weight.t(), GATE[torch.bfloat16])


def test_lora(place):
    generator = seeded(12)
    codes, absmax = raw((64, 64), generator)
    x, a = torch.randn(19, 64, generator=generator).bfloat16(), torch.randn(8, 64, generator=generator).bfloat16()
    b, weight = torch.randn(64, 8, generator=generator).bfloat16(), quern.dequantize(pack((64, 64), codes, absmax)).double()
    found = load("linear").lora_linear(place.to(x), pack((64, 64), codes, absmax, place), *place.to(a, b), 0.5, **place.said)
    assert_close_tiles(found, x.double() @ weight.t() + 0.5 * (x.double() @ a.double().t()) @ b.double().t(), GATE[torch.bfloat16])


def test_exact_sums_bit_for_bit(place):
    """Codes 0, 7 and 15 are exactly -1, 0, 1: small integers and power-of-two scales give exact sums, in any order."""
    generator = seeded(2)
    n, k = 72, 320
    signs = torch.randint(0, 3, (n * k,), generator=generator)
    pairs = torch.tensor([0, 7, 15])[signs].view(-1, 2)
    codes, absmax = (pairs[:, 0] << 4 | pairs[:, 1]).to(torch.uint8), torch.full((n * k // 64,), 0.5)
    x = torch.randint(-8, 9, (37, k), generator=generator).bfloat16()
    text = "use nf4\nkernel mul(x: act[T, K], w: nf4[N, K]) -> y: f32[T, N] { y[t, n] = sum(k) x[t, k] * w[n, k] }"
    exact = x.float() @ ((signs.view(n, k) - 1) * 0.5).float().t()
    assert torch.equal(load(text).mul(place.to(x), pack((n, k), codes, absmax, place), **place.said).cpu(), exact)


def test_a_layer_agrees_with_the_cpu_and_with_itself(place):
    generator = seeded(9)
    experts, hidden, inner, tokens = 4, 128, 64, 40
    raws = [((experts, 2 * inner, hidden), *raw((experts, 2 * inner, hidden), generator)), ((experts, hidden, inner), *raw((experts, hidden, inner), generator))]
    x = torch.randn(tokens, hidden, generator=generator).bfloat16()
    ids, weights = ragged(tokens, experts, 2, generator)

    def layer(where, said, up, down):
        route = quern.routing(*where(ids, weights), num_experts=experts, **said)
        module = load("qwen3")
        return module.down(module.gate_up(where(x), route, up, **said), route, down, **said)

    def on_cpu(*tensors):
        return tensors if len(tensors) > 1 else tensors[0]

    expected = layer(on_cpu, {}, *(pack(*r) for r in raws))
    packed = [pack(*r, place) for r in raws]
    found = layer(place.to, place.said, *packed)
    assert_close_tiles(found, expected, 5e-3)  # h is rounded to bfloat16 on both
    assert torch.equal(found, layer(place.to, place.said, *packed)), "the same input gave other bits"


@pytest.mark.parametrize("strides", ["transposed", "columns apart", "expanded", "unaligned"])
def test_strided_activations(place, strides):
    generator = seeded(3)
    codes, absmax = raw((64, 128), generator)
    packed, x = pack((64, 128), codes, absmax, place), place.to(torch.randn(20, 128, generator=generator).bfloat16())
    view = {
        "transposed": lambda: x.t().contiguous().t(),
        "columns apart": lambda: x.repeat_interleave(2, 1)[:, ::2],
        "expanded": lambda: x[:1].expand(20, 128),
        "unaligned": lambda: torch.cat([x.new_zeros(20, 1), x], 1)[:, 1:],
    }[strides]()
    linear = load("linear").linear
    assert torch.equal(linear(view, packed, **place.said), linear(view.contiguous().clone(), packed, **place.said))


@pytest.mark.parametrize("tokens, experts, top_k", [(0, 4, 2), (1, 1, 1), (33, 8, 3), (300, 16, 4), (2100, 64, 2)])
@pytest.mark.parametrize("ids_dtype", [torch.int32, torch.int64])
def test_routing_equals_the_cpus(place, tokens, experts, top_k, ids_dtype):
    ids, weights = ragged(tokens, experts, top_k, seeded(tokens + experts))
    ids, weights = ids.to(ids_dtype), weights.bfloat16()
    expected = quern.routing(ids, weights, num_experts=experts)
    for given in (ids, ids.t().contiguous().t()):
        found = quern.routing(*place.to(given, weights), num_experts=experts, **place.said)
        assert (found.tokens, found.num_experts, found.top_k, found.device) == (tokens, experts, top_k, place.device)
        for name in ("offsets", "row_token", "row_weight", "inverse"):
            assert torch.equal(getattr(found, name).cpu().to(getattr(expected, name).dtype), getattr(expected, name)), name
        assert found.live_rows == expected.live_rows


def test_routing_from_scores_equals_the_cpus(place):
    generator = seeded(4)
    scores = torch.rand(50, 12, generator=generator)
    scores[scores < scores.topk(3).values[:, -1:]] = 0
    scores[7] = 0
    expected = quern.routing(scores=scores, top_k=3)
    found = quern.routing(scores=place.to(scores), top_k=3, **place.said)
    for name in ("offsets", "row_token", "row_weight", "inverse"):
        assert torch.equal(getattr(found, name).cpu().to(getattr(expected, name).dtype), getattr(expected, name)), name
    with pytest.raises(quern.ArgumentError, match="'top_k': is required with dense scores on a GPU"):
        quern.routing(scores=place.to(scores), **place.said)


@pytest.mark.parametrize("shape, blocksize", [((2, 64, 64), 64), ((3, 70, 130), 64), ((1, 130, 200), 128), ((2, 16, 32), 32)], ids=str)
def test_device_retiling_equals_the_hosts(place, shape, blocksize):
    codes, absmax = raw(shape, seeded(shape[1]), blocksize=blocksize)
    host = pack(shape, codes, absmax, blocksize=blocksize, layout="gpu")
    packed = pack(shape, codes, absmax, place, blocksize=blocksize, layout="bnb")
    for layout, (same_codes, same_scales) in (("gpu", (host._codes, host._scales)), ("bnb", (codes, absmax))):
        place.native.native.retile(place.native.stream, packed._handle(), {"bnb": 0, "gpu": 2}[layout])
        for e in range(shape[0]):
            assert torch.equal(packed._codes[e].cpu(), same_codes[e]) and torch.equal(packed._scales[e].cpu(), same_scales[e]), (layout, e)


@pytest.mark.parametrize("layout", ["bnb", "gpu"])
@pytest.mark.parametrize("shape", [(2, 64, 64), (3, 70, 130)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["f32", "bf16", "f16"])
def test_device_decoding_equals_the_hosts(place, layout, shape, dtype):
    codes, absmax = raw(shape, seeded(5))
    packed = pack(shape, codes, absmax, place, layout=layout)
    out = torch.full(shape, float("nan"), dtype=dtype, device=place.device)
    place.native.native.decode(place.native.stream, packed._handle(), {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}[dtype], out.data_ptr())
    assert torch.equal(out.cpu(), quern.dequantize(pack(shape, codes, absmax), dtype))


@pytest.mark.parametrize("inplace", [False, True])
def test_pack_and_unpack_on_the_device_restore_the_bytes(cuda, inplace):
    codes, absmax = raw((3, 72, 130), seeded(6))
    given = [t.clone() for t in cuda.to(codes, absmax)]
    packed = quern.pack(codes=given[0], absmax=given[1], shape=(3, 72, 130), codec="nf4", inplace=inplace)
    assert packed.layout == "gpu" and packed.device == cuda.device and "cuda" in repr(packed)
    assert torch.equal(quern.dequantize(packed).cpu(), quern.dequantize(pack((3, 72, 130), codes, absmax)))
    assert torch.equal(given[0].cpu(), codes) != inplace
    back = quern.unpack(packed)
    assert torch.equal(back.codes.view(3, -1).cpu(), codes) and torch.equal(back.absmax.view(3, -1).cpu(), absmax)
    with pytest.raises(quern.ArgumentError, match="expected 'bnb' or 'gpu'"):
        quern.pack(codes=cuda.to(codes), absmax=cuda.to(absmax), shape=(3, 72, 130), codec="nf4", layout="cpu")


def test_a_cpu_routing_serves_the_simulator():
    if reason := problem("sim"):
        pytest.skip(f"sim: {reason}")
    generator = seeded(8)
    codes, absmax = raw((3, 64, 64), generator)
    ids, weights = ragged(9, 3, 2, generator)
    x = torch.randn(9, 64, generator=generator).bfloat16()
    packed = pack((3, 64, 64), codes, absmax, layout="gpu")
    both = [quern.routing(ids, weights, num_experts=3, **said) for said in ({}, {"target": "sim"})]
    found = [load("qwen3").gate_up(x, route, packed, target="sim") for route in both]
    assert torch.equal(*found)
    with pytest.raises(quern.ArgumentError, match="'route': was made with target='sim'"):
        load("qwen3").gate_up(x, both[1], packed)


def test_a_schedule_is_taken_and_a_bad_one_refused(place):
    generator = seeded(8)
    codes, absmax = raw((64, 64), generator)
    x, packed = place.to(torch.randn(9, 64, generator=generator).bfloat16()), pack((64, 64), codes, absmax, place)
    linear = load("linear").linear
    assert torch.equal(linear(x, packed, schedule="stages=2", **place.said), linear(x, packed, **place.said))
    with pytest.raises(quern.Error, match="schedule"):
        linear(x, packed, schedule="nonsense=1", **place.said)


def test_what_is_on_the_wrong_device_is_named(place):
    generator = seeded(8)
    codes, absmax = raw((64, 64), generator)
    x = torch.randn(9, 64, generator=generator).bfloat16()
    linear = load("linear").linear
    with pytest.raises(quern.ArgumentError, match="'w': is in layout 'bnb', expected 'gpu' on this target"):
        linear(place.to(x), pack((64, 64), codes, absmax, place, layout="bnb"), **place.said)
    with pytest.raises(quern.ArgumentError, match="'target': found 'tpu'"):
        linear(x, pack((64, 64), codes, absmax), target="tpu")
    with pytest.raises(quern.ArgumentError, match="'target': 'cuda' cannot take tensors on 'cpu'"):
        linear(x, pack((64, 64), codes, absmax), target="cuda")
    with pytest.raises(quern.ArgumentError, match="'schedule': is for GPU targets"):
        linear(x, pack((64, 64), codes, absmax), schedule="stages=2")
    if place.target == "cuda":
        with pytest.raises(quern.ArgumentError, match="'w': is on 'cpu', but 'x' is on 'cuda:0'"):
            linear(place.to(x), pack((64, 64), codes, absmax))
        with pytest.raises(quern.ArgumentError, match="expected a number: reading it would wait for the device"):
            load("linear").lora_linear(place.to(x), pack((64, 64), codes, absmax, place), *place.to(x[:2], x[:, :2]), torch.tensor(1.0, device="cuda"))


def test_a_parameter_named_target_is_a_parameter():
    text = "use nf4\nkernel f(x: act[T, K], w: nf4[N, K], target: f32) -> y: f32[T, N] { y[t, n] = target * sum(k) x[t, k] * w[n, k] }"
    codes, absmax = raw((64, 64), seeded(1))
    x, packed = torch.randn(3, 64, generator=seeded(2)), pack((64, 64), codes, absmax)
    torch.testing.assert_close(load(text).f(x, packed, target=2.0), 2 * (x @ quern.dequantize(packed, torch.float32).t()), rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so():
    assert quern.device_problem("cuda") == "torch sees no CUDA device" and quern.device_problem("cpu") is None
    assert quern.device_problem("meta") == "quern runs on 'cpu' and 'cuda', not on 'meta'"


class Layer:
    """A small layer on CUDA whose calls can be put on a stream or captured."""

    def __init__(self, place):
        generator = seeded(11)
        self.raws = [((4, 128, 128), *raw((4, 128, 128), generator)), ((4, 128, 64), *raw((4, 128, 64), generator))]
        self.packed = [pack(*r, place) for r in self.raws]
        self.x, self.place = place.to(torch.randn(30, 128, generator=generator).bfloat16()), place
        self.ids, self.weights = place.to(*ragged(30, 4, 2, generator))

    def __call__(self):
        route = quern.routing(self.ids, self.weights, num_experts=4)
        module = load("qwen3")
        return module.down(module.gate_up(self.x, route, self.packed[0]), route, self.packed[1])


def test_calls_go_to_torchs_current_stream(cuda):
    layer = Layer(cuda)
    expected, x = layer(), layer.x.clone()
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        layer.x.zero_()
        torch.cuda._sleep(200_000_000)  # whatever did not wait for this stream reads zeros
        layer.x.copy_(x)
        found = layer()
    assert not stream.query(), "the call waited for the device"
    stream.synchronize()
    assert torch.equal(found, expected)


def test_a_cuda_graph_replays_with_new_inputs(cuda):
    layer = Layer(cuda)
    layer()  # compiles and uploads tables
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = layer()
    for seed in (1, 2):
        generator = seeded(seed)
        layer.x.copy_(torch.randn(30, 128, generator=generator).bfloat16())
        layer.ids.copy_(ragged(30, 4, 2, generator)[0])
        out.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, layer())


def test_two_streams_at_once_give_the_same_bits(cuda):
    layer = Layer(cuda)
    expected = layer()
    torch.cuda.synchronize()
    streams, found = [torch.cuda.Stream() for _ in range(2)], []
    for _ in range(10):
        for stream in streams:
            with torch.cuda.stream(stream):
                found.append(layer())
    torch.cuda.synchronize()
    assert all(torch.equal(f, expected) for f in found)
