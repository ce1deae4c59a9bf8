"""The cache under many real processes, kills, foreign folders, wrong clocks and a small limit. What each process must show: the right bytes,
exit code 0, at most one warning; and `cache verify` finds nothing wrong afterwards. The kernel's side of it is in test_cache_kernels.py."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from cache_helpers import WORKER, entry_files, environment, fill, finish, listing, needs_quern, needs_worker, private_folder, quern, start_worker, verified

pytestmark = [needs_quern, needs_worker]
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user (and needs setpriv)")


@pytest.fixture
def seed():
    value = random.randrange(2**32)
    print(f"seed {value}")
    random.seed(value)
    return value


def makings(log):
    """How often each entry was made, by anyone."""
    return Counter(int(line.split()[0]) for line in log.read_text().splitlines())


def as_user(uid, command, env, cwd="/"):
    return subprocess.run(
        ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *map(str, command)],
        env=env, cwd=cwd, capture_output=True, text=True, timeout=120,
    )


def reachable(uid):
    """Skips unless another user may run the programs at all."""
    if as_user(uid, [WORKER], {}).returncode != 2:
        pytest.skip("the build folder is closed to other users")


def foreign(path):
    """pytest's own folders are closed to others; here everyone can enter, and only root can write."""
    for part in [path, *path.parents]:
        if part.stat().st_mode & 0o001:
            break
        part.chmod(part.stat().st_mode | 0o055)


def test_sixteen_processes_make_forty_entries_once(tmp_path, seed):
    folder, log = tmp_path / "cache", tmp_path / "log"
    workers = [start_worker(folder, log, seed=seed + i, milliseconds=10) for i in range(16)]
    done = [finish(worker) for worker in workers]
    assert makings(log) == Counter(range(40))
    assert sum(d["made"] for d in done) == sum(d["published"] for d in done) == 40
    assert sum(d["hits"] for d in done) == 15 * 40
    assert [d["warnings"] for d in done] == [[]] * 16
    verified(folder, 40)


def test_killed_while_warming(tmp_path, seed):
    """After each kill -9 the next process goes on where the last one was; nothing that was kept is made again."""
    folder, log = tmp_path / "cache", tmp_path / "log"
    kills = 0
    for attempt in range(12):
        workers = [start_worker(folder, log, entries=100, seed=seed + i, milliseconds=20) for i in (attempt, 99)]
        time.sleep(random.uniform(0.02, 0.1))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
            kills += worker.returncode == -signal.SIGKILL
    kept = len(entry_files(folder))
    last = fill(folder, log, entries=100, seed=seed)
    assert last["hits"] == kept and last["made"] == 100 - kept and last["damaged"] == 0 and last["warnings"] == []
    counts = makings(log)
    assert set(counts) == set(range(100)) and sum(counts.values()) <= 100 + kills
    assert kills > 3, "the processes ended before they were killed: nothing was tested"
    verified(folder, 100)


def test_a_stopped_maker_does_not_stop_the_others(tmp_path, seed):
    """A maker that is stopped inside one entry: the others make all other entries meanwhile, and that one when it goes on."""
    folder, log = tmp_path / "cache", tmp_path / "log"
    stopped = start_worker(folder, log, seed=1, milliseconds=400)
    while not log.exists() or not log.read_text():
        time.sleep(0.01)
    stopped.send_signal(signal.SIGSTOP)
    held = int(log.read_text().split()[0])
    others = [start_worker(folder, log, seed=seed + i) for i in range(3)]
    deadline = time.monotonic() + 30
    while len(makings(log)) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(makings(log)) >= 2, "the others stand still"
    stopped.send_signal(signal.SIGCONT)
    for worker in [stopped, *others]:
        finish(worker)
    assert makings(log)[held] == 1
    verified(folder, 40)


