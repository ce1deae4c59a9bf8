"""quern.pack and quern.unpack. Everything is validated before anything changes; the last step, re-tiling, cannot fail."""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch

from . import _quern
from ._bnb import BLOCKSIZES, Part, check_table, read_part
from ._device import common_device
from ._hold import hold, release
from ._nested import Nested
from ._packed import LAYOUTS, Packed, layout_code, retile
from ._tensors import DTYPE_CODE, dtype_code
from .errors import ArgumentTypeError, argument_error

_SCALE_DTYPE = {"f32": torch.float32, "bf16": torch.bfloat16, "e8m0": torch.uint8}


class RawWeights(NamedTuple):
    """What quern.unpack gives back for raw tensors: codes uint8 [E, N*K/2], absmax [E, blocks], zeros uint8 [E, blocks] or None."""

    codes: torch.Tensor
    absmax: torch.Tensor
    zeros: torch.Tensor | None


@dataclass
class _Record:
    """Where one bitsandbytes weight lies in a Packed, and what makes its QuantState again."""

    part: Part  # `codes` and `absmax` are dropped after packing, unless in place
    expert: int  # first expert; the weight covers part.experts of them
    first_code: int  # byte offset inside the expert (joined weights only)
    template: object  # the QuantState without absmax
    nested: Nested | None = None
    mark: tuple | None = None  # in place: what _hold.release needs


