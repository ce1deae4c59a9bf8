"""`quern bench`: figures that agree with each other, schedules side by side, refusals in their place."""
import json
import subprocess

import pytest

from interp.compare import find_quern

QUERN = find_quern()
pytestmark = pytest.mark.skipif(not QUERN, reason="no quern program: neither QUERN_CLI nor build/bin/quern exists; run scripts/setup.sh")
BENCH = ["bench", "gpt_oss", "--kernel", "gate_up", "--dim", "E=4,N=128,K=128,top_k=2", "--seconds", "0.05", "--max-rounds", "6"]


def quern(*arguments):
    return subprocess.run([QUERN, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module", autouse=True)
def compiler():
    result = quern("run", "linear", "--kernel", "linear", "--dim", "T=1,N=32,K=64", "--repeat", 0)
    if "libquern-jit.so" in result.stderr:
        pytest.skip("the compiler library libquern-jit.so is not built")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path / "cache"))


def test_figures_agree():
    result = quern(*BENCH, "--tokens", "3,8..16", "--schedule", "rows=2 tokens=2", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [call["tokens"] for call in report["calls"]] == [3, 8, 16]
    assert [call["rows_per_expert"] for call in report["calls"]] == [2, 4, 8]
    roof = report["roof"]
    assert roof["tflops"] > 0 and roof["gbs"] > 0 and "measured" in roof["source"]
    for call in report["calls"]:
        assert call["flops"] == 2 * call["rows"] * 128 * 128 and call["rows"] == 2 * call["tokens"]
        default, other = call["schedules"]
        assert (default["name"], other["name"]) == ("default", "rows=2 tokens=2")
        assert " rows=2 tokens=2 " in other["schedule"] and default["default_ratio"] == 1
        assert other["default_ratio"] == pytest.approx(default["us"] / other["us"])
        for one in (default, other):
            low, high = one["interval_us"]
            assert min(one["samples_us"]) <= low <= one["us"] <= high <= max(one["samples_us"])
            assert 5 <= len(one["samples_us"]) <= 6
            assert one["tflops"] == pytest.approx(call["flops"] / one["us"] * 1e-6)
            assert one["gbs"] == pytest.approx(call["bytes"] / one["us"] * 1e-3)
            best = min(roof["tflops"], roof["gbs"] * 1e-3 * call["flops"] / call["bytes"])
            assert one["roof_share"] == pytest.approx(one["tflops"] / best)


def test_the_table_and_a_refused_schedule():
    result = quern(*BENCH, "--rows", "1,4", "--schedule", "rows=3")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if "default/" in line)
    assert lines[head - 1] == "gate_up E=4 K=128 N=128 top_k=2"
    assert [line.split()[:2] for line in lines[head + 1 :]] == [["2", "1"], ["2", "1"], ["8", "4"], ["8", "4"]]
    assert lines[head + 1].endswith("1.000  default") and "rows=3: schedule: rows: must be 2, 4, 8 or 16" in lines[head + 2]
    assert "1/2 gate_up, 2 tokens: " in result.stderr


def test_errors():
    for arguments, message in (
        (["--rows", "4..2"], "--rows: found '4..2', expected a count or LOW..HIGH"),
        (["--routing", "empty"], "--routing: empty not in {uniform,zipf,one}"),
        (["--target", "sim"], "--target: sim not in {cpu,cuda}"),
        (["--tokens", "1", "--rows", "1"], "excludes"),
    ):
        result = quern(*BENCH, *arguments)
        assert result.returncode == 2 and message in result.stderr, result.stderr
