"""Grouped matmuls on 4-bit weights, Quern beside its peers in one run, on a CUDA GPU.

    python benchmarks/gpu_grouped.py [--quick] [--only 'gpt-oss-20b/*/T4096/*'] [--peers quern,grouped_mm] [--json FILE]

One row per peer and case: us (20..80 percentile), TFLOP/s, GB/s, share of the roofline, time relative to Quern's, error, and beside
Quern's what `quern explain` predicted. gpu_timing.py has the protocol, benchmarks/README.md says what each peer is and what it is given for nothing. Data are random, never zeros.
"""

import argparse
import fnmatch
import json
import sys
import time

import torch
from gpu_cases import PROJECTIONS, SHAPES, TOKENS, Case, label, make_stacks, route, tile_error
from gpu_goals import verdicts
from gpu_predictions import predictions
from gpu_timing import ceilings, clocks, interleaved, machine
from peers import all_peers

# Relative L2 error that any 16 x 16 tile may have: Quern by its contract (fp32 sums, one rounding of a bfloat16 output), peers by theirs.
GATE, LAYER_GATE = 6e-3, 1.8e-2
QUERN_GATES = {"gate_up": 4e-3, "down": 2e-4, "layer": 4e-3}
QUICK = {"models": ["gpt-oss-20b"], "tokens": [1, 64, 1024, 4096], "routing": ["uniform"], "rounds": 20}


def listed(kind=str, allowed=None):
    def parse(text):
        values = [kind(v) for v in text.split(",") if v]
        for value in values:
            if allowed is not None and value not in allowed:
                raise argparse.ArgumentTypeError(f"found '{value}', expected some of {', '.join(map(str, allowed))}")
            if kind is int and value < 1:
                raise argparse.ArgumentTypeError(f"found {value}, expected at least 1")
        if not values:
            raise argparse.ArgumentTypeError("found an empty list")
        return values

    return parse


def arguments(argv=None):
    names = [peer.name for peer in all_peers()]
    models = [name for name in SHAPES if name != "tiny"]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--models", type=listed(allowed=SHAPES), help=f"default {','.join(models)}")
    add("--projections", type=listed(allowed=PROJECTIONS), help="gate_up, down, layer (default all)")
    add("--tokens", type=listed(int), help=f"default {','.join(map(str, TOKENS))}")
    add("--routing", type=listed(allowed=("uniform", "zipf")), help="default uniform,zipf")
    add("--peers", type=listed(allowed=names), help=f"default {','.join(names)}")
    add("--schedule", action="append", default=[], metavar="LINE", help="also Quern with this GPU schedule, e.g. 'bn=192 stages=6'; repeatable")
    add("--only", metavar="PATTERN", help="cases whose MODEL/PROJECTION/Tn/ROUTING matches, e.g. 'qwen3*/down/*'")
    add("--rounds", type=int, help="samples of each peer (default 25)")
    add("--quick", action="store_true", help="gpt-oss-20b, four token counts, uniform, 20 rounds: about a minute; other options win")
    add("--budget", type=float, metavar="SECONDS", help="start no further case after this time; what was left out is listed")
    add("--graphs", action="store_true", help="replay CUDA graphs of the calls: the device's time, whatever the host does")
    add("--no-predict", action="store_true", help="leave out what `quern explain` predicts (it compiles each kernel once more)")
    add("--seed", type=int, default=0)
    add("--device", default="cuda", help="cuda, cuda:N, or cpu: a self-test whose figures mean nothing")
    add("--json", metavar="FILE", help="also write all figures here ('-': standard output, the table goes to standard error)")
    add("--list", action="store_true", help="print the cases and stop")
    options = parser.parse_args(argv)
    defaults = {"models": models, "projections": list(PROJECTIONS), "tokens": list(TOKENS), "routing": ["uniform", "zipf"], "rounds": 25}
    for name, value in (defaults | (QUICK if options.quick else {})).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.peers = options.peers or names
    options.plan = planned(options)
    if not options.plan:
        parser.error(f"--only {options.only}: no case matches; --list shows them")
    if options.rounds < (1 if options.device == "cpu" else 20):
        parser.error(f"--rounds {options.rounds}: the protocol needs at least 20")
    return options


