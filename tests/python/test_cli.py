"""The command line: exit codes, messages, JSON, and stages that print and read back."""
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from interp.compare import find_quern

QUERN = find_quern()
pytestmark = pytest.mark.skipif(not QUERN, reason="no quern program: neither QUERN_CLI nor build/bin/quern exists; run scripts/setup.sh")
SMALL = ["--dim", "T=9,E=3,N=64,K=64,top_k=2"]


def quern(*arguments, text=""):
    return subprocess.run([QUERN, *map(str, arguments)], input=text, capture_output=True, text=True, timeout=300)


def fails(result, message, code=2):
    assert result.returncode == code, result.stdout + result.stderr
    assert message in result.stderr
    return result


@pytest.fixture(scope="module")
def compiled():
    """Skips when the compiler library is not built."""
    result = quern("run", "linear", "--kernel", "linear", "--dim", "T=1,N=32,K=64", "--repeat", 0)
    if "libquern-jit.so" in result.stderr:
        pytest.skip("the compiler library libquern-jit.so is not built")
    assert result.returncode == 0, result.stderr


def test_version_and_help():
    assert re.fullmatch(r"quern \d+\.\d+\.\d+\n", quern("--version").stdout)
    for command in ("run", "compile", "check", "list"):
        result = quern(command, "--help")
        assert result.returncode == 0 and "Example" in result.stdout
        assert command in quern("--help").stdout
    assert "run-batch" not in quern("--help").stdout
    fails(quern("run", "gpt_oss", "--layout", "rows"), "--layout: rows not in {cpu,bnb,gpu}")
    fails(quern(), "subcommand is required")


def test_help_names_every_environment_variable():
    rows = re.findall(r"^\| `(QUERN_\w+)` \|([^|]*)\|([^|]*)\|", (Path(__file__).parents[2] / "docs" / "knobs.md").read_text(), re.M)
    text = quern("--help").stdout
    assert len(rows) > 10
    for name, values, default in rows:
        assert f"\n  {name}\n" in text and f"{values.strip()}; default: {default.strip()}\n" in text


def test_list_shows_signatures():
    out = quern("list").stdout
    assert "kernel down(h: act[R, K], route: routing[T, E], w: nf4[E, N, K], b: float[E, N]) -> y: f32[T, N]" in out
    assert "codec mxfp4: scale e8m0 per 32" in out
    assert quern("list", "linear").stdout in out


def test_check(tmp_path):
    good, bad, empty = tmp_path / "good.qn", tmp_path / "bad.qn", tmp_path / "empty.qn"
    good.write_text("fn twice(a) { return 2 * a }\n")
    bad.write_text("kernel k(x: act[T, N]) -> y: act[T, N] {\n  y[t, n] = x[t, m]\n}\n")
    empty.write_text("")
    assert quern("check", good, "gpt_oss").returncode == 0
    result = fails(quern("check", bad, good), f"{bad}:2:18: found 'm' as an index of 'x', expected 'n' [access.column]\n")
    assert "  2 |   y[t, n] = x[t, m]\n" in result.stderr and f"{good}: ok" in result.stdout
    fails(quern("check", empty), "[file.empty]")
    fails(quern("check", tmp_path), "cannot be read")
    fails(quern("check", "-", text="kernel"), "<stdin>:1:7: ")


def test_names_are_suggested():
    fails(quern("run", "gpt_os"), "gpt_os: found neither a file nor a shipped file of this name; did you mean 'gpt_oss'?\nshipped: ")
    fails(quern("run", "gpt_oss", "--kernel", "gate_pu"), "gpt_oss.qn: has no kernel 'gate_pu'; did you mean 'gate_up'?\nkernels: gate_up, down")
    fails(quern("run", "gpt_oss"), "gpt_oss.qn: has several kernels; name one with --kernel")
    fails(quern("run", "nf4"), "nf4.qn: has no kernel")


