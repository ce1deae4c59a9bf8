"""quern.checkpoint on files that bitsandbytes' own modules wrote, in the three published layouts."""

import json

import pytest
import torch
from helpers import assert_same_values, dequantize, linear4bit, seeded
from safetensors.torch import load_file, save_file

import quern

E, H, I = 3, 64, 96


def write(folder, kind, *, layer=2, nested=True, quant_type="nf4", shards=1, drop=(), change=None, name="model"):
    """Writes a checkpoint of one layer; returns (path, {module name: module})."""
    generator = seeded(layer)
    bias = kind == "gpt_oss"
    shapes = {
        "gpt_oss": {"mlp.experts.gate_up_projs.{e}": (2 * I, H), "mlp.experts.down_projs.{e}": (H, I)},
        "qwen3": {"mlp.experts.{e}.gate_proj": (I, H), "mlp.experts.{e}.up_proj": (I, H), "mlp.experts.{e}.down_proj": (H, I)},
        "mixtral": {f"block_sparse_moe.experts.{{e}}.{w}": (H, I) if w == "w2" else (I, H) for w in ("w1", "w2", "w3")},
    }[kind]
    modules, tensors = {}, {"model.embed_tokens.weight": torch.zeros(4, 4)}
    for e in range(E):
        for pattern, (n, k) in shapes.items():
            key = f"model.layers.{layer}.{pattern.format(e=e)}"
            modules[key] = linear4bit(n, k, generator, nested=nested, quant_type=quant_type, bias=bias)
            tensors.update({f"{key}.{part}": value.contiguous() for part, value in modules[key].state_dict().items()})
    for key in drop:
        del tensors[key]
    if change:
        change(tensors)
    if shards == 1:
        path = folder / f"{name}.safetensors"
        save_file(tensors, path)
        return path, modules
    index = {}
    for i in range(shards):
        part = {k: v for j, (k, v) in enumerate(sorted(tensors.items())) if j % shards == i}
        save_file(part, folder / f"model-{i}.safetensors")
        index.update(dict.fromkeys(part, f"model-{i}.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder, modules


def decoded(modules, pattern):
    out = [modules[pattern.format(e=e)] for e in range(E)]
    return torch.stack([dequantize(m.weight.data, m.weight.quant_state) for m in out])


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_gpt_oss(tmp_path, nested, quant_type, shards):
    path, modules = write(tmp_path, "gpt_oss", nested=nested, quant_type=quant_type, shards=shards)
    assert quern.checkpoint.layers(path) == [2]
    experts = quern.checkpoint.load_experts(path, 2)
    assert (experts.kind, experts.kernels, experts.prefix) == ("gpt_oss", "gpt_oss.qn", "model.layers.2.mlp.experts")
    assert experts.gate_up.shape == (E, 2 * I, H) and experts.down.shape == (E, H, I)
    assert_same_values(experts.gate_up.dequantize(), decoded(modules, "model.layers.2.mlp.experts.gate_up_projs.{e}"))
    assert_same_values(experts.down.dequantize(), decoded(modules, "model.layers.2.mlp.experts.down_projs.{e}"))
    bias = torch.stack([modules[f"model.layers.2.mlp.experts.gate_up_projs.{e}"].bias for e in range(E)])
    assert torch.equal(experts.gate_up_bias, bias) and experts.down_bias.shape == (E, H)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("kind", ["qwen3", "mixtral"])
def test_per_expert_layouts(tmp_path, kind, nested):
    path, modules = write(tmp_path, kind, nested=nested)
    prefix, gate, up, down = {
        "qwen3": ("model.layers.2.mlp.experts.{e}.", "gate_proj", "up_proj", "down_proj"),
        "mixtral": ("model.layers.2.block_sparse_moe.experts.{e}.", "w1", "w3", "w2"),
    }[kind]
    experts = quern.checkpoint.load_experts(str(path), 2, layout="gpu")
    assert experts.kind == kind and experts.gate_up_bias is None and experts.down_bias is None and experts.gate_up.layout == "gpu"
    expected = torch.cat([decoded(modules, prefix + gate), decoded(modules, prefix + up)], dim=1)
    assert_same_values(experts.gate_up.dequantize(), expected)
    assert_same_values(experts.down.dequantize(), decoded(modules, prefix + down))
    (codes, state), _ = quern.unpack(experts.gate_up)[1]
    original = modules[prefix.format(e=1) + gate].weight
    assert torch.equal(codes, original.data) and state == original.quant_state


def test_a_packed_module_saves_what_it_loaded(tmp_path):
    path, modules = write(tmp_path, "gpt_oss")
    before = load_file(path)
    source = [modules[f"model.layers.2.mlp.experts.down_projs.{e}"] for e in range(E)]
    packed = quern.pack(source, inplace=True)
    again = {f"{k}.{part}": v.contiguous() for k, m in modules.items() for part, v in m.state_dict().items()}
    save_file(again, tmp_path / "again.safetensors")
    after = load_file(tmp_path / "again.safetensors")
    assert all(torch.equal(after[k], before[k]) for k in after) and len(after) == len(before) - 1
    quern.unpack(packed)


def test_missing_keys_are_listed(tmp_path):
    base = "model.layers.2.mlp.experts.gate_up_projs.1"
    path, _ = write(tmp_path, "gpt_oss", drop=[f"{base}.weight.absmax", f"{base}.bias", "model.layers.2.mlp.experts.down_projs.0.weight"])
    with pytest.raises(quern.ArgumentError) as caught:
        quern.checkpoint.load_experts(path, 2)
    text = str(caught.value)
    assert "layer 2" in text and "3 keys" in text and f"{base}.weight.absmax" in text and f"{base}.bias" in text
    assert "down_projs.0.weight" in text


def test_a_missing_quant_state(tmp_path):
    path, _ = write(tmp_path, "qwen3", drop=[f"model.layers.2.mlp.experts.{e}.up_proj.weight.quant_state.bitsandbytes__nf4" for e in range(E)])
    with pytest.raises(quern.ArgumentError, match=r"3 keys .*up_proj.weight.quant_state.bitsandbytes__nf4.* missing"):
        quern.checkpoint.load_experts(path, 2)


def test_a_damaged_quant_state(tmp_path):
    key = "model.layers.2.mlp.experts.down_projs.0.weight.quant_state.bitsandbytes__nf4"
    path, _ = write(tmp_path, "gpt_oss", change=lambda t: t.update({key: torch.zeros(7, dtype=torch.uint8)}))
    with pytest.raises(quern.ArgumentError, match="the quantization state of .*down_projs.0.weight' is damaged"):
        quern.checkpoint.load_experts(path, 2)


def test_scales_rounded_by_an_eval_forward_are_refused(tmp_path):
    key = "model.layers.2.mlp.experts.down_projs.1.weight.absmax"
    path, _ = write(tmp_path, "gpt_oss", nested=False, change=lambda t: t.update({key: t[key].bfloat16()}))
    with pytest.raises(quern.ArgumentError, match=r"'source\[1\]': has lost its exact scales"):
        quern.checkpoint.load_experts(path, 2)


def test_no_such_layer(tmp_path):
    path, _ = write(tmp_path, "gpt_oss")
    with pytest.raises(quern.ArgumentError, match=r"has no 4-bit experts of layer 5; layers with experts: \[2\]"):
        quern.checkpoint.load_experts(path, 5)
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(quern.ArgumentError, match="it holds no experts in a known layout"):
        quern.checkpoint.load_experts(tmp_path / "other.safetensors", 0)


def test_bad_files(tmp_path):
    with pytest.raises(quern.ArgumentError, match="there is no '.*nothing'"):
        quern.checkpoint.load_experts(tmp_path / "nothing", 0)
    with pytest.raises(quern.ArgumentError, match="holds no .safetensors file"):
        quern.checkpoint.load_experts(tmp_path, 0)
    (tmp_path / "bad.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(quern.RuntimeFailure, match="cannot be read as safetensors"):
        quern.checkpoint.load_experts(tmp_path / "bad.safetensors", 0)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(quern.RuntimeFailure, match="not an index"):
        quern.checkpoint.load_experts(index, 0)
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(quern.ArgumentError, match=r"1 shards \(.*gone.safetensors\) is missing"):
        quern.checkpoint.load_experts(tmp_path, 0)


def test_two_layers_read_only_one(tmp_path, monkeypatch):
    write(tmp_path, "gpt_oss", layer=0, name="a")
    write(tmp_path, "gpt_oss", layer=1, name="b")
    assert quern.checkpoint.layers(tmp_path) == [0, 1]
    read = []
    original = quern.checkpoint._Files.read
    monkeypatch.setattr(quern.checkpoint._Files, "read", lambda self, key: read.append(key) or original(self, key))
    quern.checkpoint.load_experts(tmp_path, 1)
    assert read and all(".layers.1." in key for key in read)
