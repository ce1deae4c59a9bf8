"""`quern cache`: what it prints, its JSON, its exit codes, and what it leaves alone."""

import json
import os
import pty
import random
import subprocess
import tarfile
import time

import pytest

from cache_helpers import QUERN, entry_files, environment, fill, listing, needs_quern, needs_worker, quern

pytestmark = [needs_quern, needs_worker]


@pytest.fixture
def cache(tmp_path):
    """A folder with ten entries of 2 kB."""
    fill(tmp_path / "cache", tmp_path / "log", entries=10)
    return tmp_path / "cache"


def fails(result, message, code=2):
    assert result.returncode == code, result.stdout + result.stderr
    assert message in result.stderr
    return result


def damage(path, at=None):
    data = bytearray(path.read_bytes())
    at = random.randrange(len(data)) if at is None else at
    data[at] ^= 0x10
    path.write_bytes(data)


def test_help_has_examples():
    out = quern(None, "cache", "--help").stdout
    for command in ("ls", "show", "explain", "verify", "clear", "export", "import"):
        assert f"\n  {command} " in out
        help = quern(None, "cache", command, "--help").stdout
        assert "Example" in help and "Exit code" in help
    fails(quern(None, "cache"), "subcommand is required")


def test_empty(tmp_path):
    folder = tmp_path / "none"
    result = quern(folder, "cache", "ls")
    assert result.returncode == 0 and f"The cache {folder} is empty" in result.stdout and "quern warmup" in result.stdout
    assert listing(folder)["entries"] == []
    assert "0 of 0 entries are good" in quern(folder, "cache", "verify").stdout
    assert "Nothing to delete" in quern(folder, "cache", "clear", "--yes").stdout
    fails(quern(folder, "cache", "show", "ab"), "ab: found no entry whose hash starts so")
    fails(quern(None, "cache", "ls", "--folder", folder / "below"), "below")


