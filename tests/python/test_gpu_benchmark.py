"""benchmarks/gpu_grouped.py where no GPU is: options, shapes, routings, peers that run on the CPU, and the Triton kernels interpreted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu_cases  # noqa: E402
import gpu_goals  # noqa: E402
import gpu_grouped  # noqa: E402
import gpu_predictions  # noqa: E402
import gpu_timing  # noqa: E402
import peers  # noqa: E402
from peers import nf4, triton_peers  # noqa: E402
from peers.torch_peers import DequantizeGrouped, Loop, Resident  # noqa: E402

import quern  # noqa: E402

CPU = torch.device("cpu")
TINY = gpu_cases.SHAPES["tiny"]


def case(projection, tokens=20, skew="zipf", shape=TINY):
    return gpu_cases.Case(shape, projection, tokens, skew, 7, CPU, gpu_cases.make_stacks(shape, [projection], CPU, 3))


def test_shapes_are_those_of_the_models():
    facts = {name: (s.experts, s.top_k, s.matrix("gate_up"), s.matrix("down")) for name, s in gpu_cases.SHAPES.items() if name != "tiny"}
    assert facts == {
        "gpt-oss-20b": (32, 4, (5760, 2880), (2880, 2880)),
        "gpt-oss-120b": (128, 4, (5760, 2880), (2880, 2880)),
        "qwen3-30b-a3b": (128, 8, (1536, 2048), (2048, 768)),
        "mixtral-8x7b": (8, 2, (28672, 4096), (4096, 14336)),
    }


def test_the_table_is_the_shipped_codec():
    assert torch.equal(torch.tensor(nf4.TABLE), torch.tensor(quern.load("nf4").codecs["nf4"].table))


@pytest.mark.parametrize("skew", ["uniform", "zipf"])
@pytest.mark.parametrize("tokens, experts, top_k", [(1, 8, 2), (500, 32, 4), (64, 128, 8)])
def test_routing_draws_without_replacement(tokens, experts, top_k, skew):
    ids, weights = gpu_cases.route(tokens, experts, top_k, skew, 5)
    assert ids.shape == weights.shape == (tokens, top_k) and 0 <= int(ids.min()) and int(ids.max()) < experts
    assert all(len(set(row.tolist())) == top_k for row in ids)
    torch.testing.assert_close(weights.sum(-1), torch.ones(tokens))
    again = gpu_cases.route(tokens, experts, top_k, skew, 5)
    assert torch.equal(ids, again[0]) and not torch.equal(ids, gpu_cases.route(tokens, experts, top_k, skew, 6)[0])


def test_zipf_is_skewed_and_uniform_is_not():
    share = {}
    for skew in ("uniform", "zipf"):
        count = gpu_cases.route(4000, 32, 4, skew, 1)[0].flatten().bincount(minlength=32).sort(descending=True).values
        share[skew] = float(count[0]) / float(count.float().mean())
    assert share["uniform"] < 1.2 and share["zipf"] > 4


def test_case_rows_are_sorted_stably_like_a_quern_routing():
    c = case("gate_up")
    route = quern.routing(c.ids, c.weights, num_experts=TINY.experts)
    assert torch.equal(route.offsets, c.offsets.long()) and torch.equal(route.row_token, c.row_token)
    assert torch.equal(route.row_weight, c.row_weight) and c.rows == route.rows == 40


def test_data_are_random_and_cover_all_bytes():
    stack = nf4.random_stack(4, 128, 128, bias=False, device=CPU, generator=torch.Generator().manual_seed(0))
    assert len(stack.codes.unique()) == 256 and float(stack.absmax.min()) > 0
    assert stack.dense().std() > 0.01


def test_dequantize_equals_the_packages():
    stack = case("gate_up").stacks["gate_up"]
    packed = quern.pack(codes=stack.codes, absmax=stack.absmax, shape=(stack.experts, stack.n, stack.k), codec="nf4", blocksize=64)
    assert torch.equal(stack.dense().view(torch.int16), quern.dequantize(packed).view(torch.int16))


@pytest.mark.parametrize("projection", gpu_cases.PROJECTIONS)
def test_peers_agree_with_the_reference_and_a_wrong_one_does_not(projection):
    c = case(projection)
    stack = c.used_stacks()[0]
    codes = torch.stack([stack.codes >> 4, stack.codes & 15], -1).view(stack.experts, stack.n, stack.k)
    weight = (torch.tensor(nf4.TABLE)[codes.long()].view(-1, 64) * stack.absmax.view(-1, 1)).bfloat16().view_as(codes)
    by_hand = torch.stack([row.double() @ weight[e].double().t() for row, e in zip(c.sorted_rows(), c.row_expert)])
    torch.testing.assert_close(c.product(stack, c.sorted_rows()).double(), by_hand, rtol=1e-4, atol=1e-5)
    expected = c.expected(projection == "layer")
    gate = gpu_grouped.LAYER_GATE if projection == "layer" else gpu_grouped.GATE
    for peer in (Resident(), DequantizeGrouped(), Loop()):
        assert peer.unavailable(c) is None
        found = peer.call(c)()
        assert gpu_cases.tile_error(found, expected) <= gate, peer.name
        assert gpu_cases.tile_error(found.roll(1, 0), expected) > 0.1
    damaged = found.clone()
    damaged[-1, -1] = float("nan")
    assert gpu_cases.tile_error(damaged, expected) == float("inf")
    assert gpu_cases.tile_error(found[:, :-1], expected) == float("inf")


@pytest.mark.parametrize("projection", gpu_cases.PROJECTIONS)
@pytest.mark.parametrize("kind", ["gpt_oss", "qwen3", "mixtral"])
def test_the_quern_adapter_computes_what_it_stands_for(projection, kind):
    shape = gpu_cases.Shape("small", kind, 4, 2, 128, 64, bias=kind == "gpt_oss")
    c = case(projection, shape=shape)
    quern_peer = peers.all_peers()[0]
    assert quern_peer.unavailable(c) is None and quern_peer.name == "quern"
    assert gpu_cases.tile_error(quern_peer.call(c)(), c.expected(True)) <= gpu_grouped.QUERN_GATES[projection]


INTERPRET = """
import sys; sys.path.insert(0, sys.argv[1])
import torch, gpu_cases
from peers import triton_nf4 as t
c = gpu_cases.Case(gpu_cases.SHAPES["tiny"], "gate_up", 20, "zipf", 7, torch.device("cpu"),
                   gpu_cases.make_stacks(gpu_cases.SHAPES["tiny"], ["gate_up"], torch.device("cpu"), 3))
