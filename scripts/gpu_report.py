"""The end of gpu-test.sh: one line per part from its log, exit status 1 when one failed. Also the import check of bundle.sh.

usage: gpu_report.py LOGS (NAME STATUS SECONDS)...      STATUS: exit status, 77 when the part cannot run here, - when not asked for
       gpu_report.py --check-import FOLDER              imports quern and runs a kernel; its files must lie in FOLDER
"""

import re
import sys
from pathlib import Path

# What says how a part went, the last line of its log that matches.
SUMMARY = re.compile(r"^(\[  (PASSED|FAILED)  \] \d+ test|.*\d+ (passed|failed|skipped).* in [\d.]+s|=+ .*SUMMARY|goal: |WRONG: |error: |left out: )")


def summary(log):
    """The line that counts, or what a crash left behind. For a benchmark: how many goals are met."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    found = [line.strip("= ") for line in lines if SUMMARY.match(line)]
    goals = [line for line in found if line.startswith("goal: ")]
    wrong = [line for line in found if line.startswith("WRONG: ")]
    if goals:
        met = sum(": met in " in line for line in goals)
        return f"{met} of {len(goals)} goals met" + (f"; {len(wrong)} wrong results, first {wrong[0][7:]}" if wrong else "")
    apart = next((line for line in reversed(lines) if line.startswith("matmul kernels (")), None)
    if found and apart:
        return f"{found[-1]}; {apart}"
    skipped = next((line for line in reversed(lines) if re.match(r"\[  SKIPPED \] \d+ test", line)), None)
    if found and found[-1].startswith("[") and skipped:
        return f"{found[-1]} {skipped}"
    last = next((line for line in reversed(lines) if line.strip()), "nothing printed")
    return found[-1] if found else f"(no summary line: it ended early) {last}"


def report(logs, rows):
    failed = ran = 0
    print("\n" + "-" * 78)
    for name, status, seconds in rows:
        if status == "-":
            print(f"{name:<10} not asked for")
            continue
        text = summary(Path(logs) / f"{name}.log")
        word = {"0": "ok", "77": "--"}.get(status, "FAIL")
        ran += status != "77"
        failed += word == "FAIL"
        print(f"{name:<10} {word:<5}{seconds:>5} s  {text}" + (f" (exit status {status})" if word == "FAIL" else ""))
    print(f"{ran} parts ran, {failed} failed; logs in {logs}")
    return 1 if failed or not ran else 0


def check_import(folder):
    import torch

    import quern

    for module in (quern, quern._quern, __import__("nanobind_backend")):
        if not Path(module.__file__).resolve().is_relative_to(Path(folder).resolve()):
            raise SystemExit(f"error: {module.__name__} was imported from {module.__file__}, not from the bundle")
    generator = torch.Generator().manual_seed(0)
    experts, n, k, tokens = 2, 64, 64, 5
    packed = quern.pack(
        codes=torch.randint(0, 256, (experts, n * k // 2), dtype=torch.uint8, generator=generator),
        absmax=torch.rand(experts, n * k // 64, generator=generator), shape=(experts, n, k), codec="nf4",
    )  # fmt: skip
    route = quern.routing(torch.randint(0, experts, (tokens, 1), generator=generator), num_experts=experts)
    h = torch.randn(tokens, k, generator=generator)[route.row_token]
    found = quern.load("qwen3").down(h, route, packed)
    weights = packed.dequantize(torch.float32)
    expert = torch.bucketize(torch.arange(tokens), route.offsets, right=True) - 1
    expected = torch.zeros_like(found).index_add_(0, route.row_token, torch.einsum("rk,rnk->rn", h, weights[expert]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    print(f"Python {sys.version.split()[0]}: quern {quern.__version__} imported from the bundle; a kernel was compiled and is right")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check-import"] and len(sys.argv) == 3:
        sys.exit(check_import(sys.argv[2]))
    if len(sys.argv) < 5 or (len(sys.argv) - 2) % 3:
        sys.exit(__doc__)
    values = sys.argv[2:]
    sys.exit(report(sys.argv[1], zip(values[::3], values[1::3], values[2::3])))