def planned(options):
    """[(shape, projection, tokens, routing)], cases of one model together: its weights are made once."""
    cases = [
        (SHAPES[model], projection, tokens, skew)
        for model in options.models for projection in options.projections for skew in options.routing for tokens in options.tokens
    ]  # fmt: skip
    return [case for case in cases if options.only is None or fnmatch.fnmatch(label(*case), options.only)]


def bytes_moved(peer, case):
    """What the peer itself moves: weights as often as it must, activations and results once."""
    weights = sum(s.n * s.k * peer.traffic for s in case.used_stacks())
    experts = {"dequant+gmm": case.shape.experts, "dense": 1}.get(peer.name, case.live_experts)
    return weights * experts + case.least_bytes() - case.live_experts * sum(s.packed_bytes for s in case.used_stacks())


def measure(case, peers, options, ceiling, predicted_us=None):
    """One record: figures, rates and errors of every peer that can run the case, reasons of those that cannot."""
    calls, left_out, errors, expected = {}, {}, {}, {}
    for peer in peers:
        reason = peer.unavailable(case)
        if reason is None:
            try:
                call = peer.call(case)
                fused = peer.fused or case.projection == "layer"
                if fused not in expected:
                    expected[fused] = case.expected(fused)
                result = call()
                # The dense peer computes another product, with one expert's weights for all rows.
                errors[peer.name] = None if peer.name == "dense" else tile_error(result, expected[fused])
                calls[peer.name] = call
                del result
            except Exception as error:  # a peer that fails is reported; the others are still measured
                reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        if reason is not None:
            left_out[peer.name] = reason
    del expected
    figures = interleaved(calls, case.device, options.rounds, graphs=options.graphs)
    ideal = max(case.flops / ceiling[0], case.least_bytes() / ceiling[1]) * 1e6
    record = {
        "case": case.label, "model": case.shape.name, "projection": case.projection, "tokens": case.tokens, "routing": case.skew,
        "rows": case.rows, "rows_per_expert": case.rows / case.shape.experts, "largest_expert": max(case.counts),
        "live_experts": case.live_experts, "flops": case.flops, "least_bytes": case.least_bytes(), "roofline_us": ideal,
        "predicted_us": predicted_us, "left_out": left_out, "peers": {},
    }  # fmt: skip
    for peer in peers:
        if peer.name in figures:
            taken = figures[peer.name].record()
            taken |= {"tflops": case.flops / taken["us"] / 1e6, "gbps": bytes_moved(peer, case) / taken["us"] / 1e3}
            taken |= {"roofline": ideal / taken["us"], "error": errors[peer.name]}
            record["peers"][peer.name] = taken
    return record


def wrong(record):
    """Peers whose result is not what it should be."""
    gate = LAYER_GATE if record["projection"] == "layer" else GATE
    gates = {name: QUERN_GATES[record["projection"]] if name.split()[0] == "quern" else gate for name in record["peers"]}
    return [name for name, taken in record["peers"].items() if taken["error"] is not None and not taken["error"] <= gates[name]]


def predicted(options):
    """({label: us}, reason) for the plan; nothing on the CPU, whose times explain does not model."""
    if options.no_predict or options.device == "cpu" or "quern" not in options.peers:
        return {}, None
    cases = []
    for shape, projection, tokens, skew in options.plan:
        ids, _ = route(tokens, shape.experts, shape.top_k, skew, options.seed + tokens)
        cases.append((label(shape, projection, tokens, skew), shape, projection, int(ids.unique().numel()), ids.numel()))
    return predictions(cases, torch.cuda.get_device_name(torch.device(options.device)))


HEADER = f"{'case':<40}{'rows/e':>7}  {'peer':<12}{'us':>10} {'(20..80 %)':<19}{'host us':>8}{'TFLOP/s':>8}{'GB/s':>8}{'roof':>6}{'/quern':>8}{'error':>9}  predicted"


