"""The demo and the benchmark run, on small layers, and print what they promise."""

import importlib.util
import io
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import needs_jit
from test_checkpoint import write

from quern import _layer, demo

pytestmark = needs_jit
ROOT = Path(__file__).parents[2]


def rows(text):
    """Lines of the demo's table, as lists of words."""
    return [line.split() for line in text.splitlines() if re.match(r"^ +\d+ +[\d.]+ +[\d.]+ +[\d.]+x ", line)]


def test_demo(capsys):
    assert demo.main(["--experts", "3", "--hidden", "128", "--intermediate", "64", "--tokens", "1,5"]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("Quern "))
    assert [row[0] for row in rows(text)] == ["1", "5"] and "PASSED" in text and "bit for bit: yes" in text


@pytest.mark.parametrize("kind", ["gpt_oss", "qwen3", "mixtral"])
def test_demo_on_a_checkpoint(tmp_path, capsys, kind):
    path, _ = write(tmp_path, kind, layer=4)
    assert demo.main(["--checkpoint", str(path), "--layer", "4", "--tokens", "6"]) == 0
    text = capsys.readouterr().out
    assert f"Layer: {kind}, E = 3, H = 64, I = 96" in text and len(rows(text)) == 1


def test_a_busy_machine_is_named(capsys):
    row = {"tokens": 1, "loop": 1.0, "quern": 0.5, "memory": 0, "loop memory": 0, "error": 0.0, "loop error": 0.0}
    demo.show([row | {"others": 0.01}])
    assert "NOTE" not in capsys.readouterr().out
    demo.show([row | {"others": 0.01}, row | {"others": 1.0}])
    text = capsys.readouterr().out
    assert "NOTE: others used 100% of the CPU" in text and all(len(line) <= 100 for line in text.splitlines())


def test_others_do_not_include_this_process(monkeypatch):
    # user nice system idle iowait irq softirq steal: 10 s of the machine, 6 of them busy, 4 of these our own.
    hertz = os.sysconf("SC_CLK_TCK")
    stat = iter([[5, 0, 5, 100, 7, 0, 0, 1], [8, 0, 7, 103, 8, 0, 0, 2]])
    own = iter([(3, 1), (6, 2)])
    monkeypatch.setattr(demo, "open", lambda _: io.StringIO("cpu  " + " ".join(str(v * hertz) for v in next(stat)) + " 0 0\n"), raising=False)
    monkeypatch.setattr(demo.os, "times", lambda: SimpleNamespace(**dict(zip(("user", "system"), next(own)))))
    with demo.Others() as others:
        pass
    assert others.share == pytest.approx((6 - 4) / 10)


def test_demo_fails_when_the_numbers_are_wrong(capsys, monkeypatch):
    honest = demo.Packed.__call__

    def wrong(self, x, ids, weights):
        y = honest(self, x, ids, weights)
        y[:, 16:32] *= 1.02  # one tile column, 2 % off
        return y

    monkeypatch.setattr(demo.Packed, "__call__", wrong)
    assert demo.main(["--experts", "3", "--hidden", "128", "--intermediate", "64", "--tokens", "5"]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("argv, message", [(["--tokens", "x"], "found 'x', expected numbers"), (["--experts", "0"], "must be positive")])
def test_demo_options(argv, message, capsys):
    with pytest.raises(SystemExit):
        demo.main(argv)
    assert message in capsys.readouterr().err


def test_tile_error_sees_one_bad_tile():
    generator = torch.Generator().manual_seed(0)
    expected = torch.randn(40, 70, generator=generator)
    found = expected.clone()
    assert _layer.tile_error(found, expected) == 0
    found[33, 66] += 1.0
    assert _layer.tile_error(found, expected) > 0.05
    found[0, 0] = float("nan")
    assert _layer.tile_error(found, expected) == float("inf")


def test_peak_extra_sees_what_a_call_holds():
    if _layer.peak_extra(lambda: None) is None:
        pytest.skip("this system does not let a process reset its memory high-water mark")
    assert _layer.peak_extra(lambda: torch.ones(8 << 20).sum()) >= 30e6
    assert _layer.peak_extra(lambda: torch.ones(10)) < 4e6


def test_benchmark(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("cpu_layer", ROOT / "benchmarks" / "cpu_layer.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    out = tmp_path / "out.json"
    sizes = ["--experts", "3", "--hidden", "128", "--intermediate", "64", "--tokens", "1,5", "--top-k", "2"]
    benchmark.main([*sizes, "--rounds", "3", "--routing", "uniform,zipf", "--json", str(out)])
    result = json.loads(out.read_text())
    assert [(r["tokens"], r["routing"]) for r in result["records"]] == [(1, "uniform"), (5, "uniform"), (1, "zipf"), (5, "zipf")]
    for record in result["records"]:
        assert len(record["seconds"]["loop"]["samples"]) == 3 and record["tile_error"]["quern"] < demo.GATE
        assert record["flops"] == 2 * record["tokens"] * 2 * 3 * 128 * 64
    assert result["machine"]["torch"] == torch.__version__
    assert "loop/Q" in capsys.readouterr().out
