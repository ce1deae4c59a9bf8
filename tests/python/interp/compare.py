"""Drives `quern run-batch` and compares its answers with this interpreter's."""
import json
import os
import random
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import formats
from .checks import load
from .data import DataMaker, choose_dims
from .evaluate import evaluate
from .lexer import QnError
from .programs import make_program, mutate


class Batch:
    """One `quern run-batch` process."""

    def __init__(self, quern, threads=1):
        self.quern, self.threads = quern, threads
        self.start()

    def start(self):
        environment = os.environ | {"QUERN_NUM_THREADS": str(self.threads)}
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen([self.quern, "run-batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, env=environment)

    def ask(self, request):
        """The answer; a process that died gives {"ok": False, "kind": "crash"} and is started anew."""
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if line:
            return json.loads(line)
        self.process.wait()
        self.stderr.seek(0)
        text = self.stderr.read().decode(errors="replace")
        code = self.process.returncode
        self.start()
        return {"ok": False, "kind": "crash", "error": f"exit code {code}\n{text}"}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


@dataclass
class Case:
    """A program, its data and the outputs expected of it; `error` is set instead when this interpreter rejects the text."""
    seed: int
    text: str
    error: str = ""
    kernel: object = None
    arguments: dict = None
    expected: dict = None
    in_doubt: bool = False  # a comparison in `select` was too close to call; see compare_oracle

    def request(self, target):
        out = {"text": self.text, "target": target}
        if self.kernel is not None:
            out |= {"kernel": self.kernel.name, "args": [argument(v) for v in self.arguments.values()]}
        return out

    def __str__(self):
        out = f"seed {self.seed}\n{self.text}"
        if self.error:
            return f"{out}\nPython rejects it: {self.error}"
        for name, value in (self.arguments or {}).items():
            shape = getattr(value, "shape", value)
            extra = {k: getattr(value, k) for k in ("dtype", "state", "block", "layout") if hasattr(value, k)}
            out += f"\n{name}: {shape} {extra if extra else ''}"
        return out


def argument(value):
    return {"scalar": value} if isinstance(value, float) else value.json()


def make_case(seed, mutant=False, special=False, layout=None):
    """Deterministic in its arguments."""
    rng = random.Random(seed)
    case = Case(seed, make_program(rng))
    if mutant:
        case.text = mutate(rng, case.text)
    try:
        program = load(case.text)
    except QnError as e:
        case.error = str(e)
        return case
    kernels = list(program.kernels.values())
    dims = choose_dims(rng, kernels[0]) if kernels else None
    if dims is None:  # nothing to run; the text alone is compared
        return case
    case.kernel = kernels[0]
    case.arguments = DataMaker(rng, program, case.kernel, dims, special, layout).run()
    case.expected = evaluate(program, case.kernel, case.arguments, full_dims(case, dims))
    return case


def full_dims(case, dims):
    routing = case.kernel.routing
    return dims | ({"R": dims[routing.dims[0].symbol] * case.arguments[routing.name].top_k} if routing else {})


def unhex(text, shape):
    return np.frombuffer(bytes.fromhex(text), np.float64).reshape(shape)


def same_specials(a, b):
    """NaN meets NaN and infinity the same infinity."""
    return np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(np.where(np.isinf(a), a, 0), np.where(np.isinf(b), b, 0))


def compare_oracle(case, answer):
    """None, or what differs between the C++ oracle's answer and this interpreter."""
    if not answer["ok"]:
        if answer["kind"] != "user" or not case.error:
            return f"quern: {answer['kind']} error\n{answer['error']}"
        return None
    if case.error:
        return "quern accepts it"
    for output in answer["outputs"]:
        found, magnitude = unhex(output["values"], output["shape"]), unhex(output["magnitude"], output["shape"])
        wanted = case.expected[output["name"]]
        if found.shape != wanted.shape:
            return f"{output['name']}: shape {found.shape}, expected {wanted.shape}"
        if not same_specials(found, wanted):
            return f"{output['name']}: NaN or infinity differ\nfound\n{found}\nexpected\n{wanted}"
        # The magnitude is the fp32 error in units of 2^-20; fp64 has 29 more bits, the orders of the sums differ.
        finite = np.isfinite(found) & np.isfinite(magnitude)
        limit = np.where(finite, magnitude, 0) * 2.0**-47 + np.abs(np.where(finite, wanted, 0)) * 2.0**-44 + 1e-300
        with np.errstate(invalid="ignore"):
            difference = np.abs(found - wanted)
            bad = finite & (difference > limit)
            # tanh(20.0) == 1.0 depends on the last bit of tanh, in which libraries differ. Where the sides of a comparison are that close,
            # the magnitude covers the difference of the branches: such elements are counted, and test_programs.py limits their number.
            close = bad & (difference <= magnitude * 2.0**-20)
        if "select" in case.text and close.any():
            case.in_doubt, bad = True, bad & ~close
        if bad.any():
            at = tuple(np.argwhere(bad)[0])
            return f"{output['name']}{at}: found {found[at]!r}, expected {wanted[at]!r}, limit {limit[at]!r}"
    return None


def compare_target(case, oracle, answer):
    """None, or where a compiled kernel's outputs leave the per-element gate around this interpreter's fp64 values."""
    if not answer["ok"]:
        return f"quern: {answer['kind']} error\n{answer['error']}"
    for output, reference in zip(answer["outputs"], oracle["outputs"]):
        found, magnitude = unhex(output["values"], output["shape"]), unhex(reference["magnitude"], output["shape"])
        wanted, dtype = case.expected[output["name"]], output["dtype"]
        largest = {"f32": 3.4028234e38, "bf16": 3.3895314e38, "f16": 65504.0}[dtype]
        reliable = ~np.isfinite(wanted) | (np.isfinite(magnitude) & (np.abs(wanted) + magnitude * 2.0**-20 < largest))
        wanted, found = np.where(reliable, wanted, 0), np.where(reliable, found, 0)
        if not same_specials(found, wanted):
            return f"{output['name']}: NaN or infinity differ\nfound\n{found}\nexpected\n{wanted}"
        scaled = np.where(np.isfinite(magnitude), magnitude, 0) * 2.0**-20
        limit = scaled + formats.half_ulp(np.abs(wanted) + scaled, dtype) + 2.0**-126
        with np.errstate(invalid="ignore"):
            bad = np.isfinite(wanted) & (np.abs(found - wanted) > limit)
        if bad.any():
            at = tuple(np.argwhere(bad)[0])
            return f"{output['name']}{at}: found {found[at]!r}, expected {wanted[at]!r}, limit {limit[at]!r}"
    return None


def find_quern():
    """QUERN_CLI, else bin/quern of the build folder (QUERN_BUILD_DIR, else build), else None."""
    root = Path(__file__).resolve().parents[3]
    path = os.environ.get("QUERN_CLI") or str(Path(os.environ.get("QUERN_BUILD_DIR", root / "build")) / "bin" / "quern")
    return path if os.access(path, os.X_OK) else None
