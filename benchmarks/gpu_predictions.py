"""What `quern explain` predicts for a benchmark's cases, before anything is measured: the schedule a call gets by default, the mean rows of the
experts that have any, the kernel alone. What the model assumes, and what was fitted, is in codegen/gpu/CostModel.cpp."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# rows  width  tiles  rounds  us  TFLOP/s  TB/s  limiter
ROW = re.compile(r"^\s+(\d+)\s+\d+\s+\d+\s+\d+\s+([\d.]+)\s+[\d.]+\s+[\d.]+\s+\S.*$")


def tool():
    """Path of the command line tool: QUERN_TOOL, a bundle's, a build's, or one on the PATH; None without."""
    places = [os.environ.get("QUERN_TOOL"), ROOT / "bin/quern", ROOT / "build/bin/quern", shutil.which("quern")]
    return next((str(p) for p in places if p and os.access(p, os.X_OK)), None)


def parse(text):
    """{rows per expert: us} of explain's table `predicted`."""
    table = text[text.index("\npredicted") :]
    return {int(m[1]): float(m[2]) for m in map(ROW.match, table.splitlines()) if m}


def explain(kind, projection, n, k, experts, rows, device):
    """us of one kernel. Raises OSError or ValueError with the tool's words."""
    # T and top_k: the default schedule looks at the rows of an expert.
    dims = f"N={n},K={k},E={experts},T={rows * experts},top_k=1"
    command = [tool(), "explain", kind, "--kernel", projection, "--dim", dims, "--device", device, "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise ValueError(done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"exit status {done.returncode}")
    found = parse(done.stdout)
    if set(found) != {rows}:
        raise ValueError(f"`{' '.join(command)}` shows no time for exactly {rows} rows, but for {sorted(found)}")
    return found[rows]


def predictions(cases, gpu_name):
    """({label: us}, reason) of cases [(label, shape, projection, live experts, rows)]; a reason when a prediction is missing, else None."""
    if tool() is None:
        return {}, "no quern tool was found (QUERN_TOOL names one)"
    device = "h200" if "H200" in gpu_name else "h100"
    parts = {}
    for label, shape, projection, live, rows in cases:
        for part in ("gate_up", "down") if projection == "layer" else (projection,):
            parts.setdefault(label, []).append((shape.kind, part, *shape.matrix(part), live, max(1, round(rows / live))))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        waiting = {key: pool.submit(explain, *key, device) for key in {k for needed in parts.values() for k in needed}}
    found, reason = {}, None
    for key, future in waiting.items():
        try:
            found[key] = future.result()
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            reason = f"{key[0]}.{key[1]}: {error}"
    times = {label: sum(found[k] for k in needed) for label, needed in parts.items() if all(k in found for k in needed)}
    return times, reason
