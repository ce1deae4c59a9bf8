"""`quern tune`: the table, the JSON and the page show the same tuning; records are found again."""
import json
import os
import subprocess
from html.parser import HTMLParser

import pytest

from interp.compare import find_quern

QUERN = find_quern()
pytestmark = pytest.mark.skipif(not QUERN, reason="no quern program: neither QUERN_CLI nor build/bin/quern exists; run scripts/setup.sh")
SHAPE = ["tune", "gpt_oss", "--kernel", "gate_up", "--dim", "E=4,N=64,K=64,top_k=2"]
OPTIONAL_END = {"td", "tr"}
VOID = {"meta", "line", "path", "circle", "polyline"}


def quern(*arguments):
    return subprocess.run([QUERN, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUERN_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def compiler():
    result = quern("run", "linear", "--kernel", "linear", "--dim", "T=1,N=32,K=64", "--repeat", 0)
    if "libquern-jit.so" in result.stderr:
        pytest.skip("the compiler library libquern-jit.so is not built")


class Page(HTMLParser):
    """Open tags must be closed; everything that a page could fetch is collected."""

    def __init__(self, text):
        super().__init__()
        self.open, self.outside, self.counts, self.text = [], [], {}, ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.outside += [value for name, value in attributes if name in ("src", "href", "xlink:href", "data", "action")]
        if tag not in VOID | OPTIONAL_END:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        if tag not in OPTIONAL_END:
            assert self.open and self.open.pop() == tag, f"{tag} at line {self.getpos()}"

    def handle_data(self, data):
        self.text += data


def test_a_tuning_is_shown_kept_and_found_again(tmp_path, compiler):
    page = tmp_path / "tune.html"
    command = [*SHAPE, "--rows", "4", "--candidates", "2", "--seconds", "20", "--json", "--report", page]
    result = quern(*command)
    call = json.loads(result.stdout)["calls"][0]
    if "cold times cannot be told from warm ones" in call["refused"]:
        assert result.returncode == 1 and "not measured" in result.stderr
        pytest.skip("this machine is too busy for the tuner's self-check: " + call["refused"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert call["device"]["arch"] == "cpu" and not call["from_record"] and call["refused"] == ""
    states = [c["state"] for c in call["candidates"]]
    assert sum(c["default"] for c in call["candidates"]) == sum(c["winner"] for c in call["candidates"]) == 1
    timed = [c for c in call["candidates"] if "us" in c]
    assert 1 <= len(timed) <= 3 and states.count("pruned") > 100
    assert all(c["reason"] for c in call["candidates"] if "us" not in c)
    for c in timed:
        assert c["interval_us"][0] <= c["us"] <= c["interval_us"][1]
    html = Page(page.read_text())
    assert html.outside == [] and html.counts["svg"] >= 4 and "script" not in html.counts
    assert html.counts["tr"] >= len(call["candidates"])  # every candidate is there
    for c in call["candidates"][:20]:
        assert c["reason"].split("\n")[0] in html.text
    if call["record"]:  # a race that ran out of time keeps nothing
        assert list((tmp_path / "cache").rglob(os.path.basename(call["record"])))
        again = json.loads(quern(*command).stdout)["calls"][0]
        assert again["from_record"] and again["schedule"] == call["schedule"]
        assert [c["state"] for c in again["candidates"]].count("pruned") > 100  # rejected ones are named again
        assert page.read_text().count("<svg class=\"w") == 4
        assert "rows per expert 4, on " in quern("cache", "ls", "--kind", "tuning").stdout
        for tokens, there in (("", 1), (",T=8", 1), (",T=7", 1), (",T=4", 0), (",T=9", 0)):
            told = json.loads(quern("cache", "explain", *SHAPE[1:-1], SHAPE[-1] + tokens, "--json").stdout)["tuning"]
            assert [t["rows_per_expert"] for t in told] == ["4"] * there, tokens


def test_ranked_without_a_device(tmp_path):
    page = tmp_path / "rank.html"
    result = quern(*SHAPE, "--target", "sm_90a", "--rows", "1,64", "--report", page, "--json", "--quiet")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    calls = json.loads(result.stdout)["calls"]
    assert [c["rows_per_expert"] for c in calls] == [1, 64]
    assert not any("us" in candidate for c in calls for candidate in c["candidates"])
    assert sum(candidate["state"] == "ranked" for candidate in calls[0]["candidates"]) >= 2
    assert "nothing was measured" in Page(page.read_text()).text


def test_the_table_leaves_out_most_of_what_is_rejected():
    few, every = (quern(*SHAPE, "--target", "sm_90a", "--rows", "64", *more) for more in ([], ["--all"]))
    assert few.returncode == every.returncode == 0
    assert "more: --all, --json and --report show them" in few.stdout and "more: --all" not in every.stdout
    assert len(every.stdout.splitlines()) > len(few.stdout.splitlines()) + 10


def test_errors(tmp_path):
    for arguments, message in (
        (["--report", tmp_path / "no" / "such" / "folder.html"], "folder.html: cannot be written"),
        (["--policy", "wall"], "--policy: wall not in {device,call}"),
        (["--tokens", "x"], "--tokens: found 'x', expected a count or LOW..HIGH"),
    ):
        result = quern(*SHAPE, *arguments)
        assert result.returncode == 2 and message in result.stderr, result.stderr
    assert not list(tmp_path.glob("*.tmp"))
