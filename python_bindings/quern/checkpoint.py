"""Experts of published bitsandbytes 4-bit checkpoints (safetensors), one layer at a time.

    experts = quern.checkpoint.load_experts("unsloth-gpt-oss-20b-bnb-4bit/", layer=3)
    mod = quern.load(experts.kernels)
    h = mod.gate_up(x, route, experts.gate_up, experts.gate_up_bias)
    y = mod.down(h, route, experts.down, experts.down_bias)

Layouts, by their keys (e = expert, P.weight comes with .absmax, .quant_map, .quant_state.bitsandbytes__nf4 and, when nested,
.nested_absmax and .nested_quant_map):
    gpt_oss   ...layers.L.mlp.experts.{gate_up_projs,down_projs}.e.{weight,bias}      rows of gate and up interleaved
    qwen3     ...layers.L.mlp.experts.e.{gate_proj,up_proj,down_proj}.weight           joined: gate, then up
    mixtral   ...layers.L.block_sparse_moe.experts.e.{w1,w3,w2}.weight                 joined: w1 (gate), then w3 (up)
"""

import contextlib
import json
import os
import re
from dataclasses import dataclass

import torch

from ._pack import pack
from ._packed import Packed
from .errors import ArgumentError, RuntimeFailure, argument_error

__all__ = ["Experts", "Weights", "layers", "load_experts", "read_experts"]

# kind -> (pattern of an expert's weight, gate/up projections in the order they are joined, down projection, name of one matrix)
_LAYOUTS = {
    "gpt_oss": (r"^(.*\blayers\.(\d+)\.mlp\.experts)\.(gate_up_projs|down_projs)\.(\d+)\.weight$", ["gate_up_projs"], "down_projs", "{p}.{e}"),
    "qwen3": (r"^(.*\blayers\.(\d+)\.mlp\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight$", ["gate_proj", "up_proj"], "down_proj", "{e}.{p}"),
    "mixtral": (r"^(.*\blayers\.(\d+)\.block_sparse_moe\.experts)\.(\d+)\.(w1|w2|w3)\.weight$", ["w1", "w3"], "w2", "{e}.{p}"),
}  # fmt: skip


@dataclass
class Experts:
    """The experts of one layer.

    Attributes:
        kind: 'gpt_oss', 'qwen3' or 'mixtral'.
        gate_up: quern.Packed [E, 2I, H]; gpt_oss: gate and up rows interleaved, else gate rows first.
        down: quern.Packed [E, H, I].
        gate_up_bias: tensor [E, 2I], or None. down_bias: tensor [E, H], or None.
        layer, prefix: where they were found.
    """

    kind: str
    gate_up: Packed
    down: Packed
    gate_up_bias: torch.Tensor | None
    down_bias: torch.Tensor | None
    layer: int
    prefix: str

    @property
    def kernels(self):
        """Name of the shipped .qn file whose gate_up and down kernels compute this kind of layer."""
        return self.kind + ".qn"


class _Files:
    """Tensors of one or more safetensors files by key, each read when asked for."""

    def __init__(self, path, stack):
        from safetensors import SafetensorError, safe_open

        self._open = {}
        self.where = {}  # key -> file
        for file in _shards(path):
            try:
                handle = stack.enter_context(safe_open(file, framework="pt", device="cpu"))
            except (OSError, SafetensorError) as error:
                raise RuntimeFailure(f"{file}: cannot be read as safetensors: {error}", place=file) from error
            self._open[file] = handle
            self.where.update(dict.fromkeys(handle.keys(), file))

    def read(self, key):
        return self._open[self.where[key]].get_tensor(key)


