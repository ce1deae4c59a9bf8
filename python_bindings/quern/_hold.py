"""Guards on bitsandbytes weights whose bytes quern.pack(..., inplace=True) holds in another layout.

While held, a weight's class is a subclass of Params4bit that refuses every operation that would read its bytes, and its
quant_state is a HeldState that refuses every access. state_dict() still saves what bitsandbytes would: `detach`, which it
calls, and `as_dict` give restored copies.
"""

import functools

import torch

from .errors import PackedInPlaceError

_TEXT = "this weight is packed in place by quern, its bytes are not in bitsandbytes' order: call quern.unpack(packed) first"


def _refuse():
    raise PackedInPlaceError(_TEXT)


class HeldState:
    """Stands in for a QuantState while a weight is held. `packed` is the quern.Packed that holds it."""

    held_by_quern = True

    def __init__(self, packed, restore):
        self.packed = packed
        self._restore = restore  # () -> (codes in bitsandbytes' order, QuantState), both fresh

    def as_dict(self, packed=False):
        return self._restore()[1].as_dict(packed=packed)

    def __getattr__(self, name):
        _refuse()

    def __deepcopy__(self, memo):
        _refuse()

    def __reduce_ex__(self, protocol):
        _refuse()

    def __repr__(self):
        return "<quant state held by quern: packed in place>"


def _getters(*names):
    return {getattr(torch.Tensor, name).__get__ for name in names}


_HARMLESS = _getters("shape", "device", "dtype", "layout", "requires_grad", "is_leaf", "grad", "grad_fn", "ndim", "is_meta", "is_cuda") | {
    torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.element_size, torch.Tensor.stride,
    torch.Tensor.is_contiguous, torch.Tensor.is_floating_point, torch.Tensor.is_complex, torch.Tensor.__hash__, torch.Tensor.data_ptr,
    torch._has_compatible_shallow_copy_type,
}  # fmt: skip


@functools.lru_cache(maxsize=None)
def _held_class(base):
    """A subclass of `base` (Params4bit) whose bytes cannot be read by mistake."""

    class Held(base):
        def to(self, *args, **kwargs):
            device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
            if (device is not None and device != self.device) or (dtype is not None and self.is_floating_point() and dtype != self.dtype):
                _refuse()
            return self

        def __deepcopy__(self, memo):
            _refuse()

        def __copy__(self):
            _refuse()

        def __reduce_ex__(self, protocol):
            _refuse()

        def __repr__(self, **kwargs):
            return f"Parameter held by quern: packed in place, {self.numel()} elements of {self.dtype}"

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func in _HARMLESS:
                with torch._C.DisableTorchFunctionSubclass():
                    return func(*args, **(kwargs or {}))
            if func is torch.Tensor.detach:
                return args[0].__dict__["quant_state"]._restore()[0]
            if func == torch.Tensor.data.__set__ and args[0] is args[1]:
                return None  # module.to() to where it already is
            _refuse()

    Held.__name__ = Held.__qualname__ = f"Held{base.__name__}"
    return Held


def hold(weight, module, state, packed, restore):
    """Marks a weight (and its module) as held. Returns what `release` needs."""
    held = HeldState(packed, restore)
    on_module = module is not None and getattr(module, "quant_state", None) is state
    original = type(weight)
    weight.quant_state = held
    if on_module:
        module.quant_state = held
    weight.__class__ = _held_class(original)
    return weight, module if on_module else None, original


def release(mark, state):
    """Gives a weight its class and its state back."""
    weight, module, original = mark
    weight.__class__ = original
    weight.quant_state = state
    if module is not None:
        module.quant_state = state
