"""Ends scripts/test.sh: each runner's own summary lines, a table, and `N passed, N failed, N skipped`; exits 1 if anything failed.

usage: test_report.py RESULTS LOGS SECONDS (NAME STATUS SECONDS)...     STATUS: the runner's exit status, "-" if it was left out
RESULTS holds NAME.xml (JUnit) of each runner that writes one, LOGS the runners' words as test-NAME.log."""

import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

# How each runner sums up, in its own words: GoogleTest, lit, ctest, pytest, libFuzzer.
SUMMARY = re.compile(
    r"^\[  (PASSED|FAILED|SKIPPED) +\].*\btests?\b|^\[==========\].*\bran\b|^ *(Passed|Failed|Unsupported|Excluded|Unresolved|Skipped) *:"
    r"|^\d+% tests passed"
    r"|^=*[^=]*\b\d+ (passed|failed|skipped|error)\b.* in [\d.]+s|^Done \d+ runs|^SUMMARY: |^==\d+== ERROR"
)


@dataclass
class Result:
    name: str
    status: str  # exit status as text, "-" if left out
    seconds: int
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)  # why, one per skipped test


def reason(case: ElementTree.Element) -> str:
    """Why a test was skipped: the last line of its message; ctest has it in the output of the test, below "...: Skipped"."""
    message = case.find("skipped").get("message", "") if case.find("skipped") is not None else ""
    said = re.search(r": Skipped\n(.+)", case.findtext("system-out", ""))
    if said:
        message = said.group(1)
    return (message.strip().splitlines() or ["no reason given"])[-1]


def count(result: Result, results: Path) -> None:
    """Fills in the counts; a runner that failed without a failed test (a crash, no tests) counts as one failure."""
    file = results / f"{result.name}.xml"
    if file.exists():
        try:
            for case in ElementTree.parse(file).iter("testcase"):
                if case.find("failure") is not None or case.find("error") is not None:
                    result.failed += 1
                elif case.find("skipped") is not None or case.get("status") == "notrun":
                    result.skipped += 1
                    result.reasons.append(f"{case.get('name')}: {reason(case)}")
                else:
                    result.passed += 1
        except ElementTree.ParseError:
            result.failed += 1
    elif result.status == "0":
        result.passed += 1  # the fuzzer: one test that ran to its end
    if result.status != "0" and result.failed == 0:
        result.failed += 1
    if result.status == "0" and result.passed + result.skipped == 0:
        result.failed += 1  # a runner that ran nothing proves nothing


def summaryLines(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line for line in lines if SUMMARY.match(line)]


def main(arguments: list[str]) -> int:
    results, logs, seconds = Path(arguments[0]), Path(arguments[1]), arguments[2]
    rows = [Result(n, s, int(t)) for n, s, t in zip(arguments[3::3], arguments[4::3], arguments[5::3], strict=True)]
    ran = [r for r in rows if r.status != "-"]
    for row in ran:
        count(row, results)
    print("\n=== summary, in each runner's own words ===")
    for row in ran:
        lines = summaryLines(logs / f"test-{row.name}.log")
        for line in lines or ["(no summary line: it ended early)"]:
            print(f"{row.name:9} {line.strip()}")
    for row in ran:
        for line in row.reasons:
            print(f"{row.name:9} skipped {line}")
    print(f"\n{'runner':9} {'result':8} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for row in rows:
        if row.status == "-":
            print(f"{row.name:9} left out")
        else:
            state = "FAILED" if row.failed else "ok"
            print(f"{row.name:9} {state:8} {row.passed:7} {row.failed:7} {row.skipped:8} {row.seconds:8}")
    print(f"{seconds} s in all, with setting up and building")
    failed = sum(r.failed for r in ran)
    print(f"{sum(r.passed for r in ran)} passed, {failed} failed, {sum(r.skipped for r in ran)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
