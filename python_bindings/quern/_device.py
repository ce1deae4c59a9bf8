"""Where calls run: the CPU, a CUDA device, or the simulator on the CPU's memory."""

import functools

import torch

from . import _quern
from .errors import ArgumentError, Error, argument_error

try:  # what a call costs most to ask; absent from torch builds without CUDA
    from torch._C import _cuda_getCurrentRawStream as _raw_stream
except ImportError:

    def _raw_stream(index):
        return torch.cuda.current_stream(index).cuda_stream


class Place:
    """A device that kernels run on other than the CPU target: native handle, the torch device of its memory, the caller's stream."""

    __slots__ = ("native", "device", "is_cuda")

    def __init__(self, native, device):
        self.native, self.device, self.is_cuda = native, device, device.type == "cuda"

    @property
    def stream(self):
        """torch's current stream of the device, as an integer."""
        return _raw_stream(self.device.index) if self.is_cuda else 0


@functools.lru_cache(maxsize=None)
def _cuda(index):
    torch.cuda.init()  # the primary context that both use
    return Place(_quern.open_device("cuda", index), torch.device("cuda", index))


@functools.lru_cache(maxsize=None)
def _simulator():
    return Place(_quern.open_device("sim", 0), torch.device("cpu"))


def place_of(device, target=None):
    """The Place for tensors on `device`, None for the CPU target.

    target: None (by device), or "cpu", "cuda", "sim" to insist; "sim" takes CPU tensors.
    """
    if target not in (None, "cpu", "cuda", "sim"):
        raise argument_error("target", f"found {target!r}, expected 'cpu', 'cuda' or 'sim'")
    if target is not None and (target == "cuda") != (device.type == "cuda"):
        raise argument_error("target", f"'{target}' cannot take tensors on '{device}'")
    if device.type == "cuda":
        return _cuda(torch.cuda.current_device() if device.index is None else device.index)
    return _simulator() if target == "sim" else None


def common_device(named):
    """The one device of [(argument, device)]; CPU when there is none. Raises when they differ."""
    if not named:
        return torch.device("cpu")
    first, device = named[0]
    for argument, other in named[1:]:
        if other != device:
            raise argument_error(argument, f"is on '{other}', but '{first}' is on '{device}': all must be on one device")
    return device


def device_problem(device):
    """Why kernels cannot run on `device` ("cuda", "cuda:1", "cpu", a torch.device), or None when they can."""
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        return f"quern runs on 'cpu' and 'cuda', not on '{device.type}'"
    if device.type == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        place_of(device)
    except Error as error:
        return str(error)
    return None


__all__ = ["ArgumentError", "Place", "common_device", "device_problem", "place_of"]
