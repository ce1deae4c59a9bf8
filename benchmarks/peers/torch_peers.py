"""Peers made of PyTorch operations: grouped matmul on resident bfloat16 weights, dequantize + grouped matmul, the loop over
experts, and one dense matmul with the same number of operations."""

import torch

from . import Peer, ProjectionPeer
from . import triton_peers

# Bytes that move per weight element: 4-bit codes and one fp32 scale per 64 of them; bfloat16.
PACKED, DENSE = 0.5 + 4 / 64, 2.0


def grouped_mm(rows, dense, ends):
    """[R, K] x [E, N, K] -> [R, N]; ends int32 [E]: the row after each expert's last."""
    return torch._grouped_mm(rows, dense.transpose(-2, -1), offs=ends)


class Resident(ProjectionPeer):
    """torch._grouped_mm on weights that lie decoded in memory: what 4-bit weights are there to avoid."""

    def __init__(self):
        super().__init__("grouped_mm", traffic=DENSE)

    def call(self, case):
        for stack in case.used_stacks():
            stack.dense()
        return super().call(case)

    def project(self, stack, rows, case):
        return grouped_mm(rows, stack.dense(), case.ends)


class DequantizeGrouped(ProjectionPeer):
    """The whole stack decoded by one kernel into a transient, then torch._grouped_mm."""

    def __init__(self):
        super().__init__("dequant+gmm", traffic=PACKED + 2 * DENSE)

    def project(self, stack, rows, case):
        return grouped_mm(rows, triton_peers.dequantize(stack), case.ends)


class Loop(ProjectionPeer):
    """One expert after the other: dequantize it, multiply its rows. The host must know the row counts: one sync per call."""

    def __init__(self):
        super().__init__("loop", traffic=PACKED + 2 * DENSE)

    def project(self, stack, rows, case):
        out = torch.empty(rows.shape[0], stack.n, dtype=rows.dtype, device=rows.device)
        offsets = case.offsets.tolist()
        for e in range(stack.experts):
            if offsets[e] < offsets[e + 1]:
                chosen = slice(offsets[e], offsets[e + 1])
                torch.matmul(rows[chosen], triton_peers.dequantize(stack, e).t(), out=out[chosen])
        return out


class Dense(Peer):
    """torch.matmul of [R, K] with one [N, K] matrix: cuBLAS at equal operations, with nothing ragged, packed or gathered."""

    def __init__(self):
        super().__init__("dense", traffic=DENSE)

    def unavailable(self, case):
        return "a dense matmul stands beside one projection, not beside a layer" if case.projection == "layer" else None

    def call(self, case):
        rows, weight = case.sorted_rows(), case.stacks[case.projection].dense()[0]
        return lambda: torch.matmul(rows, weight.t())
