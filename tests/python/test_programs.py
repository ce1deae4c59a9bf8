"""Random programs: Quern's front end and fp64 oracle against the independent interpreter in interp/, and a sample on the CPU target.

QUERN_PROGRAMS sets their number (default 300; the full run is 100000), QUERN_CPU_PROGRAMS that of the sample (default 40), QUERN_SEED
the first seed. A failure prints the program's seed and text; `make_case(seed, ...)` brings it back.
"""
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices of a few dozen elements

import numpy as np
import pytest

from interp.checks import load
from interp.compare import Batch, compare_oracle, compare_target, find_quern, make_case, unhex
from interp.lexer import QnError

PROGRAMS = int(os.environ.get("QUERN_PROGRAMS", "300"))
CPU_PROGRAMS = int(os.environ.get("QUERN_CPU_PROGRAMS", "40"))
SEED = int(os.environ.get("QUERN_SEED", "0"))
MAX_SHOWN = 3


@pytest.fixture(scope="module")
def batch():
    quern = find_quern()
    if not quern:
        pytest.skip("no quern program: neither QUERN_CLI nor build/bin/quern exists; run scripts/setup.sh")
    out = Batch(quern)
    yield out
    out.close()


def judge(cases, compare):
    """Runs all cases, then fails with the first few disagreements."""
    failures, in_doubt, accepted, count = [], [], 0, 0
    for case in cases:
        count += 1
        accepted += not case.error
        if problem := compare(case):
            failures.append(f"{case}\n-- {problem}")
            if len(failures) == 1000:
                break
        if case.in_doubt:
            in_doubt.append(case.seed)
    text = "\n\n".join(failures[:MAX_SHOWN])
    print(f"{count} programs from seed {SEED}, {accepted} accepted, {len(failures)} disagreements, in doubt: {in_doubt}")
    assert not failures, f"{len(failures)} of {count} programs disagree (first seed {SEED}):\n{text}"
    assert len(in_doubt) <= 1 + count // 5000, f"too many comparisons are too close to call: seeds {in_doubt}"
    return accepted


def test_programs(batch):
    """Legal programs on ordinary data, every third with NaN, infinities and subnormals: same outputs."""
    cases = (make_case(SEED + i, special=i % 3 == 2) for i in range(PROGRAMS))
    accepted = judge(cases, lambda c: compare_oracle(c, batch.ask(c.request("interp"))))
    assert accepted == PROGRAMS, "the generator made programs that this interpreter rejects"


def test_mutants(batch):
    """Programs with a few tokens changed: both accept and agree, or both reject; no crash. They are cheap: few pass the checks."""
    count = max(PROGRAMS, min(4 * PROGRAMS, 2000))
    cases = (make_case(SEED + i, mutant=True) for i in range(count))
    accepted = judge(cases, lambda c: compare_oracle(c, batch.ask(c.request("interp"))))
    assert 0 < accepted < count // 2 + 1, f"{accepted} mutants were accepted: the mutations are too harsh or too mild"


def test_cpu_target(batch):
    """A sample compiled and run on the CPU target: every element within the gate."""

    def compare(case):
        oracle = batch.ask(case.request("interp"))
        return compare_oracle(case, oracle) or compare_target(case, oracle, batch.ask(case.request("cpu")))

    if CPU_PROGRAMS:
        probe = batch.ask(make_case(SEED, layout="cpu").request("cpu"))
        if not probe["ok"] and "libquern-jit.so" in probe["error"]:
            pytest.skip("the compiler library libquern-jit.so is not built")
    judge((make_case(SEED + i, layout="cpu") for i in range(CPU_PROGRAMS)), compare)


CONSTRUCTS = ["use ", "codec ", "first = high", "first = low", "scale f32", "scale bf16", "scale e8m0", "zero u4", "fn ", "min(", "max(",
              "clamp(", "exp(", "sigmoid(", "tanh(", "erf(", "select(", "2*j+1", "j + N/2", ".weight", "+=", ".token", ".expert",
              "routing[", "act[", "float[", "bf16[", "f16[", ": f32,", "o1", "sum(p) (sum(k)", "sum(p) y", "[R, K]", "== ", "!= "]


def test_every_construct_is_generated():
    text = "\n".join(make_case(seed).text for seed in range(200))
    assert [c for c in CONSTRUCTS if c not in text] == []


def test_comparison_can_fail(batch):
    """A value off by a few fp64 roundings beyond the limit, a NaN, and a rejected program are all seen."""
    case = next(c for c in map(make_case, range(100)) if all(v.size and np.isfinite(v).all() for v in c.expected.values()))
    answer = batch.ask(case.request("interp"))
    assert compare_oracle(case, answer) is None
    name = next(iter(case.expected))
    right, place = case.expected[name], np.unravel_index(np.argmax(np.abs(case.expected[name])), case.expected[name].shape)
    magnitude = unhex(answer["outputs"][0]["magnitude"], right.shape)[place]
    for value in (right[place] + magnitude * 2.0**-40 + abs(right[place]) * 2.0**-40, np.nan, np.inf):
        case.expected[name] = right.copy()
        case.expected[name][place] = value
        assert f"{name}" in compare_oracle(case, answer)
    case.expected[name] = right
    wrong = batch.ask({"text": "kernel"})
    assert compare_oracle(case, wrong).startswith("quern: user error")
    case.error = "rejected"
    assert compare_oracle(case, answer) == "quern accepts it"


INVALID = {
    "kernel k(x: act[T, K], w: f32[N, K]) -> y: act[T, N] { y[t, n] += sum(k) x[t, k] * w[n, k] }": "assign.combine",
    "kernel k(x: act[T, K], w: f32[N, K]) -> y: act[T, N] { y[t, n] = sum(k) x[t, k] * w[k, n] }": "access.column",
    "kernel k(x: act[T, K], w: f32[N, K], b: f32[N]) -> y: act[T, N] { y[t, n] = sum(k) x[t, k] * w[n, k] + b[n+1] }": "access.range",
    "fn f(a) { return f(a) } kernel k(x: act[T, N]) -> y: act[T, N] { y[t, n] = f(x[t, n]) }": "fn.unknown",
    "codec c { table = [1, 2] first = high scale f32 per 64 }": "codec.table",
    "kernel k(x: act[T, N]) -> y: act[T, N] { y[t, n] = 1e39 * x[t, n] }": "number.range",
}


@pytest.mark.parametrize("text,rule", INVALID.items())
def test_interpreter_rejects(text, rule):
    """The second implementation has the rules too (otherwise both-reject would prove nothing)."""
    with pytest.raises(QnError) as caught:
        load(text)
    assert caught.value.rule == rule
