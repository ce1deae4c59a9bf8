"""An expert layer held by bitsandbytes, the loop over its experts, and how times, memory and errors are taken: for demo and benchmarks."""

import ctypes
import gc
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from . import checkpoint

TOP_K = {"gpt_oss": 4, "qwen3": 8, "mixtral": 2}


@dataclass
class Layer:
    """Experts as bitsandbytes Linear4bit. gate_up: per expert, the modules whose outputs are joined (one for gpt_oss)."""

    kind: str
    gate_up: list
    down: list
    hidden: int
    intermediate: int

    @property
    def num_experts(self):
        return len(self.down)

    @property
    def modules(self):
        return [m for group in self.gate_up for m in group] + self.down

    @property
    def weight_bytes(self):
        """What bitsandbytes holds: codes, absmax, and its second level."""
        total = 0
        for module in self.modules:
            state = module.weight.quant_state
            tensors = [module.weight.data, state.absmax] + ([state.state2.absmax, state.state2.code] if state.nested else [])
            total += sum(t.numel() * t.element_size() for t in tensors)
        return total

    def bias(self, projection):
        """Biases [E, N] of 'gate_up' or 'down', or None."""
        groups = self.gate_up if projection == "gate_up" else [[m] for m in self.down]
        if groups[0][0].bias is None:
            return None
        return torch.stack([torch.cat([m.bias.detach() for m in group]) for group in groups])

    def gate(self, y):
        """The activation between the projections, in y's dtype, as transformers computes it."""
        if self.kind == "gpt_oss":
            gate, up = y[..., ::2].clamp(max=7.0), y[..., 1::2].clamp(-7.0, 7.0)
            return (up + 1) * (gate * torch.sigmoid(gate * 1.702))
        gate, up = y.chunk(2, dim=-1)
        return F.silu(gate) * up


def prevent_repack(module):
    """Keeps bitsandbytes' eval-mode forward from rewriting the weight and rounding its scales."""
    module.support_avx512bf16_for_cpu = False
    return module


def linear4bit(params, bias, dtype=torch.bfloat16):
    """A Linear4bit in train mode around a quantized Params4bit."""
    from bitsandbytes.nn import Linear4bit

    n, k = params.quant_state.shape
    with torch.device("meta"):
        module = Linear4bit(k, n, bias=bias is not None, compute_dtype=dtype, quant_type=params.quant_type)
    module.weight, module.quant_state = params, params.quant_state
    params.module = module
    if bias is not None:
        module.bias = torch.nn.Parameter(bias, requires_grad=False)
    return prevent_repack(module.train())


def random_layer(experts, hidden, intermediate, *, seed=0, blocksize=64, nested=True, progress=None):
    """A gpt-oss layer with normal weights (std 0.02), quantized by bitsandbytes, one matrix in memory at a time.

    progress: called with (experts done, experts).
    """
    from bitsandbytes.nn import Params4bit

    generator = torch.Generator().manual_seed(seed)

    def matrix(n, k):
        weight = (torch.randn(n, k, generator=generator) * 0.02).bfloat16()
        params = Params4bit(weight, quant_type="nf4", blocksize=blocksize, compress_statistics=nested).to("cpu")
        return linear4bit(params, (torch.randn(n, generator=generator) * 0.01).bfloat16())

    layer = Layer("gpt_oss", [], [], hidden, intermediate)
    for e in range(experts):
        layer.gate_up.append([matrix(2 * intermediate, hidden)])
        layer.down.append(matrix(hidden, intermediate))
        if progress:
            progress(e + 1, experts)
    return layer


def checkpoint_layer(path, index):
    """The experts of one layer of a checkpoint, as modules."""
    weights = checkpoint.read_experts(path, index)

    def modules(groups, bias):
        out = []
        for e, group in enumerate(groups):
            sizes = [p.quant_state.shape[0] for p in group]
            biases = [None] * len(group) if bias is None else bias[e].split(sizes)
            out.append([linear4bit(p, b) for p, b in zip(group, biases)])
        return out

    gate_up = modules(weights.gate_up, weights.gate_up_bias)
    down = [group[0] for group in modules([[p] for p in weights.down], weights.down_bias)]
    hidden, intermediate = down[0].weight.quant_state.shape
    return Layer(weights.kind, gate_up, down, hidden, intermediate)