def lines(record):
    """The table's rows of one case."""
    first = record["peers"].get("quern", {}).get("us")
    out = []
    for name, t in record["peers"].items():
        place = f"{record['case']:<40}{record['rows_per_expert']:>7.1f}" if not out else " " * 47
        ratio = f"{t['us'] / first:.2f}" if first else "-"
        spread = f"({t['p20']:.1f}..{t['p80']:.1f})"
        error = "-" if t["error"] is None else f"{t['error']:.1e}"
        out.append(
            f"{place}  {name:<12}{t['us']:>10.1f} {spread:<19}{t['host_us']:>8.0f}{t['tflops']:>8.1f}{t['gbps']:>8.0f}{t['roofline']:>6.0%}{ratio:>8}{error:>9}"
            + (f"{record['predicted_us']:>11.1f}" if name == "quern" and record["predicted_us"] else "")
        )
    out += [f"{'':<49}{name:<12}left out: {reason}" for name, reason in record["left_out"].items()]
    return out


def run(options, out):
    """All records, in the order of the plan."""
    device, begin, records, skipped = torch.device(options.device), time.monotonic(), [], []
    peers = [peer for peer in all_peers(options.schedule) if peer.name in options.peers or peer.name.startswith("quern ")]
    ceiling = ceilings(device)
    print(f"ceilings: bf16 matmul {ceiling[0] / 1e12:.1f} TFLOP/s, copy {ceiling[1] / 1e9:.0f} GB/s\n\n{HEADER}", file=out, flush=True)
    expected, reason = predicted(options)
    if reason:
        print(f"predictions left out: {reason}", file=out)
    stacks, model = {}, None
    for shape, projection, tokens, skew in options.plan:
        if options.budget is not None and time.monotonic() - begin > options.budget:
            skipped.append(label(shape, projection, tokens, skew))
            continue
        if shape.name != model:
            stacks.clear()  # before the next model's weights are made: both need not fit
            wanted = {p for s, p, _, _ in options.plan if s.name == shape.name}
            model, stacks = shape.name, make_stacks(shape, wanted, device, options.seed)
        case = Case(shape, projection, tokens, skew, options.seed + tokens, device, stacks)
        records.append(measure(case, peers, options, ceiling, expected.get(case.label)))
        print("\n".join(lines(records[-1])), file=out, flush=True)
    return ceiling, records, skipped


def main(argv=None):
    options = arguments(argv)
    if options.list:
        print("\n".join(label(*case) for case in options.plan))
        return 0
    if options.device != "cpu" and not torch.cuda.is_available():
        print("error: no CUDA device here; --device cpu runs a self-test", file=sys.stderr)
        return 2
    out = sys.stderr if options.json == "-" else sys.stdout
    facts = machine(torch.device(options.device))
    print(", ".join(f"{k} {v}" for k, v in facts.items() if v), file=out)
    if options.device == "cpu":
        print("self-test on the CPU: figures mean nothing", file=out)
    with torch.no_grad():
        ceiling, records, skipped = run(options, out)
    facts["clocks_after"] = clocks() if options.device != "cpu" else None
    failed = [(r["case"], name, r["peers"][name]["error"]) for r in records for name in wrong(r)]
    print("\n" + "\n".join(verdicts(records, ceiling)), file=out)
    if facts["clocks_after"]:
        print(f"clocks after the run: {facts['clocks_after']}", file=out)
    for case in skipped:
        print(f"left out, the time was up: {case}", file=out)
    for case, name, error in failed:
        print(f"WRONG: {case} {name}: tile error {error:.1e}", file=out)
    if options.json:
        settings = {k: v for k, v in vars(options).items() if k != "plan"}
        result = {"machine": facts, "options": settings, "tensor_flops": ceiling[0], "copy_bytes_per_s": ceiling[1],
                  "skipped": skipped, "records": records}  # fmt: skip
        with sys.stdout if options.json == "-" else open(options.json, "w", encoding="utf-8") as file:
            file.write(json.dumps(result, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