def _shards(path):
    """Files of a checkpoint: a .safetensors file, an index (.json), or a folder with either."""
    path = os.fspath(path)
    if os.path.isdir(path):
        index = os.path.join(path, "model.safetensors.index.json")
        if os.path.isfile(index):
            return _shards(index)
        files = sorted(os.path.join(path, f) for f in os.listdir(path) if f.endswith(".safetensors"))
        if not files:
            raise argument_error("path", f"'{path}' holds no .safetensors file")
        return files
    if not os.path.isfile(path):
        raise argument_error("path", f"there is no '{path}'")
    if not path.endswith(".json"):
        return [path]
    try:
        with open(path, encoding="utf-8") as file:
            names = sorted(set(json.load(file)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeFailure(f"{path}: not an index of safetensors files: {error!r}", place=path) from error
    files = [os.path.join(os.path.dirname(path), name) for name in names]
    missing = [f for f in files if not os.path.isfile(f)]
    if missing:
        raise ArgumentError(f"{path}: {_listed('shards', missing)} missing", place=path)
    return files


def _listed(what, items, limit=8):
    """'3 keys (a, b, c) are', cut after `limit` items."""
    shown = ", ".join(items[:limit]) + (f", and {len(items) - limit} more" if len(items) > limit else "")
    return f"{len(items)} {what} ({shown}) {'is' if len(items) == 1 else 'are'}"


def _found(keys):
    """{layer: (kind, prefix, number of experts)} of everything that looks like 4-bit experts."""
    out = {}
    for key in keys:
        if ".experts." not in key or not key.endswith(".weight"):
            continue
        for kind, (pattern, gate_up, down, _) in _LAYOUTS.items():
            match = re.match(pattern, key)
            if match:
                prefix, layer = match[1], int(match[2])
                expert = int(match[4] if kind == "gpt_oss" else match[3])
                experts = out.get(layer, (kind, prefix, 0))[2]
                out[layer] = (kind, prefix, max(experts, expert + 1))
    return out


def layers(path: "str | os.PathLike") -> "list[int]":
    """Numbers of the layers of a checkpoint that hold experts in a known layout, ascending."""
    with contextlib.ExitStack() as stack:
        return sorted(_found(_Files(path, stack).where))


def _read_weight(files, key):
    """A Params4bit from the tensors P.weight and P.weight.*; bitsandbytes itself rebuilds the QuantState."""
    from bitsandbytes.nn import Params4bit

    states = [k for k in files.where if k.startswith(key + ".")]
    stats = {k[len(key) + 1 :]: files.read(k) for k in states}
    try:
        return Params4bit.from_prequantized(files.read(key), stats, requires_grad=False, device="cpu")
    except (ValueError, KeyError, AssertionError, AttributeError) as error:
        raise ArgumentError(f"{files.where[key]}: the quantization state of '{key}' is damaged: {error!r}", place=key) from error


def _missing(files, weights, biases):
    """Keys that a complete layer has and this one has not."""
    missing = []
    for weight in weights:
        missing += [k for k in (weight, weight + ".absmax", weight + ".quant_map") if k not in files.where]
        states = [weight + ".quant_state.bitsandbytes__" + t for t in ("nf4", "fp4")]
        if not any(k in files.where for k in states):
            missing.append(states[0])
        nested = [weight + ".nested_absmax", weight + ".nested_quant_map"]
        if any(k in files.where for k in nested):
            missing += [k for k in nested if k not in files.where]
    if any(b in files.where for b in biases):
        missing += [b for b in biases if b not in files.where]
    return missing


@dataclass
class Weights:
    """One layer's experts as bitsandbytes holds them, not packed.

    gate_up: per expert a list of Params4bit that are joined along N (one for gpt_oss). down: one Params4bit per expert.
    Biases as in Experts.
    """

    kind: str
    gate_up: list
    down: list
    gate_up_bias: torch.Tensor | None
    down_bias: torch.Tensor | None
    layer: int
    prefix: str

    def pack(self, *, inplace: bool = False, layout: str = "cpu") -> Experts:
        """quern.pack of gate_up and down: Experts."""
        joined = len(self.gate_up[0]) > 1
        gate_up = pack(self.gate_up if joined else [group[0] for group in self.gate_up], inplace=inplace, layout=layout)
        down = pack(self.down, inplace=inplace, layout=layout)
        return Experts(self.kind, gate_up, down, self.gate_up_bias, self.down_bias, self.layer, self.prefix)


def read_experts(path: "str | os.PathLike", layer: int) -> Weights:
    """Reads the experts of one layer as bitsandbytes' own Params4bit; only that layer's tensors are read.

    Arguments and errors as for load_experts. Returns: Weights.
    """
    with contextlib.ExitStack() as stack:
        files = _Files(path, stack)
        found = _found(files.where)
        if layer not in found:
            have = f"layers with experts: {sorted(found)}" if found else "it holds no experts in a known layout (gpt_oss, qwen3, mixtral)"
            raise argument_error("layer", f"'{os.fspath(path)}' has no 4-bit experts of layer {layer}; {have}")
        kind, prefix, experts = found[layer]
        _, gate_up, down, form = _LAYOUTS[kind]

        def names(projection):
            return [f"{prefix}.{form.format(p=projection, e=e)}" for e in range(experts)]

        every = [name for projection in (*gate_up, down) for name in names(projection)]
        missing = _missing(files, [n + ".weight" for n in every], [n + ".bias" for n in every])
        if missing:
            raise ArgumentError(
                f"layer {layer} of '{os.fspath(path)}' ({kind}, {experts} experts) is incomplete: {_listed('keys', missing)} missing",
                place=os.fspath(path),
            )

        def weights(projection):
            return [_read_weight(files, n + ".weight") for n in names(projection)]

        def bias(projections):
            if names(projections[0])[0] + ".bias" not in files.where:
                return None
            return torch.cat([torch.stack([files.read(n + ".bias") for n in names(p)]) for p in projections], dim=1)

        joined = [list(group) for group in zip(*[weights(p) for p in gate_up])]
        return Weights(kind, joined, weights(down), bias(gate_up), bias([down]), layer, prefix)


def load_experts(path: "str | os.PathLike", layer: int, *, layout: str = "cpu") -> Experts:
    """Reads and packs the experts of one layer; only that layer's tensors are read.

    path: a .safetensors file, a folder of a model, or its model.safetensors.index.json. layer: int.
    Returns: Experts.
    Raises: ArgumentError when the layer or keys are missing (they are listed), or when a weight is unusable (quern.pack's rules:
        absmax that bitsandbytes had rounded to bfloat16 is refused); RuntimeFailure when a file cannot be read.
    """
    return read_experts(path, layer).pack(layout=layout)
