"""What the GPU benchmark measures: expert shapes of published models, routings, and the data of one case."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from peers import gate, nf4

PROJECTIONS = ("gate_up", "down", "layer")


@dataclass(frozen=True)
class Shape:
    """One model's expert layer. kind: the .qn file; gate_up is [2 * intermediate, hidden], down [hidden, intermediate]."""

    name: str
    kind: str
    experts: int
    top_k: int
    hidden: int
    intermediate: int
    bias: bool = False

    def matrix(self, projection):
        """(N, K) of a projection."""
        return (2 * self.intermediate, self.hidden) if projection == "gate_up" else (self.hidden, self.intermediate)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("gpt-oss-20b", "gpt_oss", 32, 4, 2880, 2880, bias=True),
        Shape("gpt-oss-120b", "gpt_oss", 128, 4, 2880, 2880, bias=True),
        Shape("qwen3-30b-a3b", "qwen3", 128, 8, 2048, 768),
        Shape("mixtral-8x7b", "mixtral", 8, 2, 4096, 14336),
        Shape("tiny", "gpt_oss", 4, 2, 128, 64, bias=True),  # for tests; only when named
    )
}
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384)


def route(tokens, experts, top_k, skew, seed):
    """(ids int64 [T, k], weights float32 [T, k]) of a random router, on the CPU.

    zipf: the expert of rank r is drawn with probability 1 / r (Gumbel top-k, without replacement); ranks are shuffled over the experts.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(tokens, experts, generator=generator).clamp(1e-9, 1 - 1e-7).log().neg().log().neg()
    if skew == "zipf":
        ranks = torch.randperm(experts, generator=generator)
        scores -= torch.log(torch.arange(1, experts + 1).float())[ranks]
    ids = scores.topk(top_k).indices
    return ids, torch.randn(tokens, top_k, generator=generator).softmax(-1)


@dataclass
class Case:
    """One row group of the table: a projection (or a whole layer) of a model at a token count.

    Rows are (token, choice) pairs sorted by expert, stably: row_token, row_expert int64 [R], row_weight float32 [R], offsets int32 [E + 1].
    x bfloat16 [T, hidden] feeds gate_up and layer, h bfloat16 [R, intermediate] feeds down.
    """

    shape: Shape
    projection: str
    tokens: int
    skew: str
    seed: int
    device: torch.device
    stacks: dict
    x: torch.Tensor = None
    h: torch.Tensor = None
    counts: list = field(default_factory=list)  # rows of each expert, on the host: for reports only

    def __post_init__(self):
        shape, device = self.shape, self.device
        ids, weights = route(self.tokens, shape.experts, shape.top_k, self.skew, self.seed)
        order = ids.flatten().argsort(stable=True)
        count = ids.flatten().bincount(minlength=shape.experts)
        self.counts, self.rows = count.tolist(), ids.numel()
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)]).int().to(device)
        self.ends = self.offsets[1:].clone()  # aligned, as a tensor of its own
        self.row_token, self.row_expert = (order // shape.top_k).to(device), ids.flatten()[order].to(device)
        self.row_weight = weights.flatten()[order].to(device)
        self.ids, self.weights = ids.to(device), weights.to(device)
        generator = torch.Generator(device).manual_seed(self.seed + 1)
        if self.projection == "down":
            self.h = torch.randn(self.rows, shape.intermediate, device=device, generator=generator).bfloat16()
        else:
            self.x = torch.randn(self.tokens, shape.hidden, device=device, generator=generator).bfloat16()

    @property
    def label(self):
        """What --only matches, e.g. gpt-oss-20b/gate_up/T4096/uniform."""
        return label(self.shape, self.projection, self.tokens, self.skew)

    @property
    def live_experts(self):
        return sum(c > 0 for c in self.counts)

    def used_stacks(self):
        return [self.stacks[p] for p in (("gate_up", "down") if self.projection == "layer" else (self.projection,))]

    @cached_property
    def _sorted(self):
        return self.h if self.projection == "down" else self.x[self.row_token]

    def sorted_rows(self):
        """Activations [R, K] in routing order: given to the peers that cannot gather."""
        return self._sorted

    @property
    def flops(self):
        return sum(2 * self.rows * s.n * s.k for s in self.used_stacks())

    def least_bytes(self):
        """What must move at least: packed weights of experts with rows, activations in, results out."""
        weights = self.live_experts * sum(s.packed_bytes for s in self.used_stacks())
        hidden, inner = self.shape.hidden, self.shape.intermediate
        moved = {"gate_up": self.tokens * hidden * 2 + self.rows * inner * 2, "down": self.rows * inner * 2 + self.tokens * hidden * 4}
        moved["layer"] = self.tokens * hidden * 6 + self.rows * inner * 4
        return weights + moved[self.projection]

    def product(self, stack, rows):
        """float32 [R, N] of rows [R, K]: the exactly decoded weights, expert by expert, in float32."""
        out = torch.empty(rows.shape[0], stack.n, dtype=torch.float32, device=self.device)
        end = 0
        for e, count in enumerate(self.counts):
            begin, end = end, end + count
            if count:
                torch.matmul(rows[begin:end].float(), stack.dense()[e].float().t(), out=out[begin:end])
        return out

    def expected(self, fused):
        """The float32 result to compare with: what a fused kernel gives, or the plain product [R, N]. In a layer h is rounded to bfloat16."""
        if self.projection == "layer":
            up = self.stacks["gate_up"]
            h = gate(self._biased(up, self.product(up, self.sorted_rows())), self.shape.kind).bfloat16()
            return self._combined(self.product(self.stacks["down"], h))
        stack = self.stacks[self.projection]
        y = self.product(stack, self.sorted_rows())
        if not fused:
            return y
        return gate(self._biased(stack, y), self.shape.kind) if self.projection == "gate_up" else self._combined(y)

    def _biased(self, stack, y):
        return y if stack.bias is None else y + stack.bias[self.row_expert].float()

    def _combined(self, z):
        z = self._biased(self.stacks["down"], z) * self.row_weight[:, None]
        return torch.zeros(self.tokens, z.shape[1], device=self.device).index_add_(0, self.row_token, z)


def label(shape, projection, tokens, skew):
    return f"{shape.name}/{projection}/T{tokens}/{skew}"


def make_stacks(shape, projections, device, seed):
    """Random packed weights for the projections that are asked for."""
    wanted = ("gate_up", "down") if "layer" in projections else projections
    generator = torch.Generator(device).manual_seed(seed)
    return {p: nf4.random_stack(shape.experts, *shape.matrix(p), bias=shape.bias, device=device, generator=generator) for p in wanted}


def tile_error(found, expected, tile=16):
    """Largest relative L2 error of any tile x tile block of two [rows, columns] tensors; inf when a value is not finite or shapes differ."""
    if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
        return float("inf")
    worst = 0.0
    for a, b in zip(found.split(4096), expected.split(4096)):
        pad = (0, -a.shape[1] % tile, 0, -a.shape[0] % tile)
        a, b = (torch.nn.functional.pad(t.float(), pad) for t in (a, b))
        norm = lambda t: t.view(t.shape[0] // tile, tile, -1, tile).square().sum((1, 3)).sqrt()  # noqa: E731
        worst = max(worst, float((norm(a - b) / norm(b).clamp_min(1e-20)).max())) if a.numel() else worst
    return worst