def test_bad_options():
    run = ("run", "gpt_oss", "--kernel", "down", "--target", "interp")
    fails(quern(*run, "--dim", "T"), "--dim: found 'T', expected NAME=NUMBER")
    fails(quern(*run, "--dim", "T=1,T=2"), "--dim: 'T' is given twice")
    fails(quern(*run, "--dim", "M=1"), "--dim M: kernel 'down' has no dimension 'M'; expected one of ")
    fails(quern(*run, "--dim", "T=99999999999999999999"), "expected NAME=NUMBER")
    fails(quern(*run, "--block", 48), "block size is 48; expected a power of two in 32..4096")
    fails(quern(*run, "--block", -64), "block size is -64")
    fails(quern(*run, "--dim", "E=0"), "--dim E: found 0 experts, expected at least one")


def test_interp_target_is_deterministic():
    results = [quern("run", "gpt_oss", "--kernel", "gate_up", "--target", "interp", "--json", "--seed", s, *SMALL) for s in (1, 1, 2)]
    norms = [json.loads(r.stdout)["norms"]["h"] for r in results]
    assert norms[0] == norms[1] != norms[2]


@pytest.mark.parametrize("routing", ["uniform", "zipf", "one", "empty"])
def test_run_checks_the_kernel(compiled, routing):
    result = quern("run", "gpt_oss", "--kernel", "down", "--routing", routing, "--check", "--json", "--repeat", 3, *SMALL)
    assert result.returncode == 0, result.stdout + result.stderr
    out = json.loads(result.stdout)
    assert out["pass"] and out["dims"]["R"] == 18 and len(out["times_ms"]) == 3
    assert out["rows"] == (0 if routing == "empty" else 18)
    assert (out["outputs"][0]["tile"]["ratio"] == 0) == (routing == "empty")
    table = quern("run", "gpt_oss", "--kernel", "down", "--routing", routing, "--check", *SMALL).stdout
    assert re.search(r"error +y: worst tile \S+ relative, \S+ of the gate, rows \d+\.\.\d+, columns \d+\.\.\d+", table)
    assert table.endswith("check     PASS\n")


def test_exact_data_give_exact_results(compiled):
    result = quern("run", "gpt_oss", "--kernel", "down", "--exact", "--check", "--json", *SMALL)
    assert json.loads(result.stdout)["outputs"][0]["tile"]["relative"] == 0


def test_ast_reads_back(tmp_path):
    first = quern("compile", "gpt_oss_lora", "--emit=ast").stdout
    assert "kernel gate_up(" in first
    assert quern("compile", "-", "--emit=ast", text=first).stdout == first
    target = tmp_path / "out.qn"
    assert quern("compile", "gpt_oss_lora", "--emit=ast", "-o", target).stdout == ""
    assert target.read_text() == first
    fails(quern("compile", "gpt_oss", "--emit=ast", "-o", tmp_path / "no" / "out"), "cannot be written")


@pytest.mark.parametrize("stage", ["quern", "scheduled"])
def test_stages_read_back(compiled, tmp_path, stage):
    path = tmp_path / "stage.mlir"
    result = quern("compile", "gpt_oss", "--kernel", "down", "--emit", stage, "--dim", "N=64", "-o", path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "chosen here: K=256\n"
    assert quern("compile", path, "--input-stage", stage, "--emit", stage).stdout == path.read_text()
    direct = quern("compile", "gpt_oss", "--kernel", "down", "--emit", "llvm", "--dim", "N=64").stdout
    source = ["--source", "gpt_oss", "--kernel", "down", "--dim", "N=64"] if stage == "quern" else []
    assert direct and quern("compile", path, "--input-stage", stage, *source, "--emit", "llvm").stdout == direct
    if stage == "quern":
        fails(quern("compile", path, "--input-stage", stage, "--emit", "llvm"), "expected --source with its .qn file")


def test_batch_survives_bad_requests():
    lines = ["", "{", "[]", '{"text": 3}', '{"text": "kernel"}', '{"text": "use nf4", "kernel": "none"}', '{"text": "use nf4"}']
    answers = [json.loads(line) for line in quern("run-batch", text="\n".join(lines) + "\n").stdout.splitlines()]
    assert [a["ok"] for a in answers] == [False] * 6 + [True]
    assert answers[4]["kind"] == "user" and answers[4]["rule"] == "syntax"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("command", ["list", "--help", "list linear", "doctor --json"])
def test_a_full_disk_under_the_output(command):
    """Texts that are written at once and texts that are written when the program ends."""
    with open("/dev/full", "w") as full:
        result = subprocess.run([QUERN, *command.split()], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    fails(result, "the output cannot be written: No space left on device")
