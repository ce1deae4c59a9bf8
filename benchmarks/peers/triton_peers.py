"""The peers that use Triton, and the decoding kernel that other peers share; without Triton or a GPU, PyTorch operations decode."""

import torch

from . import ProjectionPeer
from .nf4 import BLOCK

try:
    from . import triton_nf4
except ImportError as error:
    triton_nf4, missing = None, f"Triton cannot be imported: {error}"
else:
    missing = None


def usable(device):
    """Triton's kernels run on a GPU only. (Its interpreter computes bfloat16 products wrongly: tests call triton_nf4.interpreted.)"""
    return triton_nf4 is not None and device.type == "cuda"


def dequantize(stack, expert=None):
    """bfloat16 [E, N, K], or [N, K] of one expert, in new memory."""
    codes, absmax = (stack.codes, stack.absmax) if expert is None else (stack.codes[expert], stack.absmax[expert])
    shape = (stack.n, stack.k) if expert is not None else (stack.experts, stack.n, stack.k)
    if usable(codes.device):
        return triton_nf4.dequantize(codes, absmax, stack.table, torch.empty(shape, dtype=torch.bfloat16, device=codes.device))
    if expert is not None:
        return stack.dequantize_expert(expert)
    return torch.stack([stack.dequantize_expert(e) for e in range(stack.experts)])


class FusedTriton(ProjectionPeer):
    """One Triton kernel: grouped matmul whose prologue decodes NF4. See triton_nf4.py."""

    def __init__(self):
        super().__init__("triton", traffic=0.5 + 4 / BLOCK)

    def unavailable(self, case):
        if missing:
            return missing
        return None if usable(case.device) else "Triton needs a GPU"

    def project(self, stack, rows, case):
        return triton_nf4.grouped(rows, stack, case.offsets, case.rows)
