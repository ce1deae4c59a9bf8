"""From what callers pass to what the native module reads: (data_ptr, dtype code, shape, strides)."""

import warnings

import torch

from .errors import ArgumentError, ArgumentTypeError, argument_error

DTYPE_CODE = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
CODE_DTYPE = {code: dtype for dtype, code in DTYPE_CODE.items()}
DTYPE_TEXT = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


def as_tensor(value, argument):
    """`value` as a torch tensor that shares its memory: a tensor, a NumPy array, or anything with __dlpack__."""
    if isinstance(value, torch.Tensor):
        return value
    if type(value).__module__ == "numpy" and hasattr(value, "__array_interface__"):
        with warnings.catch_warnings():  # kernels never write to inputs, so a read-only array is fine
            warnings.simplefilter("ignore", UserWarning)
            try:
                return torch.from_numpy(value)
            except (TypeError, ValueError) as error:
                raise argument_error(argument, f"this NumPy array cannot be read: {error}", ArgumentTypeError) from None
    if hasattr(value, "__dlpack__"):
        try:
            return torch.from_dlpack(value)
        except Exception as error:
            raise argument_error(argument, f"DLPack import failed: {error}", ArgumentTypeError) from error
    raise argument_error(argument, f"found {type(value).__name__}, expected a tensor", ArgumentTypeError)


def check_strided(tensor, argument):
    """Raises unless `tensor` is a plain strided tensor, on the CPU or a CUDA device, that no gradient must flow through."""
    if tensor.device.type not in ("cpu", "cuda"):
        raise argument_error(argument, f"found a tensor on '{tensor.device}', expected 'cpu' or 'cuda'")
    if tensor.layout is not torch.strided:
        raise argument_error(argument, f"found a {tensor.layout} tensor, expected a strided (dense) one")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise argument_error(
            argument,
            "requires grad while gradients are recorded, and kernels are forward only today: "
            "call under torch.no_grad() or pass x.detach() (backward kernels come later)",
        )


def view(value, argument):
    """A floating tensor as the native module reads it. Returns (tensor to keep alive, (pointer, dtype code, shape, strides))."""
    tensor = as_tensor(value, argument)
    check_strided(tensor, argument)
    code = DTYPE_CODE.get(tensor.dtype)
    if code is None:
        raise argument_error(argument, f"found dtype {tensor.dtype}, expected float32, bfloat16 or float16", ArgumentTypeError)
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    return tensor, (tensor.data_ptr(), code, tuple(tensor.shape), tensor.stride())


def number(value, argument):
    """A scalar argument as float: a Python or NumPy number, or a tensor of one element."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise argument_error(argument, f"found a tensor of shape {tuple(value.shape)}, expected a number", ArgumentTypeError)
        check_strided(value, argument)
        if value.is_cuda:
            raise argument_error(argument, f"found a tensor on '{value.device}', expected a number: reading it would wait for the device")
        return float(value)
    if isinstance(value, (str, bytes)):
        raise argument_error(argument, f"found {type(value).__name__}, expected a number", ArgumentTypeError)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise argument_error(argument, f"found {type(value).__name__}, expected a number", ArgumentTypeError) from None


def dtype_code(dtype, argument="dtype"):
    code = DTYPE_CODE.get(dtype)
    if code is None:
        raise argument_error(argument, f"found {dtype}, expected torch.float32, torch.bfloat16 or torch.float16", ArgumentTypeError)
    return code


__all__ = ["ArgumentError", "CODE_DTYPE", "DTYPE_CODE", "DTYPE_TEXT", "as_tensor", "check_strided", "dtype_code", "number", "view"]
