"""Quern: grouped matmuls on 4-bit weights, compiled from a small language (.qn) through MLIR.

    mod = quern.load("gpt_oss.qn")
    route = quern.routing(ids, weights, num_experts=32)
    w = quern.pack(list_of_linear4bit)
    h = mod.gate_up(x, route, w, bias)

Environment: QUERN_NUM_THREADS, QUERN_CPU_FEATURES (e.g. "-amx,-avx512f"). See python_bindings/README.md.
"""

import torch as _torch  # noqa: F401  first: its libgomp is the one that kernels use

from . import checkpoint
from ._module import Kernel, Module, load
from ._pack import RawWeights, pack, unpack
from ._packed import Packed, dequantize
from ._quern import Codec, num_threads, thread_library
from ._routing import Routing, routing
from ._runtime import Stats, set_num_threads, stats
from .errors import ArgumentError, ArgumentTypeError, CompileError, Error, InternalError, PackedInPlaceError, RuntimeFailure

__version__ = "0.1.0"
__all__ = [
    "ArgumentError", "ArgumentTypeError", "Codec", "CompileError", "Error", "InternalError", "Kernel", "Module", "Packed",
    "PackedInPlaceError", "RawWeights", "Routing", "RuntimeFailure", "Stats", "checkpoint", "dequantize", "load", "num_threads", "pack", "routing",
    "set_num_threads", "stats", "thread_library", "unpack",
]  # fmt: skip
