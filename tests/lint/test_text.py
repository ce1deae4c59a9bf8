"""The rules of text.py, clang-format and shell syntax: on the tree, and each on a bad example."""

import ast
import subprocess
from pathlib import Path

import pytest
from text import LIMIT, broken_links, forbidden_words, too_long
from tree import ROOT, read, tracked

CLANG_FORMAT = "clang-format-22"


def texts():
    files = [(path, text) for path in tracked() if (text := read(path)) is not None]
    assert len(files) > 20, "git lists hardly any file: the list is wrong"
    return files


def test_no_file_is_too_long():
    readmes = {path.parent: text for path, text in texts() if path.name == "README.md"}
    assert [v for path, text in texts() for v in too_long(path, text, readmes.get(path.parent))] == []


def test_a_long_file_is_found_unless_its_readme_says_why():
    path, text = Path("codegen/cpu/Big.cpp"), "x\n" * (LIMIT + 1)
    assert len(too_long(path, text, None)) == 1
    assert len(too_long(path, text, "`Other.cpp` is over 500 lines because\n`Big.cpp` too")) == 1
    assert too_long(path, text, "* `Big.cpp` is over 500 lines: one table per instruction.") == []
    assert too_long(path, "x\n" * LIMIT, None) == []


def test_no_forbidden_words():
    assert [v for path, text in texts() for v in forbidden_words(path, text)] == []


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "work/main/build",
        'path = "/' + 'root/x"',
        "cd /" + "home/anna/quern",
        "https://us-python.pkg" + ".dev/simple",
        "--index-url https://pypi" + ".org/simple",
        "int x; // TO" + "DO: later",
        "<<<<<" + "<< HEAD",
    ],
)
def test_a_forbidden_word_is_found(line):
    (violation,) = forbidden_words(Path("a.md"), "fine\n" + line + "\n")
    assert violation.startswith("a.md:2: ")


def test_ordinary_words_are_not_forbidden():
    for line in ["tests/work/x", "$ROOT/root/y", "github.com/home", "a framework/rooted", "/usr/lib/llvm-22"]:
        assert forbidden_words(Path("a.md"), line) == []


def test_links_in_markdown_resolve():
    assert [v for path in tracked(".md") for v in broken_links(path, read(path) or "", ROOT)] == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "b.md").write_text("# One two\n## One two\n")
    good = "[b](b.md) [c](b.md#one-two) [d](b.md#one-two-1) [e](#here) [w](https://x.y/z) `[no](link.md)`\n# Here\n"
    (tmp_path / "a.md").write_text(good)
    assert broken_links(Path("a.md"), good, tmp_path) == []
    for link in ["c.md", "b.md#three", "#nowhere", "../outside.md"]:
        (violation,) = broken_links(Path("a.md"), f"x\n[t]({link})\n", tmp_path)
        assert violation.startswith("a.md:2: ")


def format_errors(files: list[str], root: Path) -> str:
    command = [CLANG_FORMAT, "--dry-run", "-Werror", "--style=file", *files]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (result.returncode == 0) == (result.stderr == ""), result
    return result.stderr


def test_cpp_is_formatted():
    files = [str(p) for p in tracked(".cpp", ".h", ".cu", ".cuh")]
    errors = format_errors(files, ROOT)
    names = sorted({line.split(":")[0] for line in errors.splitlines() if ": error:" in line})
    assert not names, f"run {CLANG_FORMAT} -i on: {' '.join(names)}\n{errors[:2000]}"


def test_an_unformatted_file_is_found(tmp_path):
    (tmp_path / ".clang-format").write_text((ROOT / ".clang-format").read_text())
    (tmp_path / "a.cpp").write_text("int  f( ) {return 1 ;}\n")
    assert "a.cpp:1:" in format_errors(["a.cpp"], tmp_path)


def test_shell_scripts_parse():
    scripts = [p for p in tracked() if p.suffix == ".sh" or (read(p) or "").startswith(("#!/bin/", "#!/usr/bin/env bash"))]
    assert Path("scripts/setup.sh") in scripts
    for script in scripts:
        result = subprocess.run(["bash", "-n", script], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        stops = "set -eu" if read(script).startswith("#!/bin/sh") else "set -euo pipefail"
        assert stops in read(script) or script.name == "lib.sh", f"{script} does not stop at errors"


def test_python_parses_and_says_what_it_is_for():
    for path in tracked(".py"):
        module = ast.parse(read(path), str(path))
        first = (read(path) or "").lstrip().splitlines()[:2]
        assert ast.get_docstring(module) or not module.body or any(l.startswith("# ") for l in first), f"{path} does not say what it is for"
