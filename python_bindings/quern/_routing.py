"""quern.routing: (token, choice) pairs sorted by expert."""

import torch

from . import _quern
from ._device import common_device, place_of
from ._tensors import as_tensor, check_strided, view
from .errors import ArgumentTypeError, argument_error


class Routing:
    """Rows of a routing are (token, choice) pairs sorted by expert; inside an expert they keep token order.

    R = tokens * top_k rows are allocated; the live ones are [0, offsets[num_experts]). Treat the tensors as read-only.

    Attributes (int64 on the CPU, int32 where a device made them):
        tokens, num_experts, top_k: int.
        device: torch device of the tensors.
        offsets: [num_experts + 1]; the rows of expert e are [offsets[e], offsets[e + 1]).
        row_token: [R]; token of a row, -1 beyond the live rows.
        row_weight: float32 [R]; routing weight of a row, 0 beyond the live rows.
        inverse: [tokens, top_k]; row of a pair, -1 when it was skipped.
    """

    __slots__ = ("_native", "_device", "tokens", "num_experts", "top_k", "device", "offsets", "row_token", "row_weight", "inverse")

    def __init__(self, native):
        """Internal: a routing that the CPU made."""
        self._native, self._device = native, None
        self.tokens, self.num_experts, self.top_k = native.tokens, native.experts, native.top_k
        self.device = torch.device("cpu")
        self.offsets, self.row_token, self.row_weight = native.offsets, native.row_token, native.row_weight
        self.inverse = native.inverse.view(self.tokens, self.top_k)

    @classmethod
    def _allocated(cls, place, tokens, num_experts, top_k):
        """Internal: int32 arrays on a device, for its kernels to fill."""
        self, rows = cls.__new__(cls), tokens * top_k
        self.tokens, self.num_experts, self.top_k, self.device = tokens, num_experts, top_k, place.device
        self.offsets = torch.empty(num_experts + 1, dtype=torch.int32, device=place.device)
        self.row_token = torch.empty(rows, dtype=torch.int32, device=place.device)
        self.row_weight = torch.empty(rows, dtype=torch.float32, device=place.device)
        self.inverse = torch.empty(tokens, top_k, dtype=torch.int32, device=place.device)
        self._native, self._device = None, self._handle(self.offsets, self.row_token, self.row_weight, self.inverse)
        return self

    def _handle(self, *arrays):
        return _quern.device_routing(self.tokens, self.num_experts, self.top_k, *(a.data_ptr() for a in arrays))

    def _for(self, place):
        """What the native module reads: for the CPU target (place None) or for a device."""
        if place is not None and self._device is None:  # made by the CPU target, wanted by the simulator: kept beside
            arrays = self.offsets.int(), self.row_token.int(), self.row_weight, self.inverse.int()
            self._device = self._handle(*arrays), arrays
        if place is not None:
            return self._device[0] if isinstance(self._device, tuple) else self._device
        if self._native is None:
            raise argument_error("route", "was made with target='sim': make one without for the CPU target")
        return self._native

    @property
    def rows(self):
        """Rows that are allocated: tokens * top_k."""
        return self.tokens * self.top_k

    @property
    def live_rows(self):
        """Rows that experts compute. On a CUDA device this waits for it."""
        return int(self.offsets[-1])

    def __repr__(self):
        live = f"live_rows={self.live_rows} of {self.rows}" if self.device.type == "cpu" else f"rows={self.rows}, device='{self.device}'"
        return f"quern.Routing(tokens={self.tokens}, num_experts={self.num_experts}, top_k={self.top_k}, {live})"


def _ids(ids):
    ids = as_tensor(ids, "ids")
    check_strided(ids, "ids")
    if ids.dim() != 2:
        raise argument_error("ids", f"found shape {tuple(ids.shape)}, expected [T, top_k]")
    if ids.dtype in (torch.int32, torch.int64):
        return ids
    if ids.dtype in (torch.uint8, torch.int8, torch.int16):
        return ids.long()
    raise argument_error("ids", f"found dtype {ids.dtype}, expected an integer type such as int64", ArgumentTypeError)


def routing(ids=None, weights=None, *, num_experts=None, scores=None, top_k=None, target=None):
    """Sorts router outputs by expert: one stable counting sort.

    Either from ids:
        ids: integer [T, top_k], any strides. Ids outside 0..num_experts-1 (expert-parallel sentinels, -1) are skipped: they
            contribute nothing.
        weights: float32, bfloat16 or float16 [T, top_k], or None for all ones. NaN passes through, into its own token only.
        num_experts: int, required.
    Or from dense scores:
        scores: float32, bfloat16 or float16 [T, num_experts]; non-zero (NaN included) means chosen, with that weight.
        top_k: the largest number of choices of one token; None counts it. Required on a CUDA device, where counting would wait for it;
            a token with more choices than that is an error on the CPU, and there gets NaN weights.

    On a CUDA device the sort runs there, on torch's current stream; nothing waits for it. target: "sim" runs the device's sort on
    the simulator, from CPU tensors.
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
        place = place_of(tensor.device, target)
        if place is None:
            return Routing(_quern.route_from_scores(pointer, code, *strides, *shape, 0 if top_k is None else top_k))
        if top_k is None:
            raise argument_error("top_k", "is required with dense scores on a GPU: counting the choices would wait for the device")
        route = Routing._allocated(place, *shape, top_k)
        place.native.route_scores(place.stream, route._device, pointer, code, *strides)
        return route

    ids = _ids(ids)
    if num_experts is None or isinstance(num_experts, bool) or not isinstance(num_experts, int):
        raise argument_error("num_experts", f"found {num_experts!r}, expected the number of experts as an int", ArgumentTypeError)
    if num_experts < 1:
        raise argument_error("num_experts", f"found {num_experts}, expected at least 1")
    if top_k is not None and top_k != ids.shape[1]:
        raise argument_error("top_k", f"found {top_k}, but ids has {ids.shape[1]} columns")
    pointer, code, strides, devices = 0, 0, (0, 0), [("ids", ids.device)]
    if weights is not None:
        weights, (pointer, code, shape, strides) = view(weights, "weights")
        devices.append(("weights", weights.device))
        if shape != tuple(ids.shape):
            raise argument_error("weights", f"found shape {shape}, expected that of ids, {tuple(ids.shape)}")
    place = place_of(common_device(devices), target)
    source = ids.data_ptr(), ids.element_size(), *ids.stride(), pointer, code, *strides
    if place is None:
        return Routing(_quern.route_from_ids(*source, *ids.shape, num_experts))
    route = Routing._allocated(place, ids.shape[0], num_experts, ids.shape[1])
    place.native.route_ids(place.stream, route._device, *source)
    return route
