"""Environment variables are read in one place, runtime/config, whose table is the documentation (docs/knobs.md)."""

import re

from tree import ROOT, read, tracked

READS = re.compile(r"\b(secure_)?getenv\s*\(|\bos\.(environ|getenv)\b")
FOLDERS = ("compiler", "codegen", "runtime", "tools", "kernels", "python_bindings")
# Sets a variable for a library before it is imported; reads none of Quern's.
SETS = {"python_bindings/quern/demo.py": 'os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")'}


def reads(path: str, text: str) -> list[str]:
    if path.startswith("runtime/config/"):
        return []
    text = text.replace(SETS.get(path, "\0"), "")
    return [f"{path}:{n}: {line.strip()}" for n, line in enumerate(text.splitlines(), 1) if READS.search(line)]


def test_only_the_table_reads_the_environment():
    files = [f for f in tracked(".cpp", ".h", ".py") if f.parts[0] in FOLDERS]
    assert any(f.parts[:2] == ("runtime", "config") for f in files)
    assert [found for f in files for found in reads(f.as_posix(), read(f) or "")] == []


def test_a_read_elsewhere_is_found():
    assert reads("runtime/launch/A.cpp", 'x = std::getenv("HOME");') == ['runtime/launch/A.cpp:1: x = std::getenv("HOME");']
    assert reads("python_bindings/quern/a.py", "\nos.environ['A']") == ["python_bindings/quern/a.py:2: os.environ['A']"]
    assert reads("runtime/launch/A.h", "std::fegetenv(&saved);") == []


def test_every_variable_named_in_the_sources_is_in_the_table():
    table = set(re.findall(r'"(QUERN_[A-Z_]+)"', (ROOT / "runtime/config/Knobs.cpp").read_text()))
    named = set()
    for f in tracked(".cpp", ".h", ".py"):
        if f.parts[0] in FOLDERS:
            named |= set(re.findall(r'"(QUERN_[A-Z_]+)"', read(f) or ""))
    assert named - table == set()
