"""Several processes of one command, as far as one process can show it; tests/runs/test_processes.py has two."""

import datetime
import sys

import pytest
import torch
from torch.distributed import TCPStore

from connection.system import processes
from connection.system.errors import InputError, exit_status


@pytest.fixture
def second_of_two(monkeypatch):
    """This process is rank 1 of 2, of a torchrun that keeps the table of values. Returns the table."""
    table = TCPStore("localhost", 0, is_master=True, timeout=datetime.timedelta(seconds=10))
    told = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in (told | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(table.port)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "HEAD_START", 0.0)
    for cached in (processes._store, processes._lasting_store):
        cached.cache_clear()
    yield table
    for cached in (processes._store, processes._lasting_store):
        cached.cache_clear()


def fail():
    raise InputError("no such file")


def test_an_error_is_said_once_with_the_rank_of_its_process(second_of_two, monkeypatch, capsys):
    assert exit_status(fail) == 2
    assert capsys.readouterr().err == "[rank 1] no such file\n"
    monkeypatch.setenv("RANK", "0")
    assert exit_status(fail) == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # torchrun tries again: in other processes, which have cached nothing
    processes._store.cache_clear()
    exit_status(fail)
    assert capsys.readouterr().err == "[rank 0] no such file\n"


def test_only_the_first_process_speaks(second_of_two, monkeypatch, capsys):
    with processes.first_speaks():
        print("a line")
        print("a warning", file=sys.stderr)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    with processes.first_speaks():
        print("a line")
    assert capsys.readouterr().out == "a line\n"


def test_a_run_that_had_begun_is_known_after_a_restart(second_of_two, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not processes.is_restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not processes.is_restarted()  # what failed before had not begun: what is in its folder is another run's
    processes.note_begun()
    assert processes.is_restarted()


def test_threads_share_the_cores(second_of_two, monkeypatch):
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it
    assert [processes.threads_per_process(threads) for threads in (0, 3)] == [4, 3]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert processes.threads_per_process(0) == 0


def test_one_process_is_the_first_and_has_everything(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with processes.joined(), processes.in_turn():
        assert (processes.rank(), processes.count(), processes.share(7)) == (0, 1, slice(0, 7))
        assert processes.from_first(lambda: 5) == 5
        assert processes.from_all("x") == ["x"]
        (rows,) = processes.gather(torch.ones(3))
        assert processes.add_up(rows) is rows
    assert not torch.distributed.is_initialized()
