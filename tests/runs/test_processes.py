"""The training command in two processes, as torchrun starts them: the same weights, one voice, and what ends them."""

import json
import math
import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bertFineTuningWithConnectionData as driver
from connection.runs import training_run
from connection.system.errors import InputError
from tests.conftest import CANDIDATES, MANY, ROOT, run_inside, write_pairs
from tools import encode

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun of PyTorch's Windows builds needs another store")
ROWS = (MANY + CANDIDATES)[::-1]
# Runs the training command, which draws no pictures. In a training step of the first attempt, a process may end itself or its
# torchrun.
SCRIPT = """
import hashlib, os, signal, sys
import bertFineTuningWithConnectionData as driver
from connection.data import pair_store
from connection.reports import html_report
from connection.system.processes import from_all
from connection.system.signals import run_to_the_end

pair_store.SMALL_FILE = 0  # the store is built by one process, and mapped by both
html_report.draw_inline = lambda *words: {}
html_report.word_shares = lambda *words: ({}, "not in this test")
rank, step, whom, number = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
real, done = driver.training_step, []

def training_step(*words):
    done.append(1)
    if len(done) == step and int(os.environ["RANK"]) == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill({"self": os.getpid(), "torchrun": os.getppid()}[whom], number)
    loss = real(*words)
    weights = words[0].packed_bert.weights
    bits = hashlib.sha256(weights.master.numpy().tobytes() + weights.word.data.numpy().tobytes()).hexdigest()
    assert len({*from_all((bits, float(loss)))}) == 1, "the processes have other weights"
    return loss

driver.training_step = training_step
run_to_the_end(lambda: driver.main(sys.argv[5:]))
"""
NOTHING = (0, 0, "self", 0)


@pytest.fixture
def words(tmp_path, tiny_folder):
    """The flags of a run of 52 steps; the last batch of an epoch has one pair, so that the second process has none of it."""
    train, dev = write_pairs(tmp_path / "train.csv", ROWS[:101]), write_pairs(tmp_path / "dev.csv", ROWS[101:])
    files = ["--model-dir", tiny_folder, "--train-file", train, "--dev-file", dev, "--cache-dir", tmp_path / "cache"]
    how = ["--batch-size", 4, "--epochs", 2, "--max-length", 32, "--precision", "fp32", "--threads", 1]
    return [*files, *how, "--label-min", 0, "--label-max", 5, "--allow", "leaked-pair,contradiction,duplicate"]


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "in_step.py"
    file.write_text(SCRIPT, encoding="utf-8")
    return file


SIGKILL = 9  # signal.SIGKILL, which Windows has not


def torchrun(*command, processes=2, more=()):
    """A command under torchrun."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *more]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.run([*run, *map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def weights_of(run):
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / "state.safetensors")


def difference(one, two):
    """The norm of the difference of two runs' weights, relative to that of the weights."""
    assert one.keys() == two.keys()
    names = [name for name in one if name.startswith(("model.", "objective."))]
    apart = sum(float((one[name] - two[name]).double().square().sum()) for name in names)
    return math.sqrt(apart / sum(float(one[name].double().square().sum()) for name in names))


@pytest.mark.parametrize("group_by", ["none", "sentence1"])
def test_two_processes_train_as_one(tmp_path, words, script, group_by):
    """50 steps of two training files in two processes, then the last two ones in one process."""
    write_pairs(tmp_path / "train.csv", ROWS[:61])
    words += ["--group-by", group_by, "--train-file", f"{write_pairs(tmp_path / 'other.csv', ROWS[61:101])}:1:cosent"]
    assert run_inside(driver.main, *words, "--output-dir", tmp_path / "one").returncode == 0
    shown = torchrun(script, 1, 50, "torchrun", signal.SIGTERM, *words, "--output-dir", tmp_path / "two")
    assert shown.stdout.count("measuring the base model") == 1, shown.stderr
    assert "Ended by SIGTERM after step" in shown.stdout
    resumed = run_inside(driver.main, "--output-dir", tmp_path / "two", "--resume")
    assert "note: 2 process(es) so far, 1 now" in resumed.stdout, resumed.stderr
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert 0 < difference(one, two) < 1e-6
    figures = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    for key in ("spearman", "pearson", "loss"):
        assert figures[1]["final"]["dev"][key] == pytest.approx(figures[0]["final"]["dev"][key], abs=1e-5)


def assert_equal(one, two):
    one, two = weights_of(one), weights_of(two)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_a_run_with_a_killed_process_goes_on_as_if_nothing_had_happened(tmp_path, words, script):
    words += ["--dropout", 0.1, "--loss", "softmax", "--part-size", 1, "--checkpoint-steps", 20, "--eval-steps", 15]
    whole = torchrun(script, *NOTHING, *words, "--output-dir", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    killed = [*words, "--output-dir", tmp_path / "killed"]
    restarted = torchrun(script, 1, 47, "self", SIGKILL, *killed, more=["--max-restarts=1"])
    assert restarted.returncode == 0, restarted.stderr
    assert restarted.stderr.count("another process of this run has ended") == 1
    assert "resumes from step-000040: 40 of 52 steps are done" in restarted.stdout
    assert_equal(tmp_path / "killed", tmp_path / "whole")


def test_two_processes_encode_a_list(tmp_path, tiny_folder):
    listed = write_pairs(tmp_path / "list.csv", [(one, two) for one, two, _ in ROWS[:99]], ("text", "other"))
    flags = [tiny_folder, listed, "--column", "text", "-o"]
    assert run_inside(encode.main, *flags, tmp_path / "one.npy").returncode == 0
    shown = torchrun("-m", "tools.encode", *flags, tmp_path / "two.npy")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("99 x 32 float32") == 1
    one, two = np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy")
    assert np.abs(one - two).max() < 1e-5


def test_other_files_on_another_machine_are_refused(monkeypatch):
    monkeypatch.setattr(training_run, "from_all", lambda told: [told, told | {"pairs.csv": "another"}])
    stores = {"train": SimpleNamespace(path="pairs.csv", sha256="one")}
    run: Any = SimpleNamespace(_pairs=SimpleNamespace(prepared=SimpleNamespace(stores=stores)))
    with pytest.raises(InputError, match=r"^pairs.csv of process 1 and of process 0 are not the same"):
        training_run.TrainingRun._require_same_files(run, "model")


def test_several_seeds_are_refused(tmp_path, words):
    shown = run_inside(driver.main, *words, "--output-dir", tmp_path / "run", "--seeds", 2, WORLD_SIZE="2", RANK="0")
    assert shown.returncode == 2
    assert "[rank 0] --seeds trains one run after the other in one process" in shown.stderr
    assert not (tmp_path / "run").exists()