def test_copied_anywhere(tmp_path, seed):
    """Another folder, HOME, working folder, language, time zone and clock: nothing is made again."""
    folder, log = tmp_path / "cache", tmp_path / "log"
    fill(folder, log)
    copy = tmp_path / "another home" / "käse" / "cache"
    shutil.copytree(folder, copy)  # times of the copy, not of the original
    (tmp_path / "cwd").mkdir()
    env = environment(copy, HOME=tmp_path / "another home", LANG="tr_TR.UTF-8", LC_ALL="de_DE.UTF-8", TZ="Asia/Kathmandu", USER="nobody")
    process = subprocess.run([WORKER, "40", "2000", str(seed), "0", str(log)], env=env, cwd=tmp_path / "cwd", capture_output=True, text=True, timeout=60)
    assert process.returncode == 0 and '"made": 0, "hits": 40' in process.stdout and process.stderr == ""
    for source in ({"XDG_CACHE_HOME": tmp_path / "xdg"}, {"HOME": tmp_path / "home"}):
        target = tmp_path / ("xdg/quern" if "XDG_CACHE_HOME" in source else "home/.cache/quern")
        shutil.copytree(folder, target)
        assert fill(folder, log, env=environment(None, **source))["made"] == 0
        verified(target, 40)


@needs_root
def test_copied_to_another_user(tmp_path, seed):
    """As root's files, which a container image has, and as the user's own."""
    reachable(12345)
    folder, log = tmp_path / "cache", tmp_path / "log"
    fill(folder, log)
    foreign(tmp_path)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for owner in (0, 12345):
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, owner, owner)
        env = {"QUERN_CACHE_DIR": str(folder), "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        process = as_user(12345, [WORKER, 40, 2000, seed, 0, "/dev/null"], env)
        assert process.returncode == 0 and '"made": 0, "hits": 40' in process.stdout, process.stderr
        assert len(process.stderr.splitlines()) <= 1
    # Files that a third user owns are another matter: they could be changed under us.
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 54321, 54321)
    process = as_user(12345, [WORKER, 3, 2000, seed, 0, "/dev/null"], {**env, "XDG_RUNTIME_DIR": ""})
    assert process.returncode == 0 and str(folder) in process.stderr and len(process.stderr.splitlines()) == 1
    shutil.rmtree(private_folder(12345), ignore_errors=True)


@needs_root
def test_read_only_folder(tmp_path, seed):
    """What is there is used, what is missing is made and used without being kept; one warning at most."""
    reachable(12345)
    folder, log = tmp_path / "cache", tmp_path / "log"
    fill(folder, log, entries=20)
    foreign(tmp_path)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 12345, 12345)
        path.chmod(0o500 if path.is_dir() else 0o400)
    env = {"QUERN_CACHE_DIR": str(folder), "PATH": os.environ["PATH"]}
    for _ in range(2):
        process = as_user(12345, [WORKER, 40, 2000, seed, 0, "/dev/null"], env)
        assert process.returncode == 0 and '"made": 20, "hits": 20' in process.stdout, process.stderr
        assert len(process.stderr.splitlines()) <= 1
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 0, 0)  # root trusts only its own
    verified(folder, 20)
    shutil.rmtree(private_folder(12345), ignore_errors=True)


@needs_root
@pytest.mark.parametrize("home", [None, "", "/", "relative/home", "/nonexistent"])
def test_arbitrary_uid_without_home(tmp_path, home, seed):
    """As in a container with a random user id: a private folder under /tmp, one warning, and the second process finds what the first made."""
    uid = 20000 + random.randrange(20000)
    reachable(uid)
    own = private_folder(uid)
    assert not own.exists()
    env = {"PATH": os.environ["PATH"]} if home is None else {"PATH": os.environ["PATH"], "HOME": home}
    try:
        for expected in ('"made": 5, "hits": 0', '"made": 0, "hits": 5'):
            process = as_user(uid, [WORKER, 5, 2000, seed, 0, "/dev/null"], env)
            assert process.returncode == 0 and expected in process.stdout, process.stderr
            assert len(process.stderr.splitlines()) == 1 and "QUERN_CACHE_DIR" in process.stderr
        assert own.stat().st_uid == uid and own.stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(own, ignore_errors=True)


