"""The full gpt-oss-20b expert layer on the CPU: Quern against the loop over experts and bitsandbytes' eval-mode path.

    .venv/bin/python benchmarks/cpu_layer.py [--tokens 1,64] [--routing zipf] [--quiet] [--json FILE]

All peers run in one process, taken in turn, each right after a torch op; figures are medians. benchmarks/README.md has the protocol.
"""

import argparse
import copy
import json
import logging
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone

import torch

import quern
from quern import _layer
from quern.demo import Packed, bar, cpu_name


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tokens", default="1,4,16,64,256,512,1024", help="token counts, separated by commas")
    parser.add_argument("--routing", default="uniform", help="uniform, zipf, or both with a comma")
    parser.add_argument("--rounds", type=int, default=9, help="samples of each peer (default 9)")
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=2880)
    parser.add_argument("--intermediate", type=int, default=2880)
    parser.add_argument("--top-k", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", default="loop,eval", help="peers beside Quern: loop, eval (default both)")
    parser.add_argument("--quiet", action="store_true", help="before each sample wait until nobody else uses the CPU; count those that could not")
    parser.add_argument("--json", metavar="FILE", help="also write all figures and samples here ('-': standard output)")
    options = parser.parse_args(argv)
    options.tokens = [int(t) for t in options.tokens.split(",")]
    options.routing = options.routing.split(",")
    options.peers = [p for p in options.peers.split(",") if p]
    if set(options.routing) - {"uniform", "zipf"} or set(options.peers) - {"loop", "eval"}:
        parser.error("--routing takes uniform and zipf, --peers takes loop and eval")
    return options


def eval_copy(layer):
    """(copy of the layer whose modules run bitsandbytes' own CPU path, why not). It rounds absmax to bfloat16: not exact."""
    import bitsandbytes.functional as BF

    if not BF.has_avx512bf16():
        return None, "bitsandbytes reports no AVX512-BF16 on this CPU"
    for module in layer.modules:
        n, k = module.weight.quant_state.shape
        if n % 32 or k % module.weight.quant_state.blocksize:
            return None, f"bitsandbytes cannot repack {n} x {k} with blocks of {module.weight.quant_state.blocksize}"
    clone = copy.deepcopy(layer)
    for module in clone.modules:
        module.support_avx512bf16_for_cpu = True
        module.eval()
    return clone, None


class Before:
    """What runs untimed before each sample: a torch op that leaves torch's threads as a model's previous layer would."""

    def __init__(self, quiet):
        self.quiet, self.noisy = quiet, 0
        self.left, self.right = torch.randn(512, 512), torch.randn(512, 512)

    @staticmethod
    def ticks():
        with open("/proc/stat") as file:
            values = [int(v) for v in file.readline().split()[1:9]]
        return sum(values) - values[3] - values[4]

    def wait(self):
        for _ in range(40):
            before = self.ticks()
            time.sleep(0.06)
            if self.ticks() - before <= 2:
                return
            time.sleep(0.3)
        self.noisy += 1

    def __call__(self):
        if self.quiet:
            self.wait()
        torch.mm(self.left, self.right)


def measure(options, layer, clone, packed, tokens, skew):
    """One record: median, least and greatest seconds of every peer, memory, error."""
    generator = torch.Generator().manual_seed(options.seed + tokens)
    x = torch.randn(tokens, layer.hidden, generator=generator).bfloat16()
    ids, weights = _layer.router(tokens, layer.num_experts, options.top_k, seed=options.seed + tokens, skew=skew)
    calls = {"quern": lambda: packed(x, ids, weights)}
    if "loop" in options.peers:
        calls["loop"] = lambda: _layer.loop(layer, x, ids, weights)
    if clone is not None:
        calls["eval"] = lambda: _layer.loop(clone, x, ids, weights)
    exact = _layer.loop(layer, x, ids, weights, _layer.exact_project)
    record = {"tokens": tokens, "routing": skew, "tile_error": {name: _layer.tile_error(call(), exact) for name, call in calls.items()}}
    del exact
    before = Before(options.quiet)
    times = _layer.interleaved(calls, options.rounds, before)
    record["seconds"] = {name: {"median": _layer.median(t), "min": t[0], "max": t[-1], "samples": t} for name, t in times.items()}
    record["noisy_samples"] = before.noisy if options.quiet else None

    extra = _layer.peak_extra(calls["quern"])
    rows = tokens * options.top_k
    given = rows * layer.intermediate * x.element_size() + tokens * layer.hidden * 4 + rows * 20 + (layer.num_experts + 1) * 8
    record["extra_bytes"] = None if extra is None else max(0, extra - given)  # beyond h, the output and the routing
    record["flops"] = 2 * rows * 3 * layer.hidden * layer.intermediate
    record["weight_bytes_read"] = packed.nbytes * int(ids.unique().numel()) // layer.num_experts
    return record


HEADER = f"{'T':>5}{'loop ms':>10}{'eval ms':>9}{'Quern ms':>10}{'(min-max)':>16}{'loop/Q':>8}{'eval/Q':>8}{'GB/s':>7}{'TFLOP/s':>9}{'extra':>14}{'error':>9}"


def line(record, packed_bytes):
    """One row of the table."""
    seconds, quern_s = record["seconds"], record["seconds"]["quern"]

    def ms(name):
        return f"{seconds[name]['median'] * 1e3:.1f}" if name in seconds else "-"

    def ratio(name):
        return f"{seconds[name]['median'] / quern_s['median']:.2f}" if name in seconds else "-"

    spread = f"({quern_s['min'] * 1e3:.1f}-{quern_s['max'] * 1e3:.1f})"
    extra = "n/a" if record["extra_bytes"] is None else f"{record['extra_bytes'] / 1e6:.1f} MB {record['extra_bytes'] / packed_bytes:.1%}"
    rate = f"{record['weight_bytes_read'] / quern_s['median'] / 1e9:>7.1f}{record['flops'] / quern_s['median'] / 1e12:>9.2f}"
    return (
        f"{record['tokens']:>5}{ms('loop'):>10}{ms('eval'):>9}{quern_s['median'] * 1e3:>10.2f}{spread:>16}"
        f"{ratio('loop'):>8}{ratio('eval'):>8}{rate}{extra:>14}{record['tile_error']['quern']:>9.1e}"
    )


def machine():
    """What a figure must carry with it."""
    import bitsandbytes

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=os.path.dirname(os.path.abspath(__file__)))
    with open("/proc/cpuinfo") as file:
        flags = next((line.split(":")[1].split() for line in file if line.startswith("flags")), [])
    return {
        "cpu": cpu_name(),
        "features": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16") if f in flags],
        "threads": quern.num_threads(),
        "thread_library": quern.thread_library().split(" ")[0],
        "environment": {k: v for k, v in os.environ.items() if k.startswith(("QUERN_", "ONEDNN_", "OMP_"))},
        "quern": quern.__version__,
        "torch": torch.__version__,
        "bitsandbytes": bitsandbytes.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def main(argv=None):
    options = arguments(argv)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    out = sys.stderr if options.json == "-" else sys.stdout
    torch.set_num_threads(quern.num_threads())
    facts = machine()
    print(f"{facts['cpu']} {' '.join(facts['features'])}, {facts['threads']} threads ({facts['thread_library']}), torch {facts['torch']}, "
          f"bitsandbytes {facts['bitsandbytes']}, commit {facts['commit']}", file=out)  # fmt: skip
    if facts["environment"]:
        print(f"environment: {facts['environment']}", file=out)
    records = []
    with torch.no_grad():
        progress = bar("Quantizing experts") if out is sys.stdout else None
        layer = _layer.random_layer(options.experts, options.hidden, options.intermediate, seed=options.seed, progress=progress)
        packed = Packed(layer)
        clone, why = eval_copy(layer) if "eval" in options.peers else (None, "not asked for")
        if clone is None:
            print(f"bitsandbytes' eval-mode path left out: {why}", file=out)
        print(f"packed weights {packed.nbytes / 1e6:.1f} MB, {packed.nbytes / layer.weight_bytes:.3f} of bitsandbytes' bytes", file=out)
        for skew in options.routing:
            print(f"\nrouting {skew}, E = {options.experts}, H = {options.hidden}, I = {options.intermediate}, top-{options.top_k}", file=out)
            print(HEADER, file=out, flush=True)
            for tokens in options.tokens:
                records.append(measure(options, layer, clone, packed, tokens, skew))
                print(line(records[-1], packed.nbytes), file=out, flush=True)
    stats = quern.stats()
    print(f"\n{stats.compilations} kernels compiled in {stats.compile_ms:.0f} ms", file=out)
    if options.json:
        result = {"machine": facts, "options": vars(options), "packed_bytes": packed.nbytes, "bitsandbytes_bytes": layer.weight_bytes,
                  "compilations": stats.compilations, "compile_ms": stats.compile_ms, "eval_left_out": why, "records": records}  # fmt: skip
        text = json.dumps(result, indent=1)
        if options.json == "-":
            print(text)
        else:
            with open(options.json, "w", encoding="utf-8") as file:
                file.write(text + "\n")


if __name__ == "__main__":
    main()
