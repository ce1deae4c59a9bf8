"""Code in Markdown runs: a ```python, ```bash or ```qn block below a line `<!-- run -->` is an example that must work as printed.

The python blocks of one file run in one process, in order, as a reader would type them; each bash block runs from the repository's
root with build/bin and .venv/bin first on the PATH; a qn block must pass `quern compile --emit=ast`. Expected output is written as
assertions in the block itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tree import ROOT, read, tracked

BUILD = Path(os.environ.get("QUERN_BUILD_DIR", ROOT / "build"))
BLOCK = re.compile(r"^<!-- run -->\n+```(python|bash|qn)\n(.*?)^```$", re.S | re.M)


def blocks(text: str) -> list[tuple[int, str, str]]:
    """(line of the code's first line, language, code) of each block marked to run."""
    return [(text[: m.start(2)].count("\n") + 1, m.group(1), m.group(2)) for m in BLOCK.finditer(text)]


EXAMPLES = [(path, blocks(read(path) or "")) for path in tracked(".md")]
EXAMPLES = [(path, found) for path, found in EXAMPLES if found]


def run(command: list[str], **kwargs) -> None:
    environment = dict(os.environ, PATH=f"{BUILD / 'bin'}:{ROOT / '.venv/bin'}:{os.environ['PATH']}")
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, **kwargs)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"


@pytest.mark.skipif(not (BUILD / "bin/quern").exists(), reason="build/bin/quern is not built: run scripts/setup.sh")
@pytest.mark.parametrize("path, found", EXAMPLES, ids=[str(p) for p, _ in EXAMPLES])
def test_examples_run(path, found, tmp_path):
    # Blank lines keep the line numbers of a traceback those of the Markdown file.
    python, line = "", 1
    for start, language, code in found:
        if language == "python":
            python += "\n" * (start - line) + code
            line = start + code.count("\n")
        elif language == "bash":
            run(["bash", "-euo", "pipefail", "-c", code])
        else:
            (tmp_path / "example.qn").write_text(code)
            run(["quern", "compile", str(tmp_path / "example.qn"), "--emit=ast"])
    if python:
        (tmp_path / path.name).write_text(python)
        run([sys.executable, str(tmp_path / path.name)])


def test_the_readme_has_examples_and_all_its_python_runs():
    text = read(Path("README.md"))
    marked = [language for _, language, _ in blocks(text)]
    assert marked.count("python") == len(re.findall(r"^```python$", text, re.M)) >= 2


def test_only_marked_blocks_are_found():
    text = "a\n\n```python\nno\n```\n<!-- run -->\n```python\nx = 1\n```\n<!-- run -->\n\n```bash\ntrue\n```\n"
    assert blocks(text) == [(8, "python", "x = 1\n"), (13, "bash", "true\n")]
