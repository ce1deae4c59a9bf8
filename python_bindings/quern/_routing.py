"""quern.routing: (token, choice) pairs sorted by expert."""

import torch

from . import _quern
from ._tensors import as_tensor, check_cpu, view
from .errors import ArgumentTypeError, argument_error


class Routing:
    """Rows of a routing are (token, choice) pairs sorted by expert; inside an expert they keep token order.

    R = tokens * top_k rows are allocated; the live ones are [0, offsets[num_experts]). Treat the tensors as read-only.

    Attributes:
        tokens, num_experts, top_k: int.
        offsets: int64 [num_experts + 1]; the rows of expert e are [offsets[e], offsets[e + 1]).
        row_token: int64 [R]; token of a row, -1 beyond the live rows.
        row_weight: float32 [R]; routing weight of a row, 0 beyond the live rows.
        inverse: int64 [tokens, top_k]; row of a pair, -1 when it was skipped.
    """

    __slots__ = ("_native", "tokens", "num_experts", "top_k", "offsets", "row_token", "row_weight", "inverse")

    def __init__(self, native):
        self._native = native
        self.tokens, self.num_experts, self.top_k = native.tokens, native.experts, native.top_k
        self.offsets, self.row_token, self.row_weight = native.offsets, native.row_token, native.row_weight
        self.inverse = native.inverse.view(self.tokens, self.top_k)

    @property
    def rows(self):
        """Rows that are allocated: tokens * top_k."""
        return self.tokens * self.top_k

    @property
    def live_rows(self):
        """Rows that an expert computes."""
        return int(self.offsets[-1])

    def __repr__(self):
        return (
            f"quern.Routing(tokens={self.tokens}, num_experts={self.num_experts}, top_k={self.top_k}, "
            f"live_rows={self.live_rows} of {self.rows})"
        )


def _ids(ids):
    ids = as_tensor(ids, "ids")
    check_cpu(ids, "ids")
    if ids.dim() != 2:
        raise argument_error("ids", f"found shape {tuple(ids.shape)}, expected [T, top_k]")
    if ids.dtype in (torch.int32, torch.int64):
        return ids
    if ids.dtype in (torch.uint8, torch.int8, torch.int16):
        return ids.long()
    raise argument_error("ids", f"found dtype {ids.dtype}, expected an integer type such as int64", ArgumentTypeError)


def routing(ids=None, weights=None, *, num_experts=None, scores=None, top_k=None):
    """Sorts router outputs by expert: one stable counting sort.

    Either from ids:
        ids: integer [T, top_k], any strides. Ids outside 0..num_experts-1 (expert-parallel sentinels, -1) are skipped: they
            contribute nothing.
        weights: float32, bfloat16 or float16 [T, top_k], or None for all ones. NaN passes through, into its own token only.
        num_experts: int, required.
    Or from dense scores:
        scores: float32, bfloat16 or float16 [T, num_experts]; non-zero (NaN included) means chosen, with that weight.
        top_k: the largest number of choices of one token; None counts it.

    Returns: Routing. T = 0 works.
    Raises: ArgumentError, ArgumentTypeError.
    """
    if (ids is None) == (scores is None):
        raise argument_error("ids", "give either ids (with num_experts) or scores, not both and not neither", ArgumentTypeError)
    if scores is not None:
        if weights is not None:
            raise argument_error("weights", "dense scores are their own weights: leave weights out", ArgumentTypeError)
        tensor, (pointer, code, shape, strides) = view(scores, "scores")
        if tensor.dim() != 2:
            raise argument_error("scores", f"found shape {shape}, expected [T, num_experts]")
        if shape[1] < 1 or (num_experts is not None and num_experts != shape[1]):
            expected = "at least one expert" if num_experts is None else f"num_experts={num_experts}"
            raise argument_error("scores", f"found {shape[1]} columns, expected {expected}")
        if top_k is not None and not 1 <= top_k <= shape[1]:
            raise argument_error("top_k", f"found {top_k}, expected 1..{shape[1]} (the number of experts)")
        return Routing(_quern.route_from_scores(pointer, code, *strides, *shape, 0 if top_k is None else top_k))

    ids = _ids(ids)
    if num_experts is None or isinstance(num_experts, bool) or not isinstance(num_experts, int):
        raise argument_error("num_experts", f"found {num_experts!r}, expected the number of experts as an int", ArgumentTypeError)
    if num_experts < 1:
        raise argument_error("num_experts", f"found {num_experts}, expected at least 1")
    if top_k is not None and top_k != ids.shape[1]:
        raise argument_error("top_k", f"found {top_k}, but ids has {ids.shape[1]} columns")
    pointer, code, strides = 0, 0, (0, 0)
    if weights is not None:
        weights, (pointer, code, shape, strides) = view(weights, "weights")
        if shape != tuple(ids.shape):
            raise argument_error("weights", f"found shape {shape}, expected that of ids, {tuple(ids.shape)}")
    return Routing(
        _quern.route_from_ids(
            ids.data_ptr(), ids.element_size(), *ids.stride(), pointer, code, *strides, ids.shape[0], ids.shape[1], num_experts
        )
    )
