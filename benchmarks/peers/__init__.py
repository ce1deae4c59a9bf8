"""What the GPU benchmark compares. A peer says whether it can run here and turns a Case (gpu_cases.py) into a call to be timed.

`call(case)` does all preparation that a real program does once (packing, allocation that is kept, compiling) and returns a function
without arguments; that function's work, output allocation included, is what is timed."""

from dataclasses import dataclass

import torch


@dataclass
class Peer:
    """Base of all peers.

    name: column in the table. fused: the result has passed bias and activation (gate_up) or the combine (down); else it is the plain
    product [R, N]. traffic: bytes per weight element that the peer itself moves through memory.
    """

    name: str
    fused: bool = False
    traffic: float = 2.0

    def unavailable(self, case):
        """Why this peer cannot run this case, or None."""
        return None

    def call(self, case):
        raise NotImplementedError


class ProjectionPeer(Peer):
    """A peer that knows one grouped matmul over sorted rows; a whole layer is made of it with PyTorch's own operations."""

    def project(self, stack, rows, case):
        """rows [R, K] sorted by expert, stack -> [R, N]."""
        raise NotImplementedError

    def call(self, case):
        if case.projection == "layer":
            return lambda: layer_forward(case, self.project)
        stack, rows = case.stacks[case.projection], case.sorted_rows()
        return lambda: self.project(stack, rows, case)


def gate(y, kind):
    """The activation between the projections, [R, 2I] -> [R, I], in y's dtype."""
    if kind == "gpt_oss":
        g, u = y[..., ::2].clamp(max=7.0), y[..., 1::2].clamp(-7.0, 7.0)
        return (u + 1) * (g * torch.sigmoid(g * 1.702))
    g, u = y.chunk(2, dim=-1)
    return torch.nn.functional.silu(g) * u


def layer_forward(case, project):
    """Gather, gate_up, bias, activation, down, bias, fp32 index_add: the grouped 4-bit forward as PyTorch programs write it.

    What costs them host syncs (rows per expert, expert of a row) is given to them here.
    """
    gate_up, down = case.stacks["gate_up"], case.stacks["down"]
    y = project(gate_up, case.x[case.row_token], case)
    if gate_up.bias is not None:
        y += gate_up.bias[case.row_expert]
    z = project(down, gate(y, case.shape.kind), case)
    if down.bias is not None:
        z += down.bias[case.row_expert]
    out = torch.zeros(case.tokens, down.n, dtype=torch.float32, device=case.device)
    return out.index_add_(0, case.row_token, z.float() * case.row_weight[:, None])


def all_peers(schedules=()):
    """Peers in the order of the table; Quern first, then Quern with each of the schedules."""
    from .quern_peer import Quern
    from .torch_peers import Dense, DequantizeGrouped, Loop, Resident
    from .triton_peers import FusedTriton

    return [Quern(), *map(Quern, schedules), Resident(), DequantizeGrouped(), FusedTriton(), Loop(), Dense()]