def test_unusable(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    # The fallback is a private folder of this user; the reason is on standard error.
    result = quern(file, "cache", "ls")
    assert str(file) in result.stderr and "QUERN_CACHE_DIR" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and file.read_text() == "not a folder"
    fails(quern(None, "cache", "verify", "--folder", file), str(file))
    # What changes a folder that was named changes no other one.
    for command in (["clear", "--yes"], ["import", tmp_path / "kernels.tar.zst"]):
        assert str(file) in fails(quern(file, "cache", *command), "is not a folder").stderr


def test_ls(cache, tmp_path):
    out = quern(cache, "cache", "ls").stdout.splitlines()
    assert out[0].split() == ["HASH", "KIND", "SIZE", "LAST", "USE", "WHAT"]
    assert len(out) == 12 and "10 entries, 21.5 KB of at most 4.0 GB" in out[-1] and str(cache) in out[-1]
    row = next(line for line in out if "kernel3 " in line).split()
    assert row[1:] == ["device", "2.2", "KB", "just", "now", "kernel3", "K=64", "N=96"]

    all = listing(cache)
    assert all["folder"] == str(cache) and all["count"] == len(all["entries"]) == 10
    assert all["bytes"] == sum(p.stat().st_size for p in entry_files(cache)) == sum(e["size"] for e in all["entries"])
    entry = next(e for e in all["entries"] if e["what"].startswith("kernel3"))
    assert entry["key"] == {"kernel": "kernel3", "dims": "K=64 N=96", "source": "first line 3\nsecond line"}
    assert entry["kind"] == "device" and entry["state"] == "good" and (cache / entry["file"]).exists()

    assert {e["kind"] for e in listing(cache, "--kind", "device")["entries"]} == {"device"}
    assert len(listing(cache, "--kind", "device,gpu")["entries"]) == 10
    assert [e["key"]["kernel"] for e in listing(cache, "--kernel", "kernel4")["entries"]] == ["kernel4"]
    assert [e["key"]["kernel"] for e in listing(cache, "--match", "N=288")["entries"]] == ["kernel9"]
    assert "0 entries, 0 B, of 10 entries" in quern(cache, "cache", "ls", "--kind", "cpu").stdout

    oldest = cache / listing(cache)["entries"][4]["file"]
    os.utime(oldest, (time.time() - 3 * 86400,) * 2)
    used = [e["last_use"] for e in listing(cache)["entries"]]
    assert used == sorted(used, reverse=True) and used[-1] < time.time() - 2 * 86400
    assert "3 days ago" in quern(cache, "cache", "ls").stdout.splitlines()[-2]
    for sort, key in (("size", lambda e: -e["size"]), ("kind", lambda e: e["kind"]), ("hash", lambda e: e["hash"])):
        entries = listing(cache, "--sort", sort)["entries"]
        assert entries == sorted(entries, key=key)
        assert listing(cache, "--sort", sort, "--reverse")["entries"] == entries[::-1]


def test_show(cache):
    entry = next(e for e in listing(cache)["entries"] if e["key"]["kernel"] == "kernel5")
    hashes = [e["hash"] for e in listing(cache)["entries"]]
    unique = next(entry["hash"][:n] for n in range(1, 33) if sum(h.startswith(entry["hash"][:n]) for h in hashes) == 1)
    out = quern(cache, "cache", "show", unique).stdout
    assert out.startswith(f"{entry['hash']}  gpu, good\n")
    assert "  source\n    first line 5\n    second line\n" in out and "  dims    K=64 N=160\n" in out
    shown = json.loads(quern(cache, "cache", "show", unique, "--json").stdout)
    assert [s["name"] for s in shown["sections"]] == ["meta", "cubin"] and shown["hash"] == entry["hash"]
    assert quern(cache, "cache", "show", unique, "--section", "meta").stdout == "number 5"
    target = cache.parent / "cubin"
    assert quern(cache, "cache", "show", unique, "--section", "cubin", "-o", target).returncode == 0
    assert target.stat().st_size == shown["sections"][1]["size"]
    fails(quern(cache, "cache", "show", unique, "--section", "ptx"), "has no section 'ptx'; it has meta, cubin")
    fails(quern(cache, "cache", "show", ""), "10 entries start so, expected more digits")
    fails(quern(cache, "cache", "show", "xyz"), "xyz: found no entry whose hash starts so")


def test_verify_finds_every_kind_of_damage(cache):
    assert "10 of 10 entries are good" in quern(cache, "cache", "verify").stdout
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random.seed(seed)
    flipped, cut, empty, renamed, garbage = random.sample(entry_files(cache), 5)
    damage(flipped)
    cut.write_bytes(cut.read_bytes()[:-1])
    empty.write_bytes(b"")
    garbage.write_bytes(os.urandom(3000))
    other = renamed.with_name(renamed.name[:2] + "0" * 30 + ".entry")
    renamed.rename(other)
    result = quern(cache, "cache", "verify")
    assert result.returncode == 1 and "5 of 10 entries are good" in result.stdout and "--remove" in result.stdout
    for path in (flipped, cut, empty, garbage, other):
        assert f"{path.relative_to(cache)}: " in result.stdout
    assert f"{other.relative_to(cache)}: misnamed" in result.stdout and "cannot be used" in quern(cache, "cache", "ls").stdout
    assert len(entry_files(cache)) == 10  # verify only looks
    result = quern(cache, "cache", "verify", "--remove")
    assert result.returncode == 0 and result.stdout.count("; removed") == 5 and len(entry_files(cache)) == 5
    assert quern(cache, "cache", "verify").returncode == 0


def test_clear(cache):
    stranger = cache / "v1" / "notes.txt"
    stranger.write_text("mine")
    (cache / "README").write_text("mine too")
    fails(quern(cache, "cache", "clear", input=""), "would delete 10 files", 2)
    assert len(entry_files(cache)) == 10
    assert "Deleted 2 files" in quern(cache, "cache", "clear", "--kind", "device", "--yes").stdout
    assert {e["kind"] for e in listing(cache)["entries"]} == {"gpu"}
    assert "Deleted 8 files" in quern(cache, "cache", "clear", "--yes").stdout
    assert entry_files(cache) == [] and stranger.read_text() == "mine" and (cache / "README").read_text() == "mine too"


@pytest.mark.parametrize("answer, left", [("n\n", 10), ("\n", 10), ("y\n", 0)])
def test_clear_asks_on_a_terminal(cache, answer, left):
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen([QUERN, "cache", "clear"], env=environment(cache), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.write(ours, answer.encode())
        out, err = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0 and "Delete 10 files, 21.5 KB" in err and str(cache) in err
    assert len(entry_files(cache)) == left


def test_export_and_import(cache, tmp_path):
    first, second, other = tmp_path / "a.tar.zst", tmp_path / "b.tar.zst", tmp_path / "other"
    result = quern(cache, "cache", "export", first)
    assert result.returncode == 0 and "10 entries" in result.stderr and result.stdout == ""
    fails(quern(cache, "cache", "export", first), "exists; expected another name, or --force")
    for path in entry_files(cache):
        os.utime(path, (1, 1))
    assert quern(cache, "cache", "export", second).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    assert quern(cache, "cache", "export", "-", text=False).stdout == first.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.zst", "b.tar.zst", "cache", "log"]

    result = quern(other, "cache", "import", first)
    assert result.returncode == 0 and "10 entries" in result.stdout and "0 already there" in result.stdout
    assert [p.read_bytes() for p in entry_files(other)] == [p.read_bytes() for p in entry_files(cache)]
    again = json.loads(quern(other, "cache", "import", "-", "--json", input=first.read_bytes(), text=False).stdout)
    assert (again["imported"], again["present"], again["complete"]) == (0, 10, True)
    assert quern(other, "cache", "verify").returncode == 0

    assert quern(cache, "cache", "export", tmp_path / "c.tar.zst", "--kernel", "kernel6").returncode == 0
    part = json.loads(quern(tmp_path / "third", "cache", "import", tmp_path / "c.tar.zst", "--json").stdout)
    assert part["imported"] == 1
    damage(entry_files(cache)[0])
    result = quern(cache, "cache", "export", first, "--force")
    assert "9 entries" in result.stderr and "1 entry not: see `quern cache verify`" in result.stderr


def test_import_refuses(cache, tmp_path):
    archive, other, large = tmp_path / "a.tar.zst", tmp_path / "other", tmp_path / "large"
    fill(large, tmp_path / "log", entries=10, size=60000)
    quern(large, "cache", "export", archive)
    data = archive.read_bytes()
    fails(quern(other, "cache", "import", tmp_path / "none"), "none: cannot be read: No such file")
    fails(quern(other, "cache", "import", cache / "v1"), "v1: is no archive of cache entries")
    (tmp_path / "text").write_text("hello\n" * 1000)
    fails(quern(other, "cache", "import", tmp_path / "text"), "text: is no archive of cache entries")

    archive.write_bytes(data[: len(data) * 2 // 3])
    result = quern(other, "cache", "import", archive)
    assert result.returncode == 1 and "cannot be read further" in result.stdout
    kept = len(entry_files(other))
    assert 0 < kept < 10 and quern(other, "cache", "verify").returncode == 0

    # A tar with names that would leave the folder, and links.
    evil, third = tmp_path / "evil.tar", tmp_path / "third"
    with tarfile.open(evil, "w") as tar:
        def add(name, content, **fields):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            source = tmp_path / "member"
            source.write_bytes(content)
            with open(source, "rb") as file:
                tar.addfile(info, file)

        add("quern-cache/format", b"1\n")
        add("../../evil", b"evil")
        add(str(tmp_path / "evil"), b"evil")
        add("quern-cache/v1/ab/" + "ab" * 16 + ".entry", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("quern-cache/v1/ab/" + "ab" * 16 + ".entry", b"evil")
    result = quern(third, "cache", "import", evil)
    assert result.returncode == 1 and "0 entries" in result.stdout and "4 refused:" in result.stdout
    for message in ("../../evil: is not the name of an entry", "is no plain file", "is damaged: too short", "no manifest"):
        assert message in result.stdout
    assert not (tmp_path / "evil").exists() and not entry_files(third)

    archive.write_bytes(data)
    small = environment(tmp_path / "small", QUERN_CACHE_LIMIT="8K")
    result = quern(None, "cache", "import", archive, env=small)
    assert result.returncode == 1 and "holds more than 8192 bytes" in result.stdout


def test_a_broken_pipe_or_a_full_disk_leaves_no_archive(cache, tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "wb") as full:
        result = subprocess.run([QUERN, "cache", "export", "-"], env=environment(cache), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    fails(result, "cannot be written")
    fails(quern(cache, "cache", "export", tmp_path / "no" / "folder.tar.zst"), "cannot be written: No such file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "log"]