def loop(layer, x, ids, weights, project=None):
    """The per-expert loop: each chosen expert's weights are decoded and multiplied (F.linear). Returns float32 [T, H].

    project(module, rows) defaults to the module's own forward: in train mode, dequantize_4bit and F.linear in x's dtype.
    """
    project = project or (lambda module, rows: module(rows))
    out = torch.zeros(x.shape, dtype=torch.float32)
    for e in range(layer.num_experts):
        token, choice = torch.where(ids == e)
        if not token.numel():
            continue
        rows = x[token]
        parts = [project(m, rows) for m in layer.gate_up[e]]
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        y = project(layer.down[e], layer.gate(y))
        out.index_add_(0, token, y.float() * weights[token, choice, None].float())
    return out


def dequantized(module, dtype):
    """The module's weight, decoded by bitsandbytes: called with shape [1, numel], where its CPU path is right for every K."""
    import bitsandbytes.functional as BF

    state = module.weight.quant_state
    shape, state.shape = state.shape, torch.Size([1, state.shape.numel()])
    try:
        return BF.dequantize_4bit(module.weight.data, state).view(shape).to(dtype)
    finally:
        state.shape = shape


def exact_project(module, rows):
    """Projection for a float32 reference: exact decoded weights, float32 products and sums."""
    bias = None if module.bias is None else module.bias.float()
    return F.linear(rows.float(), dequantized(module, torch.float32), bias)


def router(tokens, experts, top_k, *, seed=0, skew="uniform"):
    """(ids int64 [T, k], weights float32 [T, k]) of a random router; 'zipf': expert of rank r is chosen with weight 1/r."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(tokens, experts, generator=generator)
    if skew == "zipf":  # Gumbel top-k draws without replacement from p ~ 1 / rank
        gumbel = -torch.log(-torch.log(torch.rand(tokens, experts, generator=generator).clamp(1e-9, 1 - 1e-7)))
        scores = gumbel - torch.log(torch.arange(1, experts + 1).float())[torch.randperm(experts, generator=generator)]
    top, ids = scores.topk(top_k)
    return ids, top.softmax(-1)


def tile_error(found, expected, tile=16):
    """Largest relative L2 error of any tile x tile block of two [T, N] tensors; inf when a value is not finite."""
    found, expected = found.double(), expected.double()
    if not bool(torch.isfinite(found).all()):
        return float("inf")

    def blocks(t):
        t = F.pad(t, (0, -t.shape[1] % tile, 0, -t.shape[0] % tile))
        return t.view(t.shape[0] // tile, tile, -1, tile).square().sum((1, 3)).sqrt()

    return float((blocks(found - expected) / blocks(expected).clamp_min(1e-30)).max())


def peak_extra(call):
    """Bytes by which the process's resident memory rose above its level before `call()`, at its highest; None where Linux forbids it.

    Memory that the allocator still held is given back first, so that the call cannot hide in it.
    """
    call()
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # VmHWM := VmRSS
    except (OSError, AttributeError):
        return None

    def status(field):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))

    before = status("VmRSS")
    result = call()
    peak = status("VmHWM")
    del result
    return max(0, peak - before)


def interleaved(calls, rounds, before=None, budget=None):
    """Seconds of each call, taken in turn `rounds` times: {name: sorted list}. `before()` runs untimed before each call.

    budget: seconds after which no further round starts, once there are three.
    """
    times = {name: [] for name in calls}
    begin = time.perf_counter()
    for done in range(rounds):
        if budget is not None and done >= 3 and time.perf_counter() - begin > budget:
            break
        for name, call in calls.items():
            if before:
                before()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: sorted(values) for name, values in times.items()}


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