@pytest.mark.parametrize("years", [-10, 10])
def test_clock_moved(tmp_path, years, seed):
    """Times far off change nothing but the order of eviction: files found are used, and stay usable."""
    folder, log = tmp_path / "cache", tmp_path / "log"
    fill(folder, log)
    when = time.time() + years * 365 * 86400
    for path in folder.rglob("*"):
        os.utime(path, (when, when))
    again = fill(folder, log, seed=seed)
    assert (again["made"], again["hits"], again["warnings"]) == (0, 40, [])
    listing(folder)  # and `ls` can print such times
    text = quern(folder, "cache", "ls")
    assert text.returncode == 0
    # Under a limit, some go; what stays is right.
    small = environment(folder, QUERN_CACHE_LIMIT="64K")
    assert fill(folder, log, entries=60, seed=seed, env=small)["damaged"] == 0
    verified(folder, None)


def test_limit_holds_under_ten_times_as_much(tmp_path, seed):
    folder, limit = tmp_path / "cache", 1 << 20
    env = environment(folder, QUERN_CACHE_LIMIT="1M")
    workers = [start_worker(folder, tmp_path / f"log{i}", entries=160, size=60000, seed=seed + i, env=env) for i in range(4)]

    def on_disk():
        total = 0
        for path in folder.rglob("*"):
            try:
                total += path.lstat().st_size if path.is_file() else 0
            except FileNotFoundError:
                pass
        return total

    worst = 0
    while any(worker.poll() is None for worker in workers):
        worst = max(worst, on_disk())
        time.sleep(0.005)
    done = [finish(worker) for worker in workers]
    assert sum(d["evicted"] for d in done) > 100 and sum(d["damaged"] for d in done) == 0
    assert [d["warnings"] for d in done] == [[]] * 4
    assert limit / 4 < on_disk() <= limit and worst <= limit + 4 * 65536
    assert listing(folder, "--kind", "gpu")["bytes"] <= limit
    verified(folder, None)


def test_garbage_in_the_folder(tmp_path, seed):
    """Whatever lies there: entries are found beside it, no command fails, and what is not Quern's stays."""
    folder, log = tmp_path / "cache", tmp_path / "log"
    fill(folder, log)
    *victims, intact = random.sample(entry_files(folder), 9)
    for path in victims:
        path.unlink()
    victims[0].mkdir()
    victims[1].symlink_to("/etc/passwd")
    os.mkfifo(victims[2])
    victims[3].write_bytes(os.urandom(5000))
    victims[4].write_bytes(b"")
    victims[5].symlink_to(victims[5].name)
    shutil.copy(intact, victims[6])
    victims[7].write_bytes(b"{" * 100000)
    shard = victims[0].parent
    strangers = [folder / "notes.txt", folder / "v1" / "zz", folder / "v1" / ".hidden", shard / "README", shard / ("x" * 200), folder / "v1" / "ab.entry"]
    for path in strangers:
        path.write_text("mine")
    (folder / "v1" / "a folder" / "below").mkdir(parents=True)
    (folder / "v999").mkdir()

    again = fill(folder, log, seed=seed)
    assert again["hits"] == 32 and again["made"] == 8 and len(again["warnings"]) <= 1
    third = fill(folder, log, seed=seed)
    assert third["hits"] >= 36  # all but what stands in the way as no file at all
    assert quern(folder, "cache", "ls").returncode == 0
    assert quern(folder, "cache", "verify").returncode in (0, 1)
    removed = quern(folder, "cache", "verify", "--remove")
    assert removed.returncode in (0, 1) and "Traceback" not in removed.stderr
    assert quern(folder, "cache", "clear", "--yes").returncode in (0, 2)
    for path in strangers:
        assert path.read_text() == "mine"
    assert Path("/etc/passwd").stat().st_size > 0
    assert [p for p in entry_files(folder) if p.is_file() and not p.is_symlink()] == []
    assert fill(folder, log, seed=seed)["made"] == 40
