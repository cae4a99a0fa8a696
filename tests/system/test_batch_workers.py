"""Processes that prepare batches: few open files, and neither a stopped nor a hanging one keeps a run for ever."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from typing import Any

import pytest
import torch

import bertFineTuningWithConnectionData as driver
from connection.runs.checkpoints import Checkpoints
from connection.system import batch_workers
from connection.system.batch_workers import BatchWorkers
from connection.system.errors import RunError
from tests.conftest import PAIRS, run_inside, signal_in_step, training_words, write_pairs


class Hangs:
    """A loader whose second batch never comes."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def __iter__(self):
        yield 1
        self.end.wait()


def train(folder, tmp_path, *flags):
    pairs = write_pairs(tmp_path / "pairs.csv", PAIRS * 8)
    words = training_words(folder, pairs, tmp_path / "run", "--cache-dir", tmp_path / "cache", "--threads", 1, *flags)
    return run_inside(driver.main, *words)


def stop_workers_in_step(monkeypatch, wanted, also=lambda: None):
    """Stops (as SIGSTOP does) all processes that prepare batches in the training step of this number."""
    real, seen, others = driver.training_step, [], multiprocessing.active_children()

    def step(*words: Any) -> torch.Tensor:
        seen.append(1)
        if len(seen) == wanted and sys.platform != "win32":
            for process in multiprocessing.active_children():
                if process not in others:
                    os.kill(process.pid or 0, signal.SIGSTOP)
            also()
        return real(*words)

    monkeypatch.setattr(driver, "training_step", step)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows stops no process")
def test_one_signal_ends_a_run_whose_workers_are_stopped(tiny_folder, tmp_path, monkeypatch):
    timer = threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stop_workers_in_step(monkeypatch, 3, timer.start)
    others = multiprocessing.active_children()
    shown = train(tiny_folder, tmp_path, "--num-workers", 2, "--epochs", 500)
    assert shown.returncode == 143, shown.stderr
    step = json.loads((tmp_path / "run" / "results.json").read_text())["steps"]
    assert step >= 3
    assert Checkpoints(tmp_path / "run" / "checkpoints", 9).newest().folder.name == f"step-{step:06}"
    assert multiprocessing.active_children() == others


@pytest.mark.skipif(sys.platform == "win32", reason="Windows stops no process")
def test_workers_that_send_nothing_end_the_run_with_one_line(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_workers, "SILENCE", 20)
    stop_workers_in_step(monkeypatch, 3)
    shown = train(tiny_folder, tmp_path, "--num-workers", 2, "--epochs", 500)
    assert shown.returncode == 1
    assert shown.stderr.splitlines()[-1] == (
        "The run stopped: the processes that prepare batches have sent none for 5 seconds: they were stopped, or the machine "
        "has too much to do. --num-workers 0 starts no such processes. --resume goes on from the last checkpoint."
    )


def test_few_open_files_are_enough(tiny_folder, tmp_path):
    """64 micro-batches of ten tensors: each tensor was an open file once, and the run hung."""
    if sys.platform == "win32":
        pytest.skip("Windows has no such limit")
    import resource

    flags = ["--batch-size", 64, "--part-size", 1, "--epochs", 1]
    assert train(tiny_folder, tmp_path, *flags).returncode == 0
    alone = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, usual[1]))
    try:
        shown = train(tiny_folder, tmp_path, *flags, "--num-workers", 2, "--overwrite")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == alone


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_in_a_thread_trains_to_its_end(tiny_folder, tmp_path, workers):
    """As in a web service: signals are for the main thread alone."""
    shown: list[Any] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    flags = ["--batch-size", 32, "--epochs", 1, "--num-workers", workers]
    thread = threading.Thread(target=lambda: shown.append(train(tiny_folder, tmp_path, *flags)))
    thread.start()
    thread.join()
    assert shown, "the thread ended with a traceback"
    assert shown[0].returncode == 0, shown[0].stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 2
    assert before == {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def test_a_closed_terminal_ends_a_run_as_sigterm_does(tiny_folder, tmp_path, monkeypatch):
    if sys.platform == "win32":
        pytest.skip("Windows has no SIGHUP")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGHUP)
        shown = train(tiny_folder, tmp_path)
    signal.signal(signal.SIGHUP, before)
    assert shown.returncode == 129, shown.stderr
    assert "Ended by SIGHUP after step 2" in shown.stdout
    assert Checkpoints(tmp_path / "run" / "checkpoints", 9).newest().values["progress"]["step"] == 2
    assert run_inside(driver.main, "--output-dir", tmp_path / "run", "--resume").returncode == 0


def test_a_run_that_is_to_ignore_a_closed_terminal_does(tiny_folder, tmp_path, monkeypatch):
    """As under nohup."""
    if sys.platform == "win32":
        pytest.skip("Windows has no SIGHUP")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signal_in_step(monkeypatch, 2, signal.SIGHUP)
        assert train(tiny_folder, tmp_path, "--epochs", 1, "--batch-size", 32).returncode == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_waiting_for_a_batch_ends_at_a_signal_and_after_a_long_silence(monkeypatch):
    """Also where the fetching itself never returns, as in a read of half a batch."""
    monkeypatch.setattr(batch_workers, "LOOK", 0.01)
    monkeypatch.setattr(batch_workers, "SILENCE", 3)
    loader, asked = Hangs(), [0]
    batches = BatchWorkers(1).batches(loader, lambda: asked[0])
    assert next(batches) == 1
    with pytest.raises(RunError, match="sent none for"):
        next(batches)
    batches = BatchWorkers(1).batches(loader, lambda: asked[0])
    assert next(batches) == 1
    asked[0] = signal.SIGTERM
    assert list(batches) == []
    loader.end.set()


def test_batches_come_whole_and_errors_as_they_are(monkeypatch):
    def broken():
        yield 1
        raise KeyError("a defect of the dataset")

    with BatchWorkers(1) as workers:
        assert list(workers.batches(range(5), lambda: 0)) == [0, 1, 2, 3, 4]
        with pytest.raises(KeyError, match="a defect"):
            list(workers.batches(broken(), lambda: 0))


def test_a_batch_is_sent_as_arrays_and_arrives_as_it_was(tiny_folder, tmp_path, monkeypatch):
    sent = []
    real = driver.training_step

    def step(*words: Any) -> torch.Tensor:
        sent.extend(words[-1])
        return real(*words)

    monkeypatch.setattr(driver, "training_step", step)
    assert train(tiny_folder, tmp_path, "--epochs", 1, "--batch-size", 64).returncode == 0
    (batch,) = sent
    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", None)  # a tensor can't be sent
    again = pickle.loads(pickle.dumps(batch))
    for before, after in zip((*batch.tokens, *batch[1:]), (*again.tokens, *again[1:]), strict=True):
        assert (before is None) == (after is None)
        if before is not None:
            assert before.dtype == after.dtype
            assert torch.equal(before, after)
    assert again.tokens._fields == batch.tokens._fields
