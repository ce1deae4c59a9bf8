"""Quern: grouped matmuls on 4-bit weights, compiled from a small language (.qn) through MLIR.

    mod = quern.load("gpt_oss.qn")
    route = quern.routing(ids, weights, num_experts=32)
    w = quern.pack(list_of_linear4bit)
    h = mod.gate_up(x, route, w, bias)

On a CUDA device give CUDA tensors: codes to pack, ids to route, activations. Environment: QUERN_NUM_THREADS, QUERN_CPU_FEATURES
(e.g. "-amx,-avx512f"), QUERN_GPU_SCHEDULE. See python_bindings/README.md.
"""

import torch as _torch  # noqa: F401  first: its libgomp is the one that kernels use

from . import checkpoint
from ._device import device_problem
from ._doctor import doctor
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
    "PackedInPlaceError", "RawWeights", "Routing", "RuntimeFailure", "Stats", "checkpoint", "dequantize", "device_problem", "doctor", "load", "num_threads", "pack", "routing",
    "set_num_threads", "stats", "thread_library", "unpack",
]  # fmt: skip
