"""Double-quantized absmax: expanded once to float32 when packing, folded back to the same bytes when unpacking."""

from dataclasses import dataclass

import torch

from . import _quern


@dataclass
class Nested:
    """Second level of `count` scales, and what the fold needs to give the very same bytes.

    absmax[i] = rn(rn(code2[q[i]] * absmax2[i // block2]) + offset). Where several q give one absmax, the true q is kept: as a
    list of exceptions, or all of q when that is smaller.
    """

    count: int
    code2: torch.Tensor
    absmax2: torch.Tensor
    block2: int
    offset: float
    indices: bytes = b""
    codes: bytes = b""
    raw: torch.Tensor | None = None

    @classmethod
    def expand(cls, state, q, out):
        """Expands q (uint8 [count]) of bitsandbytes' `state` into `out` (float32 [count], contiguous)."""
        inner = state.state2
        self = cls(q.numel(), inner.code.clone(), inner.absmax.clone(), inner.blocksize, float(state.offset))
        _quern.expand_nested(q.data_ptr(), self.count, *self._tables(), out.data_ptr())
        self.indices, self.codes = _quern.nested_exceptions(q.data_ptr(), out.data_ptr(), self.count, *self._tables())
        if len(self.indices) + len(self.codes) >= self.count:
            self.indices, self.codes, self.raw = b"", b"", q.clone()
        return self

    def fold(self, absmax):
        """q (uint8 [count]) from the expanded absmax (float32 [count], contiguous)."""
        if self.raw is not None:
            return self.raw.clone()
        q = torch.empty(self.count, dtype=torch.uint8)
        _quern.fold_nested(absmax.data_ptr(), self.count, *self._tables(), self.indices, self.codes, q.data_ptr())
        return q

    def _tables(self):
        return self.code2.data_ptr(), self.absmax2.data_ptr(), self.block2, self.offset

    @property
    def nbytes(self):
        raw = 0 if self.raw is None else self.raw.numel()
        return 4 * (self.code2.numel() + self.absmax2.numel()) + len(self.indices) + len(self.codes) + raw