class _BnbOrigin:
    """Remembers the shape of `source`: records grouped as it was given."""

    def __init__(self, records, form):
        self.records, self.form = records, form  # form: 'one', 'list', 'joined'

    @property
    def nbytes(self):
        return sum(r.nested.nbytes for r in self.records if r.nested)

    def codes_and_state(self, packed, record):
        """Fresh (codes as bitsandbytes' weight data, QuantState) of one record."""
        codes, scales, _ = _restored(packed, range(record.expert, record.expert + record.part.experts))
        size = record.part.n * record.part.k // 2
        count = -(-record.part.n * record.part.k // packed.blocksize)
        first = record.first_code * 2 // packed.blocksize
        flat = torch.cat([c[record.first_code : record.first_code + size] for c in codes])
        absmax = torch.cat([s[first : first + count] for s in scales])
        state = copy.deepcopy(record.template)
        state.absmax = record.nested.fold(absmax) if record.nested else absmax
        weight = record.part.weight
        with torch._C.DisableTorchFunctionSubclass():
            dtype, shape = weight.dtype, weight.shape
        if record.part.repacked:
            dtype, shape = torch.uint8, (flat.numel(), 1)
        return flat.view(dtype).reshape(shape), state

    def result(self, packed):
        pairs = [self.codes_and_state(packed, r) for r in self.records]
        if self.form == "one":
            return pairs[0]
        if self.form == "list":
            return pairs
        grouped = [[] for _ in range(packed.num_experts)]
        for record, pair in zip(self.records, pairs):
            grouped[record.expert].append(pair)
        return [tuple(group) for group in grouped]

    def release(self, packed):
        """In place: the bytes are in bitsandbytes' layout again; states and classes return."""
        for record in self.records:
            if record.nested:
                scales = packed._scales[record.expert : record.expert + record.part.experts]
                record.part.state.absmax = record.nested.fold(torch.cat(scales))
            release(record.mark, record.part.state)
        owners = [r.part.weight if r.part.module is None or self.form == "one" else r.part.module for r in self.records]
        return owners[0] if self.form == "one" else owners


class _RawOrigin:
    nbytes = 0

    def __init__(self, tensors):
        self.tensors = tensors  # in place: the caller's own (codes, absmax, zeros)

    def result(self, packed):
        codes, scales, zeros = _restored(packed, range(packed.num_experts))
        return RawWeights(torch.stack(codes), torch.stack(scales), torch.stack(zeros) if zeros else None)

    def release(self, packed):
        return RawWeights(*self.tensors)


def _restored(packed, experts):
    """Fresh copies of some experts' flat codes, scales and zeros, in bitsandbytes' layout."""
    codes = [packed._codes[e].clone() for e in experts]
    scales = [packed._scales[e].clone() for e in experts]
    zeros = [packed._zeros[e].clone() for e in experts] if packed._zeros else []
    n, k = packed.shape[-2:]
    native = _quern.make_packed(
        packed.codec, True, n, k, packed.blocksize, DTYPE_CODE[packed.dtype], LAYOUTS[packed.layout],
        [t.data_ptr() for t in codes], [t.data_ptr() for t in scales], [t.data_ptr() for t in zeros], "packed",
    )  # fmt: skip
    retile(native, packed.device, "bnb")
    return codes, scales, zeros


def _codec(codec, default=None):
    codec = default if codec is None else codec
    if isinstance(codec, _quern.Codec):
        return codec
    if isinstance(codec, str):
        return _quern.shipped_codec(codec)
    raise argument_error("codec", f"found {type(codec).__name__}, expected a shipped codec's name or a Codec of a module", ArgumentTypeError)


def _read_source(source, inplace):
    """(list per expert of lists of Parts, form). One stacked part stands alone in its list."""
    if not isinstance(source, (list, tuple, torch.nn.ModuleList)):
        return [[read_part(source, "source", True)]], "one"
    if not len(source):
        raise argument_error("source", "is an empty list, expected one module per expert")
    joined = any(isinstance(item, (list, tuple)) for item in source)
    if joined and inplace:
        raise argument_error("inplace", "weights that are joined along N have separate storage: only inplace=False can pack them")
    groups = []
    for i, item in enumerate(source):
        items = item if isinstance(item, (list, tuple)) else [item]
        labels = [f"source[{i}][{j}]" if joined else f"source[{i}]" for j in range(len(items))]
        groups.append([read_part(x, label, False) for x, label in zip(items, labels)])
        if not groups[-1]:
            raise argument_error(f"source[{i}]", "is empty, expected the weights of one expert")
    return groups, "joined" if joined else "list"


def _check_alike(groups):
    """All experts must agree in everything that a Packed holds once."""
    first = groups[0][0]
    rows = [part.n for part in groups[0]]
    for group in groups:
        if [part.n for part in group] != rows:
            raise argument_error(group[0].label, f"has N = {[p.n for p in group]}, but {first.label} has {rows}")
        for part in group:
            facts = (
                ("K", part.k, first.k),
                ("blocksize", part.block, first.block),
                ("quant_type", part.state.quant_type, first.state.quant_type),
                ("dtype", part.dtype, first.dtype),
            )
            for name, found, expected in facts:
                if found != expected:
                    raise argument_error(part.label, f"has {name} = {found}, but {first.label} has {expected}")
            if len(group) > 1 and (part.n * part.k) % part.block:
                raise argument_error(part.label, f"has N * K = {part.n * part.k}, not a multiple of its blocksize {part.block}")


def _check_in_place(parts):
    """In place needs Params4bit that own their bytes alone."""
    ranges = []
    for part in parts:
        if part.repacked:
            raise argument_error(part.label, "is repacked for bitsandbytes' CPU path: only inplace=False can pack it")
        if not hasattr(part.weight, "bnb_quantized"):
            raise argument_error(part.label, "is a plain Parameter (as under FSDP): only inplace=False can pack it")
        for tensor in (part.codes, part.absmax):
            start = tensor.data_ptr()
            ranges.append((start, start + tensor.numel() * tensor.element_size(), part.label))
    ranges.sort()
    for (_, end, one), (start, _, other) in zip(ranges, ranges[1:]):
        if start < end:
            raise argument_error(other, f"shares memory with {one}: only inplace=False can pack it")


def _template(state, part):
    """The QuantState without its absmax; second-level tensors are copied, so that later changes to the source do no harm."""
    template = copy.copy(state)
    template.absmax = None
    template = copy.deepcopy(template)
    if part.repacked:
        template.dtype = part.dtype
        for name in [n for n in vars(template) if n.startswith("original_") or n == "packing_format_for_cpu"]:
            delattr(template, name)
    return template


def _pack_bnb(source, inplace, codec, layout):
    groups, form = _read_source(source, inplace)
    _check_alike(groups)
    parts = [part for group in groups for part in group]
    first = parts[0]
    codec = _codec(codec, first.state.quant_type)
    for part in parts:
        check_table(part, codec)
    if inplace:
        _check_in_place(parts)

    stacked = form == "one" and first.stacked
    experts = first.experts if stacked else len(groups)
    n, k = sum(p.n for p in groups[0]), first.k
    size, count = n * k // 2, -(-n * k // first.block)
    records, codes, scales = [], [], []
    if not inplace:
        all_codes = torch.empty(experts * size, dtype=torch.uint8)
        _quern.advise_huge_pages(all_codes.data_ptr(), all_codes.numel())
    all_scales = torch.empty(experts * count, dtype=torch.float32)
    for e, group in enumerate(groups):
        at = e * size
        for part in group:
            record = _Record(part, e, at - e * size, _template(part.state, part))
            place = all_scales[at * 2 // part.block if len(group) > 1 else e * count :][: part.absmax.numel()]
            if part.nested:
                record.nested = Nested.expand(part.state, part.absmax, place)
            elif inplace:
                place = part.absmax
            else:
                place.copy_(part.absmax)
            if not inplace:
                all_codes[at : at + part.codes.numel()].copy_(part.codes)
            at += part.codes.numel()
            records.append(record)
        if inplace:
            codes.extend(part.codes.split(size))
            scales.extend(place.split(count))
    if not inplace:
        codes, scales = list(all_codes.split(size)), list(all_scales.split(count))

    shape = (n, k) if form == "one" and not stacked else (experts, n, k)
    packed = Packed(codec, shape, first.block, first.dtype, codes, scales, [], _BnbOrigin(records, form), inplace, "source")
    for record in records:
        part = record.part
        if inplace:
            restore = lambda r=record: packed._origin.codes_and_state(packed, r)  # noqa: E731
            record.mark = hold(part.weight, part.module, part.state, packed, restore)
            if record.nested:
                part.state.absmax = None
        else:
            part.module = part.state = None
        part.codes = part.absmax = None
    return packed.to(layout or "cpu")


def _raw_tensor(value, name, dtype, count, experts, inplace):
    """One flat tensor per expert (views when in place, else a fresh copy), from one tensor or a list of E."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    for i, item in enumerate(items):
        label = f"{name}[{i}]" if isinstance(value, (list, tuple)) else name
        if not isinstance(item, torch.Tensor):
            raise argument_error(label, f"found {type(item).__name__}, expected a tensor", ArgumentTypeError)
        if item.device.type not in ("cpu", "cuda"):
            raise argument_error(label, f"is on '{item.device}', expected 'cpu' or 'cuda'")
        if item.dtype is getattr(torch, "float8_e8m0fnu", None) and dtype is torch.uint8:
            items[i] = item = item.view(torch.uint8)
        if item.dtype is not dtype:
            raise argument_error(label, f"found {item.dtype}, expected {dtype}", ArgumentTypeError)
        if inplace and not item.is_contiguous():
            raise argument_error(label, "is not contiguous, and inplace=True needs it to be")
        expected = count if len(items) == experts and isinstance(value, (list, tuple)) else count * experts
        if item.numel() != expected or len(items) not in (1, experts):
            total = sum(x.numel() for x in items)
            raise argument_error(name, f"holds {total} elements, but the shape needs {count * experts} ({experts} experts of {count})")
    flat = [item.detach().reshape(-1) for item in items]
    if not inplace:
        flat = [torch.cat(flat) if len(flat) > 1 else flat[0].clone()]
    return [piece for tensor in flat for piece in tensor.split(count)]


def _pack_raw(codes, absmax, shape, blocksize, codec, dtype, zeros, inplace, layout):
    for name, value in (("absmax", absmax), ("shape", shape), ("codec", codec)):
        if value is None:
            raise argument_error(name, "is required with codes", ArgumentTypeError)
    codec = _codec(codec)
    shape = tuple(int(d) for d in shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise argument_error("shape", f"found {shape}, expected [N, K] or [E, N, K] with positive dimensions")
    if shape[-1] % 2:
        raise argument_error("shape", f"has odd K = {shape[-1]}, expected an even one: two codes share a byte")
    blocksize = codec.block if blocksize is None else blocksize
    if blocksize not in BLOCKSIZES:
        raise argument_error("blocksize", f"found {blocksize}, expected a power of two in 32..4096")
    dtype = torch.bfloat16 if dtype is None else dtype
    dtype_code(dtype)
    experts, (n, k) = (shape[0] if len(shape) == 3 else 1), shape[-2:]
    if (zeros is not None) != codec.has_zero:
        raise argument_error("zeros", f"codec '{codec.name}' {'needs' if codec.has_zero else 'has no'} zeros")
    count = -(-n * k // blocksize)
    flat_codes = _raw_tensor(codes, "codes", torch.uint8, n * k // 2, experts, inplace)
    flat_scales = _raw_tensor(absmax, "absmax", _SCALE_DTYPE[codec.scale], count, experts, inplace)
    flat_zeros = [] if zeros is None else _raw_tensor(zeros, "zeros", torch.uint8, count, experts, inplace)
    for piece in flat_zeros:
        if int(piece.max()) > 15:
            raise argument_error("zeros", f"holds {int(piece.max())}, expected 0..15")
    common_device([(name, t.device) for name, group in (("codes", flat_codes), ("absmax", flat_scales), ("zeros", flat_zeros)) for t in group])
    layout = layout or ("gpu" if flat_codes[0].is_cuda else "cpu")
    origin = _RawOrigin((codes, absmax, zeros))
    return Packed(codec, shape, blocksize, dtype, flat_codes, flat_scales, flat_zeros, origin, inplace, "codes").to(layout)


def pack(
    source=None, *, inplace=False, layout=None, codec=None, codes=None, absmax=None, shape=None, blocksize=None, dtype=None, zeros=None
):
    """Makes a quern.Packed: bitsandbytes' bytes, re-tiled reversibly for kernels. Bytes and scales keep their exact values.

    From bitsandbytes (nf4 or fp4, flat or nested absmax, any quant_storage), frozen and on the CPU:
        source: a list of E Linear4bit (or 2-D Params4bit), all alike -> [E, N, K]; an item may itself be a list of weights,
            which are joined along N (gate, then up). One stacked Params4bit with quant_state.shape [E, N, K] -> [E, N, K].
            One Linear4bit or 2-D Params4bit -> [N, K].
        Nested absmax is expanded once to float32; what restores it exactly is kept (9 % more bytes at block 64).
        Weights that bitsandbytes repacked for its CPU path have lost their exact scales and are refused.
    From raw tensors, all on the CPU or all on one CUDA device:
        codes: uint8, E*N*K/2 bytes in row-major order; absmax: one scale per block (float32, bfloat16 or, for e8m0, uint8);
        each one tensor, or a list of E. Each expert's blocks are its own; the last may be short. shape: [N, K] or [E, N, K]. codec: name of a shipped one ("nf4", "fp4", "mxfp4", "int4")
        or a Codec of a module. blocksize: default the codec's. dtype: what decoded values are rounded to, default bfloat16.
        zeros: uint8 0..15, one per block, for codecs that have them.

    inplace: False copies. True re-tiles the source's own storage: no second copy of the codes exists. The weights are then held:
        any use of one raises quern.PackedInPlaceError until quern.unpack; state_dict() still saves bitsandbytes' own bytes.
    layout: 'cpu', 'gpu' or 'bnb'; default the device's own. On a CUDA device re-tiling runs there, on torch's current stream.

    Raises: ArgumentError or ArgumentTypeError naming the item; nothing has changed then.
    """
    if layout is not None:
        layout_code(layout)
    raw = {"absmax": absmax, "shape": shape, "blocksize": blocksize, "dtype": dtype, "zeros": zeros}
    if (source is None) == (codes is None):
        raise argument_error("source", "give either source (bitsandbytes) or codes (raw tensors), not both and not neither", ArgumentTypeError)
    if codes is not None:
        return _pack_raw(codes, absmax, shape, blocksize, codec, dtype, zeros, inplace, layout)
    for name, value in raw.items():
        if value is not None:
            raise argument_error(name, "belongs to raw tensors; bitsandbytes weights bring their own", ArgumentTypeError)
    return _pack_bnb(source, inplace, codec, layout)


def unpack(packed):
    """The inverse of quern.pack: the exact bytes, absmax and nested state.

    Packed with inplace=False: returns fresh copies and leaves `packed` as it is. For a list: a list of (codes, QuantState) (tuples of
    them for joined weights); for one weight: (codes, QuantState); for raw tensors: RawWeights(codes, absmax, zeros).
    Packed with inplace=True: restores the source, which works again as before, and returns its modules, weights or tensors; `packed`
    is no longer usable.
    """
    if not isinstance(packed, Packed):
        raise argument_error("packed", f"found {type(packed).__name__}, expected quern.Packed", ArgumentTypeError)
    packed._handle()
    if not packed.inplace:
        return packed._origin.result(packed)
    packed.to("bnb")
    source = packed._origin.release(packed)
    packed._native = None
    return source
