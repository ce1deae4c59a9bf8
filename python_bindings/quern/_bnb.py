"""Reading 4-bit weights that bitsandbytes quantized: validation first, nothing is changed here.

A weight is `Params4bit` data (any quant_storage dtype) with its `QuantState`; under FSDP it is a plain Parameter and the state
is on the module. Facts about the formats were read in bitsandbytes 0.50.2 (functional.py, nn/modules.py).
"""

from dataclasses import dataclass

import torch

from ._tensors import DTYPE_CODE
from .errors import ArgumentTypeError, argument_error

BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)

_LOST = (
    "bitsandbytes repacked this weight for its CPU path (Linear4bit.forward in eval mode) and rounded absmax to bfloat16: the exact "
    "scales are lost. Load the weight again, and set linear.support_avx512bf16_for_cpu = False on the module before any forward"
)


@dataclass
class Part:
    """One quantized matrix [n, k], or a stack [experts, n, k], as bitsandbytes holds it."""

    label: str  # how messages call it: "source[3]"
    weight: torch.Tensor  # the Params4bit (or plain Parameter)
    module: object  # the module that owns it, or None
    state: object  # bitsandbytes' QuantState
    codes: torch.Tensor  # flat uint8; the weight's own storage unless `repacked`
    absmax: torch.Tensor  # flat: float32, or uint8 when nested
    experts: int
    stacked: bool
    n: int
    k: int
    block: int
    dtype: torch.dtype  # decoded values are rounded to it
    repacked: bool  # codes and absmax are restored copies

    @property
    def nested(self):
        return self.absmax.dtype is torch.uint8


def _find_state(item, label):
    """(weight, module, quant_state) of a Linear4bit, a PEFT layer around one, or a Params4bit."""
    if isinstance(item, torch.nn.Module):
        module = item.get_base_layer() if hasattr(item, "get_base_layer") else item
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor):
            raise argument_error(label, f"found {type(item).__name__} without a weight, expected bitsandbytes Linear4bit", ArgumentTypeError)
    elif isinstance(item, torch.Tensor):
        weight, module = item, getattr(item, "module", None)
    else:
        raise argument_error(label, f"found {type(item).__name__}, expected bitsandbytes Linear4bit or Params4bit", ArgumentTypeError)
    state = getattr(weight, "quant_state", None)
    if state is None:
        state = getattr(module, "quant_state", None)
    if getattr(state, "held_by_quern", False):
        raise argument_error(label, "is already packed in place: quern.unpack its quern.Packed first")
    if state is None:
        if hasattr(weight, "bnb_quantized"):
            raise argument_error(label, "is not quantized yet (quant_state is None): move the module to the CPU first, module.to('cpu')")
        raise argument_error(
            label, f"is not a bitsandbytes 4-bit weight: {type(item).__name__} with a {weight.dtype} weight and no quant_state"
        )
    return weight, module, state


