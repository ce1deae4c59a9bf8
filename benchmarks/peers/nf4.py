"""NF4 stacks for the benchmark: random packed weights, and their decoding in plain PyTorch (bitsandbytes' rule: one fp32 product,
one rounding)."""

from dataclasses import dataclass, field

import torch

BLOCK = 64  # elements of one scale

# bitsandbytes' codebook; tests/python/test_gpu_benchmark.py compares it with the one that Quern ships.
TABLE = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


@dataclass
class Stack:
    """E experts' weights [E, N, K] in bitsandbytes' order.

    codes: uint8 [E, N * K / 2], element 2j in the high nibble of byte j. absmax: float32 [E, N * K / 64]. bias: bfloat16 [E, N] or
    None. dense: the decoded bfloat16 [E, N, K], present while a peer needs it.
    """

    codes: torch.Tensor
    absmax: torch.Tensor
    bias: torch.Tensor | None
    experts: int
    n: int
    k: int
    table: torch.Tensor = None
    kept: dict = field(default_factory=dict)  # what peers keep between cases, by peer name

    @property
    def packed_bytes(self):
        """Bytes of one expert's codes and scales."""
        return self.n * self.k // 2 + self.n * self.k // BLOCK * 4

    def dequantize_expert(self, e):
        """bfloat16 [N, K] of expert e, in PyTorch operations."""
        codes = self.codes[e].int()
        values = torch.stack([self.table[codes >> 4], self.table[codes & 15]], dim=-1)
        return (values.view(-1, BLOCK) * self.absmax[e, :, None]).bfloat16().view(self.n, self.k)

    def dense(self):
        """The decoded stack [E, N, K] in bfloat16, made once."""
        if "dense" not in self.kept:
            out = torch.empty(self.experts, self.n, self.k, dtype=torch.bfloat16, device=self.codes.device)
            for e in range(self.experts):
                out[e] = self.dequantize_expert(e)
            self.kept["dense"] = out
        return self.kept["dense"]


def random_stack(experts, n, k, *, bias, device, generator):
    """Random codes (every nibble equally likely) and scales of weights with a standard deviation near 0.02."""
    if k % BLOCK:
        raise ValueError(f"K = {k} is no multiple of {BLOCK}: the peers of this benchmark need row-aligned blocks")
    codes = torch.randint(0, 256, (experts, n * k // 2), dtype=torch.uint8, device=device, generator=generator)
    absmax = (torch.rand(experts, n * k // BLOCK, device=device, generator=generator) + 0.5) * 0.04
    b = (torch.randn(experts, n, device=device, generator=generator) * 0.1).bfloat16() if bias else None
    return Stack(codes, absmax, b, experts, n, k, torch.tensor(TABLE, device=device))
