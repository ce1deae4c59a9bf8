"""Quern behind the benchmark's one adapter: packs a stack once, routes once per case, and calls kernels of the shipped .qn files."""

from . import Peer
from .nf4 import BLOCK
from .torch_peers import PACKED


class Quern(Peer):
    """The fused kernels through the Python package: gather, product, bias and activation (gate_up), or combine (down), in one call.

    It does more than the plain products that it stands beside: they get sorted rows and stop before bias and activation.
    """

    def __init__(self, schedule=None):
        """schedule: a GPU schedule, whole or partial, that takes the place of what a call would choose; named in the table."""
        super().__init__(f"quern {schedule}" if schedule else "quern", fused=True, traffic=PACKED)
        self.modules, self.options = {}, {"schedule": schedule} if schedule else {}

    def unavailable(self, case):
        try:
            import quern
        except ImportError as error:
            return f"the package quern cannot be imported: {error}"
        if case.device.type != "cpu" and not hasattr(quern, "device_problem"):
            return "this build of quern runs on the CPU only"
        return None if case.device.type == "cpu" else quern.device_problem(case.device)

    def packed(self, stack):
        """The stack as quern.Packed, made once: a re-tiled copy."""
        import quern

        if "quern" not in stack.kept:
            stack.kept["quern"] = quern.pack(
                codes=stack.codes, absmax=stack.absmax, shape=(stack.experts, stack.n, stack.k), codec="nf4", blocksize=BLOCK,
                layout="gpu" if stack.codes.is_cuda else "cpu",
            )  # fmt: skip
        return stack.kept["quern"]

    def call(self, case):
        import quern

        kind = case.shape.kind
        module = self.modules.setdefault(kind, quern.load(kind))
        route = quern.routing(case.ids, case.weights, num_experts=case.shape.experts)
        operands = {}
        for name in ("gate_up", "down"):
            if name in case.stacks:
                stack = case.stacks[name]
                operands[name] = [route, self.packed(stack)] + ([stack.bias] if stack.bias is not None else [])
        if case.projection == "gate_up":
            return lambda: module.gate_up(case.x, *operands["gate_up"], **self.options)
        if case.projection == "down":
            return lambda: module.down(case.h, *operands["down"], **self.options)
        gate_up = lambda: module.gate_up(case.x, *operands["gate_up"], **self.options)  # noqa: E731
        return lambda: module.down(gate_up(), *operands["down"], **self.options)