stack, x = c.stacks["gate_up"], c.sorted_rows().float()
ends = c.offsets.tolist()
scales = stack.absmax.repeat_interleave(64, -1).view(4, stack.n, stack.k)
codes = stack.codes.int()
w = stack.table[torch.stack([codes >> 4, codes & 15], -1)].view(4, stack.n, stack.k) * scales
expected = torch.cat([x[a:b] @ w[e].t() for e, (a, b) in enumerate(zip(ends, ends[1:]))])
for swap in (False, True):
    torch.testing.assert_close(t.interpreted(x, stack, c.offsets, swap), expected, rtol=1e-4, atol=1e-4)
out = t.dequantize(stack.codes, stack.absmax, stack.table, torch.empty(4, stack.n, stack.k, dtype=torch.bfloat16))
# The interpreter cuts off where a GPU rounds: one unit in the last place.
assert int((out.view(torch.int16).int() - stack.dense().view(torch.int16).int()).abs().max()) <= 1
"""


@pytest.mark.skipif(triton_peers.missing is not None, reason=str(triton_peers.missing))
def test_triton_kernels_interpreted():
    environment = dict(os.environ, TRITON_INTERPRET="1")
    done = subprocess.run([sys.executable, "-c", INTERPRET, str(BENCHMARKS)], env=environment, capture_output=True, text=True)
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this Triton's interpreter does not work with this NumPy")
    assert done.returncode == 0, done.stderr[-3000:]


def test_cpu_self_test_writes_a_record_of_everything(tmp_path, capsys):
    file = tmp_path / "out.json"
    status = gpu_grouped.main(["--device", "cpu", "--models", "tiny", "--tokens", "1,33", "--rounds", "2", "--routing", "zipf", "--json", str(file)])
    text = capsys.readouterr().out
    assert status == 0 and "figures mean nothing" in text and "WRONG" not in text
    result = json.loads(file.read_text())
    assert [r["case"] for r in result["records"]] == [f"tiny/{p}/T{t}/zipf" for p in gpu_cases.PROJECTIONS for t in (1, 33)]
    record = result["records"][1]
    assert record["rows"] == 66 and record["flops"] == 2 * 66 * 128 * 128 and set(record["left_out"]) == {"triton"}
    assert {"quern", "grouped_mm", "dequant+gmm", "loop", "dense"} == set(record["peers"])
    assert {"us", "host_us", "p20", "p80", "samples", "tflops", "gbps", "roofline", "error"} == set(record["peers"]["quern"])
    assert result["machine"]["commit"] and result["tensor_flops"] > 0


def test_a_wrong_peer_is_reported_and_fails_the_run(monkeypatch, capsys):
    monkeypatch.setattr(Loop, "project", lambda self, stack, rows, c: Resident().project(stack, rows.roll(1, 0), c))
    options = ["--device", "cpu", "--models", "tiny", "--tokens", "16", "--rounds", "1", "--peers", "grouped_mm,loop", "--only", "*/down/*/uniform"]
    assert gpu_grouped.main(options) == 1
    assert "WRONG: tiny/down/T16/uniform loop" in capsys.readouterr().out


def test_a_peer_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    def broken(self, c):
        raise RuntimeError("no such kernel\nsecond line")

    monkeypatch.setattr(Loop, "call", broken)
    options = ["--device", "cpu", "--models", "tiny", "--tokens", "4", "--rounds", "1", "--peers", "grouped_mm,loop", "--only", "*/down/*/uniform"]
    assert gpu_grouped.main(options) == 0
    assert "loop        left out: RuntimeError: no such kernel\n" in capsys.readouterr().out


def test_options():
    parse = gpu_grouped.arguments
    assert len(parse([]).plan) == 4 * 3 * 2 * 8 and "tiny" not in parse([]).models
    quick = parse(["--quick"])
    assert len(quick.plan) == 12 and quick.rounds == 20
    assert [gpu_cases.label(*c) for c in parse(["--quick", "--only", "*/down/T64/*"]).plan] == ["gpt-oss-20b/down/T64/uniform"]
    assert parse(["--quick", "--tokens", "7"]).tokens == [7]


@pytest.mark.parametrize(
    "given, message",
    [
        (["--models", "gpt-5"], "found 'gpt-5', expected some of gpt-oss-20b"),
        (["--peers", "marlin"], "found 'marlin', expected some of quern"),
        (["--tokens", "0"], "found 0, expected at least 1"),
        (["--tokens", ","], "found an empty list"),
        (["--rounds", "5"], "the protocol needs at least 20"),
        (["--only", "nothing"], "no case matches"),
    ],
)
def test_bad_options_say_what_was_expected(given, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu_grouped.arguments(given)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert gpu_grouped.main(["--quick"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_figures_are_medians_and_percentiles():
    figure = gpu_timing.Figure([5.0, 1.0, 2.0, 3.0, 4.0, 100.0])
    assert (figure.median, figure.percentile(0.2), figure.percentile(0.8)) == (3.5, 2.0, 5.0)


def test_rates_and_roofline_by_hand():
    c = case("down", tokens=8, skew="uniform")
    assert c.flops == 2 * 16 * 128 * 64
    assert c.least_bytes() == c.live_experts * (128 * 64 // 2 + 128 * 4) + 16 * 64 * 2 + 8 * 128 * 4
    resident, quern_peer = Resident(), peers.all_peers()[0]
    assert gpu_grouped.bytes_moved(quern_peer, c) == c.least_bytes()
    assert gpu_grouped.bytes_moved(resident, c) - c.least_bytes() == c.live_experts * 128 * 64 * (2 - 0.5625)
    record = gpu_grouped.measure(c, [resident], gpu_grouped.arguments(["--device", "cpu", "--models", "tiny", "--rounds", "1"]), (1e9, 1e12))
    assert record["roofline_us"] == pytest.approx(c.flops / 1e9 * 1e6)


EXPLAINED = """kernel      gate_up of gpt_oss.qn
predicted   the kernel alone, 32 experts
              rows  width   tiles  rounds        us  TFLOP/s   TB/s  limiter
                 1     32    1440      11     181.3      5.9   1.65  too few tiles
               512    256    5760      44    2243.6    484.6   0.39  l2
