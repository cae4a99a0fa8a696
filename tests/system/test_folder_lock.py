"""A lock excludes every other process, ends with its own, and is never followed through a link."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import bertFineTuningWithConnectionData as driver
from connection.system import folder_lock
from connection.system.errors import InputError
from connection.system.folder_lock import lock_folder, try_lock
from tests.conftest import PAIRS, ROOT, run_inside, training_words, write_pairs

UNIX = pytest.mark.skipif(os.name == "nt", reason="only Unix forks")
HOLD = (
    "import sys, time; from pathlib import Path; from connection.system.folder_lock import lock_folder\n"
    "with lock_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def start(code: str, *words) -> subprocess.Popen:
    """A process that runs some code; it has printed "held", and what follows that is to be read."""
    holder = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    return holder


def no_locks(monkeypatch):
    def unsupported(handle, blocking):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", unsupported)


def test_a_second_training_in_the_same_folder_is_refused_and_a_stale_lock_is_not(tiny_folder, tmp_path):
    output, pairs = tmp_path / "run", write_pairs(tmp_path / "pairs.csv", PAIRS * 5)
    holder = start(HOLD, output)
    for flags in ([], ["--overwrite"], ["--seeds", 2]):
        refused = run_inside(driver.main, *training_words(tiny_folder, pairs, output, *flags))
        assert refused.returncode == 2
        assert f"in use by another training (process {holder.pid} on {socket.gethostname()})" in refused.stderr
    holder.kill()
    holder.wait()
    assert (output / ".lock").is_file()
    assert run_inside(driver.main, *training_words(tiny_folder, pairs, output)).returncode == 0
    assert not (output / ".lock").exists()


def test_without_system_locks_the_process_that_is_named_counts(tmp_path, monkeypatch):
    no_locks(monkeypatch)
    host = socket.gethostname()
    (tmp_path / "target").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(InputError, match="can't be written"), lock_folder(tmp_path):
        pass
    assert (tmp_path / "target").read_text() == "mine"
    (tmp_path / ".lock").unlink()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid, name, free in ((ended.pid, host, True), (os.getppid(), host, False), (ended.pid, "another", False)):
        (tmp_path / ".lock").write_text(json.dumps({"pid": pid, "host": name}))
        if free:
            with lock_folder(tmp_path):
                assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        else:
            with pytest.raises(InputError, match=f"process {pid} on {name}"), lock_folder(tmp_path):
                pass


@pytest.mark.parametrize("flags", ["as they are", "without O_NOFOLLOW"])
@pytest.mark.parametrize("points_to", ["a file", "nothing"])
def test_a_link_in_the_place_of_the_lock_is_refused(tmp_path, monkeypatch, points_to, flags):
    if flags == "without O_NOFOLLOW":
        monkeypatch.setattr(folder_lock, "FLAGS", 0)
    run, target = tmp_path / "run", tmp_path / "target"
    run.mkdir()
    (run / ".lock").symlink_to(target)
    if points_to == "a file":
        target.write_text("mine")
    with pytest.raises(InputError, match="can't be written"), lock_folder(run):
        pass
    assert (target.read_text() if target.exists() else "") == ("mine" if points_to == "a file" else "")
    assert target.exists() == (points_to == "a file")
    assert (run / ".lock").is_symlink()


def test_a_lock_excludes_its_own_process_too(tmp_path):
    with lock_folder(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()} on"), lock_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["removed", "replaced", "a link"])
def test_a_lock_is_ours_until_its_folder_is_removed_or_replaced(tmp_path, fault):
    run = tmp_path / "run"
    with lock_folder(run) as lock:
        lock.require()
        run.rename(tmp_path / "moved")
        if fault == "replaced":
            run.mkdir()
            (run / ".lock").write_text("of another")
        elif fault == "a link":
            run.mkdir()
            (run / ".lock").symlink_to(tmp_path / "moved" / ".lock")
        assert not lock.is_ours()
        with pytest.raises(FileNotFoundError, match="removed, or replaced"):
            lock.require()
    assert os.path.lexists(run / ".lock") == (fault != "removed")


def test_a_killed_process_does_not_leave_its_lock_to_a_forked_one(tmp_path):
    """As DataLoader workers do, the forked process outlives the one that was killed."""
    if sys.platform == "win32":
        pytest.skip("Windows has no fork")
    code = HOLD.replace("time.sleep(60)", "os.fork() or print(os.getpid(), flush=True); time.sleep(60)")
    holder = start("import os\n" + code, tmp_path)
    assert holder.stdout
    forked = int(holder.stdout.readline())
    try:
        with pytest.raises(InputError, match=f"process {holder.pid} on"), lock_folder(tmp_path):
            pass
        holder.kill()
        holder.wait()
        os.kill(forked, 0)  # it lives
        with lock_folder(tmp_path) as lock:
            assert lock.is_ours()
    finally:
        os.kill(forked, signal.SIGKILL)


def _leave(lock) -> None:
    assert not lock.is_ours()
    lock.release()


def test_a_forked_process_that_ends_neither_releases_the_lock_nor_removes_its_file(tmp_path):
    if sys.platform == "win32":
        pytest.skip("Windows has no fork")
    with lock_folder(tmp_path) as lock:
        worker = multiprocessing.get_context("fork").Process(target=_leave, args=(lock,))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
        lock.require()
        shown = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
        assert f"InputError: --output-dir {tmp_path} is in use" in shown.stderr


def test_where_an_open_file_can_not_be_removed_the_lock_is_closed_first(tmp_path, monkeypatch):
    """As on Windows, whose locked first byte can't be read by another process either."""
    unlink, read = Path.unlink, os.read

    def refused(path, **words):
        if path.name == ".lock" and folder_lock._handles:
            raise PermissionError(13, "The process cannot access the file")
        unlink(path, **words)

    def refused_read(handle, size):
        if os.lseek(handle, 0, os.SEEK_CUR) == 0:
            raise PermissionError(13, "Permission denied")
        return read(handle, size)

    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(folder_lock.os, "read", refused_read)
    monkeypatch.setattr(folder_lock, "WINDOWS", True)
    with lock_folder(tmp_path):
        told = (tmp_path / ".lock").read_bytes()
        assert told[:1] == b"{"
        with pytest.raises(InputError, match=f"process {os.getpid()} on"), lock_folder(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_locked_by_one_at_a_time(tmp_path, monkeypatch):
    code = "import sys, time; from pathlib import Path; from connection.system.folder_lock import try_lock\n"
    code += "with try_lock(Path(sys.argv[1])) as locked: print('held' if locked else locked, flush=True); time.sleep(60)"
    holder = start(code, tmp_path)
    with try_lock(tmp_path) as locked:
        assert locked is False
    holder.kill()
    holder.wait()
    with try_lock(tmp_path) as locked:
        assert locked is True
    with try_lock(tmp_path / "missing") as locked:
        assert locked is None
    no_locks(monkeypatch)
    with try_lock(tmp_path) as locked:
        assert locked is None


@UNIX
def test_the_names_that_windows_lacks_are_not_needed(tmp_path):
    code = (
        "import os, sys, warnings\n"
        "sys.modules['fcntl'] = None\n"
        "for name in ('pwrite', 'O_NOFOLLOW', 'O_NONBLOCK', 'register_at_fork', 'fork'): delattr(os, name)\n"
        "warnings.simplefilter('ignore')  # the lock library says that it has no locks\n"
        "from pathlib import Path\n"
        "from connection.system import atomic_files, folder_lock\n"
        "atomic_files.WINDOWS = folder_lock.WINDOWS = True\n"
        "run = Path(sys.argv[1])\n"
        "with folder_lock.lock_folder(run) as lock:\n"
        "    lock.require()\n"
        "    atomic_files.write_json(run / 'settings.json', {'a': 1})\n"
        "    for text in ('old', 'new'):\n"
        "        with atomic_files.atomic_folder(run / 'model') as new: (new / 'weights').write_text(text)\n"
        "    try:\n"
        "        with folder_lock.lock_folder(run): print('locked twice')\n"
        "    except folder_lock.InputError as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "is in use by another training (process " in shown.stdout
    assert (tmp_path / "model" / "weights").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "settings.json"]
