"""The tracked files of this repository, for the lint tests. Every rule is a function from files to "path:line: message" lines,
so that a test can show it failing on a bad example as well as passing on the tree."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tracked(*suffixes: str) -> list[Path]:
    """Paths relative to ROOT of the files git tracks (and that are still there), sorted; only those with one of `suffixes` if any."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [Path(p) for p in sorted(listed.split("\0")) if p]
    return [p for p in paths if (not suffixes or p.suffix in suffixes) and (ROOT / p).is_file()]


def read(path: Path, root: Path = ROOT) -> str | None:
    """The text of a tracked file; None for a binary one (it is not UTF-8 or holds a NUL)."""
    data = (root / path).read_bytes()
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