"""


def test_predictions_are_read_and_summed(monkeypatch, tmp_path):
    assert gpu_predictions.parse(EXPLAINED) == {1: 181.3, 512: 2243.6}
    # The fake shows the rows it is asked for (argument 10), by the dimensions of argument 6; broken down, it fails or shows all.
    fake = tmp_path / "quern"
    fake.write_text(
        f"#!/bin/sh\n[ $4 = down ] && [ -e {tmp_path}/broken ] && echo 'error: no such kernel' >&2 && exit 2\necho \"$6\" >>{tmp_path}/dims\n"
        f"echo '{EXPLAINED}' | if [ -e {tmp_path}/all ]; then cat; else grep -E \"predicted|^kernel|^ +${{10}} \"; fi\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("QUERN_TOOL", str(fake))
    shape = gpu_cases.SHAPES["gpt-oss-20b"]
    cases = [("a", shape, "gate_up", 32, 32), ("b", shape, "layer", 32, 32 * 512), ("c", shape, "down", 32, 32)]
    assert gpu_predictions.predictions(cases, "NVIDIA H100 80GB HBM3") == ({"a": 181.3, "b": 2 * 2243.6, "c": 181.3}, None)
    # Each call says how many rows an expert has, so that its default schedule is the call's.
    assert sorted((tmp_path / "dims").read_text().split()) == sorted(
        f"N={n},K=2880,E=32,T={32 * rows},top_k=1" for n in (5760, 2880) for rows in (1, 512)
    )
    (tmp_path / "all").touch()
    times, reason = gpu_predictions.predictions(cases[:1], "NVIDIA H100 80GB HBM3")
    assert times == {} and "shows no time for exactly 1 rows" in reason
    (tmp_path / "all").unlink()
    (tmp_path / "broken").touch()
    times, reason = gpu_predictions.predictions(cases, "NVIDIA H200")
    assert times == {"a": 181.3} and reason == "gpt_oss.down: error: no such kernel"


def test_the_prediction_stands_in_the_row_of_quern():
    c = case("down", tokens=8, skew="uniform")
    options = gpu_grouped.arguments(["--device", "cpu", "--models", "tiny", "--rounds", "1"])
    record = gpu_grouped.measure(c, [peers.all_peers()[0], Resident()], options, (1e9, 1e12), 123.4)
    rows = gpu_grouped.lines(record)
    assert rows[0].endswith("123.4") and not rows[1].endswith("123.4") and gpu_grouped.predicted(options) == ({}, None)


def test_goals():
    def record(tokens, rows, projection="down", **us):
        found = {name.replace("_plus_", "+"): {"us": value, "gbps": 3000.0} for name, value in us.items()}
        return {"case": f"c{tokens}", "model": "gpt-oss-20b", "projection": projection, "tokens": tokens, "rows_per_expert": rows, "peers": found}

    records = [
        record(4096, 512, quern=100.0, grouped_mm=99.0, dense=85.0, dequant_plus_gmm=250.0),
        record(2048, 256, quern=100.0, grouped_mm=120.0, dense=70.0),
        record(1, 0.1, quern=5.0),
        record(4096, 512, "layer", quern=100.0, grouped_mm=150.0, dequant_plus_gmm=190.0),
    ]
    found = gpu_goals.verdicts(records, (8e14, 4e12))
    assert [line.split(": ")[2].split(" (goal")[0] for line in found] == [
        "MISSED in 1 of 2 cases, worst 0.99", "met in 1 of 1 cases, worst 1.50", "MISSED in 0 of 1 cases, worst 1.90", "met in 1 of 1 cases, worst 2.50", "MISSED in 1 of 2 cases, worst 0.70", "met in 1 of 1 cases, worst 0.75",
    ]  # fmt: skip
    assert all(line.endswith("not measured") for line in gpu_goals.verdicts([], (1.0, 1.0)))
