"""Types of the public interface. Docstrings with shapes, dtypes and errors are in the .py files."""

import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch

from . import checkpoint as checkpoint
from ._quern import Codec as Codec
from .errors import ArgumentError as ArgumentError
from .errors import ArgumentTypeError as ArgumentTypeError
from .errors import CompileError as CompileError
from .errors import Error as Error
from .errors import InternalError as InternalError
from .errors import PackedInPlaceError as PackedInPlaceError
from .errors import RuntimeFailure as RuntimeFailure

__version__: str

Layout = Literal["bnb", "cpu", "gpu"]

class Kernel:
    name: str
    params: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]
    @property
    def signature(self) -> str: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

class Module:
    name: str
    kernels: dict[str, Kernel]
    codecs: dict[str, Codec]
    def __getattr__(self, name: str) -> Kernel: ...

class Routing:
    tokens: int
    num_experts: int
    top_k: int
    device: torch.device
    offsets: torch.Tensor
    row_token: torch.Tensor
    row_weight: torch.Tensor
    inverse: torch.Tensor
    @property
    def rows(self) -> int: ...
    @property
    def live_rows(self) -> int: ...

class Packed:
    codec: Codec
    shape: tuple[int, ...]
    blocksize: int
    dtype: torch.dtype
    layout: Layout
    device: torch.device
    inplace: bool
    @property
    def num_experts(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def to(self, layout: Layout) -> Packed: ...
    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor: ...

class RawWeights(NamedTuple):
    codes: torch.Tensor
    absmax: torch.Tensor
    zeros: torch.Tensor | None

class Stats(NamedTuple):
    compilations: int
    memory_hits: int
    compile_ms: float
    disk_hits: int

def load(source: str | os.PathLike[str]) -> Module: ...
def routing(
    ids: Any = None,
    weights: Any = None,
    *,
    num_experts: int | None = None,
    scores: Any = None,
    top_k: int | None = None,
    target: Literal["cpu", "cuda", "sim"] | None = None,
) -> Routing: ...
def pack(
    source: Any = None,
    *,
    inplace: bool = False,
    layout: Layout | None = None,
    codec: str | Codec | None = None,
    codes: torch.Tensor | Sequence[torch.Tensor] | None = None,
    absmax: torch.Tensor | Sequence[torch.Tensor] | None = None,
    shape: Sequence[int] | None = None,
    blocksize: int | None = None,
    dtype: torch.dtype | None = None,
    zeros: torch.Tensor | Sequence[torch.Tensor] | None = None,
) -> Packed: ...
def unpack(packed: Packed) -> Any: ...
def dequantize(packed: Packed, dtype: torch.dtype | None = None) -> torch.Tensor: ...
def device_problem(device: str | torch.device) -> str | None: ...
def doctor(*, json: bool = False) -> dict[str, Any] | None: ...
def stats() -> Stats: ...
def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def thread_library() -> str: ...
