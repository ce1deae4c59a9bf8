"""`quern warmup`: what it compiles is what a call asks for; it goes on after a kill; ranks share; errors say what was found."""
import json
import os
import pty
import shutil
import signal
import subprocess

import pytest

from interp.compare import find_quern

QUERN = find_quern()
pytestmark = pytest.mark.skipif(not QUERN, reason="no quern program: neither QUERN_CLI nor build/bin/quern exists; run scripts/setup.sh")
SMALL = ["gpt_oss", "--kernel", "gate_up", "--dim", "E=3,N=64,K=64,top_k=2"]
MANY = [*SMALL, "--arch", "sm_90a", "--tokens", "1..700", "--jobs", "1"]  # 10 images, each of some hundred milliseconds


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def start(*arguments, **environment):
    return subprocess.Popen([QUERN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment)


def quern(*arguments, **environment):
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def warm(*arguments, **environment):
    result = quern("warmup", *arguments, "--json", **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def fails(result, message, code=2):
    assert result.returncode == code, result.stdout + result.stderr
    assert message in result.stderr


@pytest.fixture(scope="module")
def compiler():
    result = quern("run", "linear", "--kernel", "linear", "--dim", "T=1,N=32,K=64", "--repeat", 0)
    if "libquern-jit.so" in result.stderr:
        pytest.skip("the compiler library libquern-jit.so is not built")
    assert result.returncode == 0, result.stderr


def test_a_named_folder_that_cannot_be_used_is_an_error(cache, tmp_path):
    (tmp_path / "file").write_text("kept")
    fails(quern("warmup", *SMALL, QUERN_CACHE_DIR=tmp_path / "file"), "'file' is not a folder")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_warm_call_needs_no_compiler(cache, compiler):
    first = warm(*SMALL)
    assert (first["compiled"], first["cached"], first["failed"]) == (1, 0, 0)
    again = warm(*SMALL)
    assert (again["compiled"], again["cached"]) == (0, 1)
    run = ["run", "gpt_oss", "--kernel", "gate_up", "--repeat", 0, "--check", "--dim"]
    found = quern(*run, "E=3,N=64,K=64,top_k=2,T=50", QUERN_JIT_LIBRARY="/nonexistent/libquern-jit.so")
    assert found.returncode == 0 and "PASS" in found.stdout, found.stderr
    other = quern(*run, "E=3,N=64,K=128,top_k=2,T=50", QUERN_JIT_LIBRARY="/nonexistent/libquern-jit.so")
    fails(other, "/nonexistent/libquern-jit.so")


def test_ahead_of_time_for_a_gpu_in_every_bucket(cache, compiler):
    shapes = [*SMALL, "--arch", "sm_90a", "--tokens", "1..12"]
    first = warm(*shapes)
    assert [e["rows_per_expert"] for e in first["entries"]] == [1, 2, 4, 8]
    assert first["compiled"] == 4 and first["arch"] == "sm_90a"
    assert warm(*SMALL, "--arch", "sm_90a", "--tokens", "12")["cached"] == 1
    assert quern("cache", "verify").returncode == 0


def test_explain_rounds_rows_as_a_call_does(cache, compiler):
    """26 rows on 3 experts are 9 for each, 16 as a power of two; who says nothing of tokens is told what is there."""
    assert [e["rows_per_expert"] for e in warm(*SMALL, "--arch", "sm_90a", "--tokens", "13")["entries"]] == [16]

    def explain(dims):
        return quern("cache", "explain", *SMALL[:3], "--dim", dims, "--arch", "sm_90a")

    for tokens, code in ((13, 0), (20, 0), (12, 1), (25, 1)):
        result = explain(f"{SMALL[-1]},T={tokens}")
        assert result.returncode == code, result.stdout
        assert ("\nhit " in result.stdout) == (code == 0) and ("differs in 'rows per expert'" in result.stdout) == (code == 1)
    untold = explain(SMALL[-1])
    assert untold.returncode == 0 and "the default schedule of 16 rows per expert" in untold.stdout


def test_goes_on_after_a_kill(cache, compiler):
    process = start("warmup", *MANY)
    for _ in range(2):  # two are done, the third has begun
        line = process.stderr.readline()
        assert "compiled in" in line
    process.kill()
    process.communicate()
    rest = warm(*MANY)
    assert rest["cached"] >= 2 and rest["compiled"] >= 1
    assert rest["cached"] + rest["compiled"] == len(rest["entries"]) == 10
    assert quern("cache", "verify").returncode == 0


def test_ctrl_c_ends_between_two_images(cache, compiler):
    process = start("warmup", *MANY, "--json")
    assert "compiled in" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    report = json.loads(out)
    states = [e["state"] for e in report["entries"]]
    assert report["interrupted"] and "not done" in states and "compiled" in states and "failed" not in states


def test_ranks_share(cache, compiler):
    shapes = [*SMALL, "--arch", "sm_90a", "--tokens", "1..100", "--json", "--jobs", "1"]
    processes = [start("warmup", *shapes, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank)) for rank in range(2)]
    reports = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        reports.append(json.loads(out))
    count = len(reports[0]["entries"])
    assert count == 8 and all(r["world_size"] == 2 for r in reports)
    done = {e["key"] for r in reports for e in r["entries"] if e["state"] == "compiled"}
    assert len(done) == count  # nobody found what nobody made
    for r in reports:  # each has everything at its end
        assert {e["state"] for e in r["entries"]} <= {"compiled", "cached", "found"}
        assert r["compiled"] + r["cached"] + r["found"] == count
    assert sum(r["compiled"] for r in reports) == count  # each is counted once over the ranks


def test_what_another_process_compiles_meanwhile_is_counted_apart(cache, tmp_path, compiler):
    """The second process comes to an image while the first one's assembler stands still."""
    real = shutil.which("ptxas")
    if not real:
        pytest.skip("no ptxas on the PATH")
    ptxas, go = tmp_path / "ptxas", tmp_path / "go"
    ptxas.write_text(f"#!/bin/sh\n[ $1 = --version ] || while [ ! -e {go} ]; do sleep 0.01; done\nexec {real} \"$@\"\n")
    ptxas.chmod(0o755)
    command = ["warmup", *SMALL, "--arch", "sm_90a", "--tokens", "4", "--jobs", "1", "--json"]

    def reached_the_image():
        """A process that has found nothing in the cache; it draws its progress when it begins to make the image."""
        parent, child = pty.openpty()
        process = subprocess.Popen([QUERN, *command], stdout=subprocess.PIPE, stderr=child, env=os.environ | {"QUERN_PTXAS": str(ptxas)})
        os.close(child)
        text = b""
        while b"gate_up" not in text:
            text += os.read(parent, 4096)
        return process, parent

    processes = [reached_the_image() for _ in range(2)]
    go.touch()
    reports = []
    for process, parent in processes:
        out, _ = process.communicate(timeout=120)
        os.close(parent)
        assert process.returncode == 0
        reports.append(json.loads(out))
    assert [r["cached"] for r in reports] == [0, 0]
    assert sorted((r["compiled"], r["found"]) for r in reports) == [(0, 1), (1, 0)]
    assert sorted(e["state"] for r in reports for e in r["entries"]) == ["compiled", "found"]


def test_one_rank_takes_what_the_others_left(cache, compiler):
    report = warm(*SMALL, "--arch", "sm_90a", "--tokens", "1..12", RANK="1", WORLD_SIZE="3")
    assert report["compiled"] == 4
    fails(quern("warmup", *SMALL, RANK="3", WORLD_SIZE="3"), "--rank: found rank 3 of 3, expected 0 to 2")


def test_a_model_by_its_config(cache, tmp_path, compiler):
    config = tmp_path / "model" / "config.json"
    config.parent.mkdir()
    shape = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "hidden_size": 64, "moe_intermediate_size": 32}
    config.write_text(json.dumps(shape))
    for path in (config, config.parent):
        report = warm("--model", path, "--arch", "cpu")
        assert {(e["kernel"], e["dims"]["N"], e["dims"]["K"]) for e in report["entries"]} == {("gate_up", 64, 64), ("down", 64, 32)}
    config.write_text(json.dumps(shape | {"model_type": "llama"}))
    fails(quern("warmup", "--model", config), 'model_type is "llama", for which no kernels are shipped')


