"""What the scripts promise: help, refusal of unknown options, and a report whose counts and exit status are right."""

import os
import re
import shutil
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


# Stands for quern-gpu-tests: ten tests, GoogleTest's filter, shards and summary lines. Those called Bad fail, Crash ends the process.
FAKE_TESTS = """#!{python}
import fnmatch, os, sys
arguments = dict(a[2:].partition("=")[::2] for a in sys.argv[1:])
names = [f"GpuKernels.T{{i}}" for i in range(8)] + os.environ.get("MORE", "").split()
positive, _, negative = arguments.get("gtest_filter", "*").partition("-")
matches = lambda name, patterns: any(fnmatch.fnmatch(name, p) for p in patterns.split(":"))
names = [n for n in names if matches(n, positive) and not (negative and matches(n, negative))]
if "gtest_list_tests" in arguments:
    for suite in dict.fromkeys(n.split(".")[0] for n in names):
        print(suite + ".")
        print("".join(f"  {{n.split('.')[1]}}\\n" for n in names if n.startswith(suite + ".")), end="")
    sys.exit()
mine = names[int(os.environ.get("GTEST_SHARD_INDEX", 0)) :: int(os.environ.get("GTEST_TOTAL_SHARDS", 1))]
if any("Crash" in n for n in mine):
    os.abort()
bad, skipped = [n for n in mine if "Bad" in n], [n for n in mine if "Skip" in n]
lost = os.environ.get("LOSE_TESTS")
print(f"[  PASSED  ] {{0 if lost else len(mine) - len(bad) - len(skipped)}} tests.")
if skipped: print(f"[  SKIPPED ] {{len(skipped)}} test.")
if bad: print(f"[  FAILED  ] {{bad[0]}} (0 ms)")
sys.exit(bool(bad))
"""
# Stands for compute-sanitizer: runs the command and reports a hazard when the test named by HAZARD is among its tests.
FAKE_SANITIZER = """#!/bin/bash
while [[ $1 == --* ]]; do
  [[ $1 == --tool ]] && tool=$2
  [[ $1 == --log-file ]] && log=$2
  shift 2
done
"$@" || exit
[[ -n $DIE ]] && exit 0
hazards=$("$1" --gtest_list_tests "${@:3}" | grep -cx "  ${HAZARD:-none}")
echo "========= ${tool^^} SUMMARY: $hazards hazards displayed" >"$log"
((hazards == 0)) || exit 9
"""


def gpu_test(tmp_path, *arguments, **environment):
    """(exit status, output) of gpu-test.sh in a tree of stand-ins: a GPU, torch, compute-sanitizer, the test binary."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", dirs_exist_ok=True)
    (tmp_path / "COMMIT").write_text("0\n")
    fakes = {
        "quern": "#!/bin/sh\n", "nvidia-smi": "#!/bin/sh\necho GPU 0\n", "compute-sanitizer": FAKE_SANITIZER,
        "quern-gpu-tests": FAKE_TESTS.format(python=sys.executable),
        "python": f'#!/bin/sh\ncase $1 in -c) exit 0 ;; esac\nexec {sys.executable} "$@"\n',
    }  # fmt: skip
    for name, text in fakes.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    command = ["bash", "scripts/gpu-test.sh", "--python", tmp_path / "bin/python", *arguments]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "QUERN_JOBS": "3", **environment}
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    return result.returncode, result.stdout + result.stderr


def test_gpu_numerics_run_in_shards(tmp_path):
    status, output = gpu_test(tmp_path, "--only", "numerics", MORE="GpuRows.Skip GpuRows.Last")
    assert status == 0 and "[  PASSED  ] 9 tests, in 3 shards. [  SKIPPED ] 1 tests." in output, output
    assert len(list((tmp_path / "gpu-results/numerics").glob("*.log"))) == 3
    status, output = gpu_test(tmp_path, "--only", "numerics", MORE="GpuRows.Bad")
    assert status == 1 and "[  FAILED  ] 1 tests of 9 failed or did not run, in 3 shards. (exit status 1)" in output and "--- shard 2 of 3" in output, output
    status, output = gpu_test(tmp_path, "--only", "numerics", MORE="GpuRows.Crash")
    assert status == 1 and "shard 2 of 3: exit status 134" in output, output
    assert gpu_test(tmp_path, "--only", "numerics", "--filter", "GpuKernels.T1")[1].count("1 tests, in 1 shards") == 2


def test_gpu_tests_that_did_not_run_are_not_passed(tmp_path):
    status, output = gpu_test(tmp_path, "--only", "numerics", LOSE_TESTS="1")
    assert status == 1 and "8 tests of 8 did not run" in output, output
    for part in ("numerics", "memcheck"):
        status, output = gpu_test(tmp_path, "--only", part, "--filter", "Gpu*:Renamed.*", QUERN_SANITIZER_FILTER="GpuKernels.T1:Renamed.*")
        assert status == 1 and "error: no test is called Renamed.*" in output, output
    status, output = gpu_test(tmp_path, "--only", "memcheck", QUERN_SANITIZER_FILTER="GpuKernels.T1", DIE="1")
    assert status == 1 and "memcheck" in output, output


def test_gpu_sanitizers(tmp_path):
    # The tests that the script names must exist: their names are taken from it, and from the sources.
    names = set(re.findall(r"\bGpu\w+\.\w+", (ROOT / "scripts/gpu-test.sh").read_text()))
    sources = "\n".join(p.read_text() for p in (ROOT / "tests/unit").glob("gpu_*.cpp"))
    assert len(names) > 5 and all(f"TEST({', '.join(n.split('.'))})" in sources for n in names)
    more = " ".join(sorted(names))
    for extra in ([], ["--quick"]):
        status, output = gpu_test(tmp_path, "--only", "sanitizer", *extra, MORE=more)
        assert status == 0 and "memcheck   ok" in output and "racecheck  ok" in output, output
    # Hazards of the matmul kernels are shown and do not fail the part; those of other device code do.
    status, output = gpu_test(tmp_path, "--only", "racecheck", MORE=more, HAZARD="DenseRows")
    assert status == 0 and "0 hazards displayed; matmul kernels (bulk copies are not followed): RACECHECK SUMMARY: 1 hazards" in output, output
    status, output = gpu_test(tmp_path, "--only", "racecheck", MORE=more, HAZARD="Zipf")
    assert status == 1 and "racecheck  FAIL" in output and "1 hazards displayed" in output, output
    assert gpu_test(tmp_path, "--only", "memcheck", MORE=more, HAZARD="DenseRows")[0] == 1
    # A wrong result under the sanitizer is never a hazard to be set aside.
    status, output = gpu_test(tmp_path, "--only", "racecheck", MORE=more.replace("DenseRows", "DenseRowsBad"), QUERN_SANITIZER_FILTER="GpuKernels.Dense*")
    assert status == 1, output


@pytest.mark.parametrize("script", ["setup.sh", "test.sh", "bundle.sh", "gpu-test.sh"])
def test_scripts_help_and_refuse_unknown_options(script):
    def run(*arguments):
        return subprocess.run(["bash", f"scripts/{script}", *arguments], cwd=ROOT, capture_output=True, text=True)

    assert run("--help").returncode == 0 and f"usage: bash scripts/{script}" in run("--help").stdout
    assert run("--nonsense").returncode == 2 and f"usage: bash scripts/{script}" in run("--nonsense").stderr
