"""quern.Packed: a 4-bit operand as kernels take it."""

import torch

from . import _quern
from ._device import place_of
from ._tensors import DTYPE_CODE, DTYPE_TEXT, dtype_code
from .errors import ArgumentError, argument_error

LAYOUTS = {"bnb": 0, "cpu": 1, "gpu": 2}


def layout_code(layout):
    if layout not in LAYOUTS:
        raise argument_error("layout", f"found {layout!r}, expected 'bnb', 'cpu' or 'gpu'")
    return LAYOUTS[layout]


def retile(native, device, layout):
    """Re-tiles a native operand in place, where its bytes are."""
    place = place_of(device)
    if place is None:
        native.retile(LAYOUTS[layout])
    elif layout == "cpu":
        raise argument_error("layout", f"found 'cpu' for an operand on '{device}', expected 'bnb' or 'gpu'")
    else:
        place.native.retile(place.stream, native, LAYOUTS[layout])


class Packed:
    """4-bit weights [E, N, K] (or [N, K]): codes and scales in separate arrays, in one of three layouts of the same size.

    Made by quern.pack; taken by kernels, quern.unpack and quern.dequantize.

    Attributes:
        shape: (E, N, K) or (N, K).
        codec: quern's Codec (`.name`, `.table`).
        blocksize: codes per scale; blocks run over the flattened [N, K] of an expert.
        dtype: torch dtype of the quantization state; decoded values are rounded to it.
        layout: 'bnb', 'cpu' or 'gpu'; changed by `.to`.
        device: torch device of its bytes; kernels run there.
        nbytes: all bytes held: codes, scales, zeros, and what restores nested absmax.
        inplace: the codes are the storage of the source itself.
    """

    def __init__(self, codec, shape, blocksize, dtype, codes, scales, zeros, origin, inplace, argument):
        """Internal. codes, scales, zeros: one flat tensor per expert, in bitsandbytes' layout. Raises ArgumentError about `argument`."""
        self.codec, self.shape, self.blocksize, self.dtype = codec, tuple(shape), blocksize, dtype
        self.layout, self.inplace, self.device = "bnb", inplace, codes[0].device
        self._codes, self._scales, self._zeros, self._origin = codes, scales, zeros, origin
        n, k = self.shape[-2:]
        self._native = _quern.make_packed(
            codec, len(self.shape) == 3, n, k, blocksize, DTYPE_CODE[dtype], LAYOUTS["bnb"],
            [t.data_ptr() for t in codes], [t.data_ptr() for t in scales], [t.data_ptr() for t in zeros], argument,
        )  # fmt: skip

    def _handle(self):
        if self._native is None:
            raise ArgumentError("this quern.Packed was unpacked: its bytes are bitsandbytes' own again")
        return self._native

    @property
    def num_experts(self):
        return self.shape[0] if len(self.shape) == 3 else 1

    @property
    def nbytes(self):
        tensors = sum(t.numel() * t.element_size() for group in (self._codes, self._scales, self._zeros) for t in group)
        return tensors + self._origin.nbytes

    def to(self, layout):
        """Re-tiles the bytes in place to 'bnb', 'cpu' or 'gpu' (memory never doubles) and returns self.

        Not while another thread or stream runs a kernel on this operand. No-op when the layout is already that one. On a CUDA device
        'bnb' and 'gpu' exist; the work goes on torch's current stream.
        """
        layout_code(layout)
        retile(self._handle(), self.device, layout)
        self.layout = layout
        return self

    def dequantize(self, dtype=None):
        """Same as quern.dequantize(self, dtype)."""
        dtype = self.dtype if dtype is None else dtype
        code = dtype_code(dtype)
        handle = self._handle()
        out = torch.empty(self.shape, dtype=dtype, device=self.device)
        place = place_of(self.device)
        if place is None:
            handle.decode(code, out.data_ptr())
        else:
            place.native.decode(place.stream, handle, code, out.data_ptr())
        return out

    def __repr__(self):
        state = "unpacked" if self._native is None else f"layout={self.layout!r}"
        if self.device.type != "cpu":
            state += f", device='{self.device}'"
        return (
            f"quern.Packed({self.codec.name}{list(self.shape)}, blocksize={self.blocksize}, dtype={DTYPE_TEXT[self.dtype]}, "
            f"{state}, {'in place, ' if self.inplace else ''}{self.nbytes / 1e6:.1f} MB)"
        )


def dequantize(packed, dtype=None):
    """Decoded weights of a quern.Packed, bit-identical to bitsandbytes' dequantize_4bit.

    value = (table[code] - zero) * scale in float32, rounded once to packed.dtype, then to `dtype` (default packed.dtype).
    Returns: tensor of packed.shape, contiguous. For tests and the curious: kernels never materialise this.
    """
    if not isinstance(packed, Packed):
        raise argument_error("packed", f"found {type(packed).__name__}, expected quern.Packed")
    return packed.dequantize(dtype)
