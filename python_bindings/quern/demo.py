"""python -m quern.demo: a whole gpt-oss expert layer from real bitsandbytes weights on the CPU, checked and timed.

Each of the experts is quantized by bitsandbytes (NF4, nested absmax), packed, and run by kernels compiled from gpt_oss.qn. The peer
is the loop over experts (dequantize + F.linear: Linear4bit in train mode), timed in turn with Quern in the same process.
"""

import argparse
import logging
import os
import platform
import sys
import time

import torch

import quern
from quern import _layer

GATE = 6e-3  # relative L2 error of any 16 x 16 tile against the float32 loop; h is rounded to bfloat16 on the way


def arguments(argv):
    parser = argparse.ArgumentParser(prog="python -m quern.demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--experts", type=int, default=32, help="number of experts (default 32, as gpt-oss-20b)")
    parser.add_argument("--tokens", default="1,64,512", help="token counts, separated by commas (default 1,64,512)")
    parser.add_argument("--hidden", type=int, default=2880, help="hidden size (default 2880)")
    parser.add_argument("--intermediate", type=int, default=2880, help="intermediate size (default 2880)")
    parser.add_argument("--top-k", type=int, help="experts of a token (default: the model's)")
    parser.add_argument("--small", action="store_true", help="a small layer: 4 experts of 320 x 192, tokens 1,16,64")
    parser.add_argument("--checkpoint", metavar="PATH", help="run a real layer: a .safetensors file, its index, or a model folder")
    parser.add_argument("--layer", type=int, default=0, help="layer of the checkpoint (default 0)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.small:
        options.experts, options.hidden, options.intermediate, options.tokens = 4, 320, 192, "1,16,64"
    try:
        options.tokens = [int(t) for t in options.tokens.split(",")]
    except ValueError:
        parser.error(f"--tokens: found '{options.tokens}', expected numbers separated by commas")
    if min(options.tokens) < 1 or options.experts < 1 or min(options.hidden, options.intermediate) < 2:
        parser.error("sizes and token counts must be positive")
    return options


def bar(label):
    """A progress callback: one line that grows on a terminal, a few lines elsewhere."""
    start, terminal = time.time(), sys.stdout.isatty()

    def show(done, total):
        width = 40 * done // total
        text = f"{label} [{'#' * width}{'.' * (40 - width)}] {done}/{total}  {time.time() - start:.0f} s"
        if terminal:
            print("\r" + text, end="\n" if done == total else "", flush=True)
        elif done in (1, total) or done % max(1, total // 4) == 0:
            print(text, flush=True)

    return show


def cpu_name():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def size(count):
    return "n/a" if count is None else f"{count / 1e6:.1f} MB"


def prepare(options):
    """The layer in bitsandbytes' modules."""
    if options.checkpoint:
        print(f"Reading layer {options.layer} of {options.checkpoint}")
        return _layer.checkpoint_layer(options.checkpoint, options.layer)
    progress = bar("Quantizing with bitsandbytes (NF4, nested)")
    return _layer.random_layer(options.experts, options.hidden, options.intermediate, seed=options.seed, progress=progress)


class Packed:
    """The layer as Quern runs it."""

    def __init__(self, layer):
        self.module = quern.load(layer.kind + ".qn")
        joined = len(layer.gate_up[0]) > 1
        self.gate_up = quern.pack(layer.gate_up if joined else [group[0] for group in layer.gate_up])
        self.down = quern.pack(layer.down)
        biases = [layer.bias("gate_up"), layer.bias("down")]
        self.biases = [[b] for b in biases] if biases[0] is not None else [[], []]

    @property
    def nbytes(self):
        return self.gate_up.nbytes + self.down.nbytes

    def __call__(self, x, ids, weights):
        """float32 [T, H]; the routing's sort is a part of it."""
        route = quern.routing(ids, weights, num_experts=self.gate_up.num_experts)
        h = self.module.gate_up(x, route, self.gate_up, *self.biases[0])
        return self.module.down(h, route, self.down, *self.biases[1])


class Others:
    """Share of the machine's CPU time that other processes (and the host, as steal time) took while this was open."""

    @staticmethod
    def seconds():
        with open("/proc/stat") as file:
            values = [int(v) / os.sysconf("SC_CLK_TCK") for v in file.readline().split()[1:9]]
        own = os.times()
        return sum(values), sum(values) - values[3] - values[4] - own.user - own.system

    def __enter__(self):
        self.before = self.seconds()
        return self

    def __exit__(self, *_):
        total, busy = (now - then for now, then in zip(self.seconds(), self.before))
        self.share = max(0.0, busy / total) if total > 0 else 0.0


def compare(layer, packed, tokens, top_k, seed):
    """One row of the table, as a dict."""
    generator = torch.Generator().manual_seed(seed + tokens)
    x = torch.randn(tokens, layer.hidden, generator=generator).bfloat16()
    ids, weights = _layer.router(tokens, layer.num_experts, top_k, seed=seed + tokens)
    ours = lambda: packed(x, ids, weights)  # noqa: E731
    loop = lambda: _layer.loop(layer, x, ids, weights)  # noqa: E731
    exact = _layer.loop(layer, x, ids, weights, _layer.exact_project)
    row = {"tokens": tokens, "error": _layer.tile_error(ours(), exact), "loop error": _layer.tile_error(loop(), exact)}
    with Others() as others:
        times = _layer.interleaved({"loop": loop, "quern": ours}, 9 if tokens <= 64 else 5, budget=20)
    row["others"] = others.share
    row |= {name: _layer.median(values) for name, values in times.items()}
    row["memory"], row["loop memory"] = _layer.peak_extra(ours), _layer.peak_extra(loop)
    return row


def show(rows):
    print()
    print("            time per layer, ms              peak extra memory         worst 16x16 tile error")
    print("tokens      loop     Quern   ratio          loop        Quern         loop      Quern")
    print("-" * 88)
    for r in rows:
        times = f"{r['loop'] * 1e3:>10.1f}{r['quern'] * 1e3:>10.2f}{r['loop'] / r['quern']:>7.1f}x"
        print(f"{r['tokens']:>6}{times}{size(r['loop memory']):>14}{size(r['memory']):>13}{r['loop error']:>13.1e}{r['error']:>11.1e}")
    print("-" * 88)
    print("loop: dequantize + F.linear of each chosen expert (bitsandbytes Linear4bit in train mode), bfloat16")
    print("Times: medians of runs taken in turn. Memory: rise of the resident set above its level before a")
    print("call, outputs and h included. Errors: relative L2 against the float32 loop, exact decoded weights.")
    busiest = max(r["others"] for r in rows)
    if busiest > 0.05:
        print(f"NOTE: others used {busiest:.0%} of the CPU meanwhile. The loop suffers most from that (its threads spin at")
        print("barriers), so these ratios flatter Quern: repeat on an idle machine before quoting them.")


def main(argv=None):
    options = arguments(argv)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of an optional kernel that the loop does not use
    start = time.time()
    print(f"Quern {quern.__version__} on {cpu_name()}, {quern.num_threads()} threads ({quern.thread_library().split(' ')[0]}), torch {torch.__version__}")
    if quern.num_threads() != torch.get_num_threads():
        torch.set_num_threads(quern.num_threads())
    with torch.no_grad():
        layer = prepare(options)
        top_k = options.top_k or min(_layer.TOP_K[layer.kind], layer.num_experts)
        print(f"Layer: {layer.kind}, E = {layer.num_experts}, H = {layer.hidden}, I = {layer.intermediate}, top-{top_k}")
        begin = time.time()
        packed = Packed(layer)
        ratio = packed.nbytes / layer.weight_bytes
        theirs = size(layer.weight_bytes)
        print(f"Packed in {time.time() - begin:.1f} s: {size(packed.nbytes)}, {ratio:.2f} of bitsandbytes' {theirs}", flush=True)

        exact = torch.equal(packed.down.dequantize(), torch.stack([_layer.dequantized(m, packed.down.dtype) for m in layer.down]))
        print(f"Decoded weights of the down projection equal bitsandbytes' bit for bit: {'yes' if exact else 'NO'}")
        rows = []
        for tokens in options.tokens:
            before = quern.stats()
            rows.append(compare(layer, packed, tokens, top_k, options.seed))
            now = quern.stats()
            if now.compilations > before.compilations:
                kernels, ms = now.compilations - before.compilations, now.compile_ms - before.compile_ms
                print(f"Compiled {kernels} kernels from {packed.module.name} in {ms:.0f} ms")
            print(f"Measured {tokens} tokens", flush=True)
    show(rows)
    worst = max(row["error"] for row in rows)
    good = exact and worst <= GATE
    verdict = "PASSED" if good else "FAILED"
    print(f"\n{verdict}: worst tile error {worst:.1e}, gate {GATE:.0e}; {time.time() - start:.0f} s in all")
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
