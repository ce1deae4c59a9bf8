"""quern.load: sources, what modules and kernels show, and that bad texts give one clear error."""

import gc
import os

import pytest

import quern

DENSE = "codec c { table = [%s]  first = high  scale f32 per 64 }\n" % ", ".join(map(str, range(16))) + (
    "kernel mul(x: act[T, K], w: c[N, K]) -> y: act[T, N] { y[t, n] = sum(k) x[t, k] * w[n, k] }\n"
)


def test_shipped():
    for name in ("gpt_oss", "gpt_oss.qn", "qwen3.qn", "mixtral.qn", "linear.qn"):
        assert quern.load(name).kernels
    module = quern.load("gpt_oss")
    assert module.name == "gpt_oss.qn" and list(module.kernels) == ["gate_up", "down"] and "nf4" in module.codecs
    signature = "gate_up(x: act[T, K], route: routing[T, E], w: nf4[E, N, K], b: float[E, N]) -> h: act[R, N/2]"
    assert module.gate_up.signature == signature
    assert repr(module.gate_up) == f"<quern kernel {signature}>" and module.gate_up.__doc__.startswith(signature)
    assert repr(module).splitlines() == ["<quern module gpt_oss.qn: 2 kernels>", f"  {signature}", f"  {module.down.signature}"]
    assert {"gate_up", "down"} <= set(dir(module))
    with pytest.raises(AttributeError, match="gpt_oss.qn has no kernel 'up'; it has: gate_up, down"):
        module.up


def test_path(tmp_path):
    path = tmp_path / "mine.qn"
    path.write_text(DENSE)
    assert list(quern.load(path).kernels) == list(quern.load(str(path)).kernels) == ["mul"]
    assert quern.load(path).name == str(path)


def test_a_file_wins_over_a_shipped_name(tmp_path, monkeypatch):
    (tmp_path / "gpt_oss").write_text(DENSE)
    monkeypatch.chdir(tmp_path)
    assert list(quern.load("gpt_oss").kernels) == ["mul"]
    assert list(quern.load("gpt_oss.qn").kernels) == ["gate_up", "down"]


def test_text():
    module = quern.load(DENSE)
    assert module.name == "<text>" and list(module.kernels) == ["mul"]
    assert module.codecs["c"].table == [float(i) for i in range(16)] and module.codecs["c"].block == 64


def test_a_kernel_keeps_its_module():
    kernel, codec = quern.load(DENSE).mul, quern.load(DENSE).codecs["c"]
    gc.collect()
    assert kernel.signature.startswith("mul(") and codec.name == "c" and codec.table[15] == 15.0


def test_no_such_source(tmp_path):
    with pytest.raises(quern.ArgumentError, match="'nothing.qn' is neither a file nor a shipped one; shipped: .*gpt_oss.qn"):
        quern.load("nothing.qn")
    with pytest.raises(quern.ArgumentTypeError, match="'source': found int"):
        quern.load(3)
    (tmp_path / "latin.qn").write_bytes(b"# caf\xe9 {\n")
    with pytest.raises(quern.CompileError, match="not UTF-8 text"):
        quern.load(tmp_path / "latin.qn")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable(tmp_path):
    (tmp_path / "locked.qn").write_text(DENSE)
    (tmp_path / "locked.qn").chmod(0)
    with pytest.raises(quern.RuntimeFailure, match="Permission denied"):
        quern.load(tmp_path / "locked.qn")


def compile_error(text):
    with pytest.raises(quern.CompileError) as caught:
        quern.load(text)
    error = caught.value
    assert isinstance(error, ValueError) and error.rule and error.message and error.place.startswith("<text>:")
    assert len(str(error)) < 2000, "a message must stay readable"
    return error


def test_a_compile_error_shows_everything():
    error = compile_error("kernel k(x: act[T, K]) -> y: act[T, K] {\n  y[t, k] = x[t, q]\n}")
    text = str(error)
    assert error.place.startswith("<text>:2:") and error.place in text and f"[{error.rule}]" in text
    assert "y[t, k] = x[t, q]" in text and text.splitlines()[-1].split() == ["|", "^"]


def test_recursive_fn():
    assert "f" in compile_error("fn f(a) { return f(a) }\n" + DENSE).message


def test_table_of_15():
    assert "15" in compile_error(DENSE.replace(", 15]", "]")).message


def test_empty_file(tmp_path):
    (tmp_path / "empty.qn").write_text("")
    with pytest.raises(quern.CompileError) as caught:
        quern.load(tmp_path / "empty.qn")
    assert "empty.qn" in caught.value.place


def test_ten_megabyte_line():
    compile_error("kernel " + "k" * 10_000_000 + " {")


def test_a_million_brackets():
    head = "kernel k(x: act[T, K]) -> y: act[T, K] { y[t, k] = "
    compile_error(head + "(" * 1_000_000 + "x[t, k]" + ")" * 1_000_000 + " }")
    compile_error(head + "-" * 1_000_000 + "x[t, k] }")


def test_nul_and_binary():
    compile_error("kernel k\0 {")
    compile_error("\x01\x02{\x03")
