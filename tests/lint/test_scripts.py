"""What the scripts promise: help, refusal of unknown options, and a report whose counts and exit status are right."""

import subprocess
import sys

import pytest
from tree import ROOT

GTEST = """<testsuites><testsuite name="A"><testcase name="a" status="run" result="completed"/>
<testcase name="b" status="run" result="skipped"><skipped message="why"/></testcase>{extra}</testsuite></testsuites>"""
FAILURE = '<testcase name="c" status="run"><failure message="no"/></testcase>'


def report(tmp_path, *rows):
    command = [sys.executable, ROOT / "scripts/test_report.py", tmp_path, tmp_path, "12", *rows]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.returncode, result.stdout.splitlines()


def test_report_counts_what_ran(tmp_path):
    (tmp_path / "unit.xml").write_text(GTEST.format(extra=""))
    (tmp_path / "test-unit.log").write_text("noise\n[==========] 2 tests from 1 test suite ran. (3 ms total)\n[  PASSED  ] 1 test.\n")
    (tmp_path / "test-fuzz.log").write_text("Done 512 runs in 3 second(s)\n")
    status, lines = report(tmp_path, "unit", "0", "3", "fuzz", "0", "60", "sanitize", "-", "0")
    assert (status, lines[-1]) == (0, "2 passed, 0 failed, 1 skipped")
    assert "unit      [  PASSED  ] 1 test." in lines and "fuzz      Done 512 runs in 3 second(s)" in lines
    assert "sanitize  left out" in lines and "unit      skipped b: why" in lines


def test_report_shows_why_ctest_skipped(tmp_path):
    output = "noise\n/x/isa_test.cpp:52: Skipped\nthis CPU has no amx\n"
    case = f'<testcase name="a" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION"/><system-out>{output}</system-out></testcase>'
    (tmp_path / "isa.xml").write_text(f"<testsuite>{case}<testcase name='b' status='run'/></testsuite>")
    status, lines = report(tmp_path, "isa", "0", "3")
    assert (status, lines[-1]) == (0, "1 passed, 0 failed, 1 skipped") and "isa       skipped a: this CPU has no amx" in lines


def test_report_fails_when_a_test_failed(tmp_path):
    (tmp_path / "unit.xml").write_text(GTEST.format(extra=FAILURE))
    status, lines = report(tmp_path, "unit", "1", "3")
    assert (status, lines[-1]) == (1, "1 passed, 1 failed, 1 skipped")


def test_report_fails_when_a_runner_died_or_ran_nothing(tmp_path):
    status, lines = report(tmp_path, "unit", "139", "3")  # a crash writes no XML
    assert (status, lines[-1]) == (1, "0 passed, 1 failed, 0 skipped")
    assert "unit      (no summary line: it ended early)" in lines
    (tmp_path / "unit.xml").write_text("<testsuites><testsuite><testca")  # cut off
    assert report(tmp_path, "unit", "0", "3")[0] == 1
    (tmp_path / "unit.xml").write_text("<testsuites/>")
    status, lines = report(tmp_path, "unit", "0", "3")
    assert (status, lines[-1]) == (1, "0 passed, 1 failed, 0 skipped")


def gpu_report(tmp_path, *rows):
    command = [sys.executable, ROOT / "scripts/gpu_report.py", tmp_path, *rows]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.returncode, result.stdout.splitlines()


def test_gpu_report_has_a_line_for_each_part(tmp_path):
    logs = {
        "numerics": "noise\n[  PASSED  ] 40 tests.\n[  SKIPPED ] 4 tests.\n",
        "python": ".....\n187 passed, 4 skipped in 61.36s (0:01:01)\n",
        "memcheck": "[  PASSED  ] 7 tests.\n========= ERROR SUMMARY: 0 errors\n",
        "racecheck": "left out: compute-sanitizer is not on the PATH\n",
        "bench": "goal: a: met in 1 of 1 cases\ngoal: b: MISSED in 0 of 2 cases\n",
    }
    for name, text in logs.items():
        (tmp_path / f"{name}.log").write_text(text)
    rows = [w for name in logs for w in (name, "77" if name == "racecheck" else "0", "3")]
    status, lines = gpu_report(tmp_path, *rows)
    assert status == 0 and lines[-1].startswith("4 parts ran, 0 failed") and [" ".join(line.split()) for line in lines[2:-1]] == [
        "numerics ok 3 s [ PASSED ] 40 tests. [ SKIPPED ] 4 tests.", "python ok 3 s 187 passed, 4 skipped in 61.36s (0:01:01)",
        "memcheck ok 3 s ERROR SUMMARY: 0 errors", "racecheck -- 3 s left out: compute-sanitizer is not on the PATH", "bench ok 3 s 1 of 2 goals met",
    ]  # fmt: skip


def test_gpu_report_fails_when_a_part_failed_or_none_ran(tmp_path):
    (tmp_path / "bench.log").write_text("WRONG: tiny/down triton: tile error 0.5\ngoal: a: met in 1 of 1 cases\n")
    status, lines = gpu_report(tmp_path, "bench", "1", "3", "numerics", "139", "1", "python", "-", "0")
    assert status == 1 and "1 wrong results, first tiny/down triton: tile error 0.5 (exit status 1)" in lines[2]
    assert "(no log)" in lines[3] and "not asked for" in lines[4] and lines[-1].startswith("2 parts ran, 2 failed")
    assert gpu_report(tmp_path, "racecheck", "77", "0")[0] == 1


@pytest.mark.parametrize("script", ["setup.sh", "test.sh", "bundle.sh", "gpu-test.sh"])
def test_scripts_help_and_refuse_unknown_options(script):
    def run(*arguments):
        return subprocess.run(["bash", f"scripts/{script}", *arguments], cwd=ROOT, capture_output=True, text=True)

    assert run("--help").returncode == 0 and f"usage: bash scripts/{script}" in run("--help").stdout
    assert run("--nonsense").returncode == 2 and f"usage: bash scripts/{script}" in run("--nonsense").stderr