def test_transformers_writes_what_warmup_reads(cache, tmp_path, compiler):
    transformers = pytest.importorskip("transformers")
    configs = {
        "gpt_oss": transformers.GptOssConfig(num_local_experts=4, num_experts_per_tok=2, hidden_size=64, intermediate_size=32, num_hidden_layers=2),
        "qwen3": transformers.Qwen3MoeConfig(num_experts=4, num_experts_per_tok=2, hidden_size=64, moe_intermediate_size=32, num_hidden_layers=2),
        "mixtral": transformers.MixtralConfig(num_local_experts=4, num_experts_per_tok=2, hidden_size=64, intermediate_size=32, num_hidden_layers=2),
    }
    for name, config in configs.items():
        config.save_pretrained(tmp_path / name)
        entries = warm("--model", tmp_path / name, "--arch", "cpu")["entries"]
        assert {e["file"] for e in entries} == {name + ".qn"}
        assert {(e["dims"]["E"], e["dims"]["top_k"], e["dims"]["N"], e["dims"]["K"]) for e in entries} == {(4, 2, 64, 64), (4, 2, 64, 32)}


def test_progress_on_a_terminal_is_one_line(cache, compiler):
    parent, child = pty.openpty()
    process = subprocess.Popen([QUERN, "warmup", *SMALL, "--tokens", "64"], stdout=subprocess.DEVNULL, stderr=child)
    os.close(child)
    text = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        text += piece
    os.close(parent)
    assert process.wait(timeout=60) == 0
    assert b"\r\x1b[K[" in text and b"1/1" in text and b"\n" not in text


def test_errors(cache):
    warmup = ("warmup",)
    fails(quern(*warmup), "found neither FILE nor --model, expected one of them")
    fails(quern(*warmup, "--model", "gpt-oss-20"), "is neither a known model nor a config.json; did you mean 'gpt-oss-20b'?")
    fails(quern(*warmup, "gpt_oss", "--model", "gpt-oss-20b"), "FILE excludes --model")
    fails(quern(*warmup, "--model", "gpt-oss-20b", "--dim", "N=3"), "--dim: a model has its own dimensions")
    fails(quern(*warmup, "gpt_oss", "--kernel", "down", "--dim", "N=64"), "--dim: kernel 'down' also needs ")
    fails(quern(*warmup, *SMALL, "--tokens", "0"), "--tokens: found '0', expected a count or LOW..HIGH")
    fails(quern(*warmup, *SMALL, "--arch", "sm_90"), "--arch: sm_90 not in {cpu,sm_90a}")
    if not os.path.exists("/proc/driver/nvidia/gpus"):
        fails(quern(*warmup, *SMALL, "--arch", "sm_90a", "--tune"), "--tune: tuning measures, and no GPU was found here")


def test_a_failure_is_reported(cache, compiler):
    result = quern("warmup", *SMALL, "--arch", "sm_90a", "--tokens", "1..3", "--json", QUERN_GPU_SCHEDULE="bn=7")
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert report["failed"] == len(report["entries"]) >= 1
    assert "bn: must be 8, 16" in report["entries"][0]["detail"] and "bn: must be 8, 16" in result.stderr