def _undo_repack(codes, n, k):
    """bitsandbytes' CPU order back to row-major bytes: a byte holds flat elements i (low) and i + 32 of [n/32][k/2][32 rows][2]."""
    p = codes.reshape(n // 32, k // 2, 32)
    q = torch.cat([p & 15, p >> 4], -1).reshape(n // 32, k // 2, 32, 2).transpose(1, 2).reshape(-1, 2)
    return (q[:, 0] << 4) | q[:, 1]


def _check_nested(state, label):
    inner, offset = state.state2, state.offset
    if inner is None or offset is None:
        raise argument_error(label, "has uint8 absmax but no second-level state (state2, offset)")
    if inner.dtype is not torch.float32 or offset.dtype is not torch.float32:
        raise argument_error(label, "has a second-level state that is not float32", detail=_LOST)
    for name, tensor in (("state2.absmax", inner.absmax), ("state2.code", inner.code)):
        if tensor.dtype is not torch.float32 or tensor.device.type != "cpu":
            raise argument_error(label, f"has {name} of {tensor.dtype} on '{tensor.device}', expected float32 on 'cpu'")
    if inner.code.numel() != 256:
        raise argument_error(label, f"has a second-level map of {inner.code.numel()} entries, expected 256")
    if not isinstance(inner.blocksize, int) or inner.blocksize < 1:
        raise argument_error(label, f"has second-level blocksize {inner.blocksize!r}, expected a positive int")
    blocks = -(-state.absmax.numel() // inner.blocksize)
    if inner.absmax.numel() != blocks:
        raise argument_error(label, f"has {inner.absmax.numel()} second-level absmax, expected {blocks}")


def read_part(item, label, allow_stack):
    """Checks everything about one weight and returns it as a Part. Raises ArgumentError naming `label`."""
    weight, module, state = _find_state(item, label)
    if weight.requires_grad:
        raise argument_error(label, "requires grad, expected a frozen weight: weight.requires_grad_(False)")
    if weight.device.type != "cpu":
        raise argument_error(label, f"is on '{weight.device}', expected 'cpu'")
    shape = tuple(state.shape) if state.shape is not None else ()
    if len(shape) != 2 and not (allow_stack and len(shape) == 3):
        raise argument_error(label, f"has quant_state.shape {shape}, expected [N, K]" + (" or [E, N, K]" if allow_stack else ""))
    stacked = len(shape) == 3
    experts, n, k = shape if stacked else (1, *shape)
    if n < 1 or k < 1 or experts < 1:
        raise argument_error(label, f"has quant_state.shape {shape}, expected positive dimensions")
    if k % 2:
        raise argument_error(label, f"has odd K = {k}, expected an even one: two codes share a byte")
    if state.blocksize not in BLOCKSIZES:
        raise argument_error(label, f"has blocksize {state.blocksize}, expected a power of two in 32..4096")
    dtype = getattr(state, "original_dtype", state.dtype)  # a repack sets dtype to bfloat16
    if dtype not in DTYPE_CODE:
        raise argument_error(label, f"was quantized from {dtype}, expected float32, bfloat16 or float16")
    data = weight.data
    found, expected = data.numel() * data.element_size(), experts * n * k // 2
    if found != expected:
        raise argument_error(label, f"has {found} bytes of codes, but its shape {shape} needs {expected}")
    if not data.is_contiguous():
        raise argument_error(label, "has non-contiguous codes, expected contiguous ones")
    codes = data.reshape(-1).view(torch.uint8)

    absmax = state.absmax
    if absmax is None or absmax.device.type != "cpu":
        raise argument_error(label, f"has absmax on '{getattr(absmax, 'device', None)}', expected 'cpu'")
    repacked = bool(getattr(state, "packing_format_for_cpu", False))
    if absmax.dtype is torch.bfloat16 or (hasattr(state, "original_qshape") and not (repacked and absmax.dtype is torch.float32)):
        raise argument_error(label, "has lost its exact scales", detail=_LOST)
    count = -(-experts * n * k // state.blocksize)
    if absmax.numel() != count:
        raise argument_error(label, f"has {absmax.numel()} absmax, but shape {shape} with blocksize {state.blocksize} needs {count}")
    if experts > 1 and (n * k) % state.blocksize:
        raise argument_error(
            label, f"has blocks of {state.blocksize} that cross an expert's end (N * K = {n * k}): quantize the experts one by one"
        )
    if repacked:
        if n % 32 or absmax.dim() != 2:
            raise argument_error(label, "is repacked for the CPU in a form that this version of quern does not know")
        codes, absmax = _undo_repack(codes, n, k), absmax.t().reshape(-1)
    elif absmax.dtype is torch.uint8:
        _check_nested(state, label)
    elif absmax.dtype is not torch.float32:
        raise argument_error(label, f"has absmax of {absmax.dtype}, expected float32, or uint8 when nested", ArgumentTypeError)
    if not absmax.is_contiguous():
        raise argument_error(label, "has non-contiguous absmax, expected a contiguous one")
    return Part(label, weight, module, state, codes, absmax.reshape(-1), experts, stacked, n, k, state.blocksize, dtype, repacked)


def check_table(part, codec):
    """The codec must decode as the state's own code table does."""
    found = [float(v) for v in part.state.code.reshape(-1).float()]
    if found != list(codec.table) or not codec.high_first or codec.scale != "f32" or codec.has_zero:
        raise argument_error(part.label, f"has a code table that differs from codec '{codec.name}' ({part.state.quant_type})")
