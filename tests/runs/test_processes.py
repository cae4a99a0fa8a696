"""The training command in two processes, as torchrun starts them: the same weights, one voice, and what ends them."""

import math
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

import bertFineTuningWithConnectionData as driver
from tests.conftest import CANDIDATES, DRIVER, MANY, ROOT, run_inside, write_pairs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun of PyTorch's Windows builds needs another store")
ROWS = (MANY + CANDIDATES)[::-1]


@pytest.fixture
def words(tmp_path, tiny_folder):
    """The flags of a run of 52 steps; the last batch of an epoch has one pair, so that the second process has none of it."""
    train, dev = write_pairs(tmp_path / "train.csv", ROWS[:101]), write_pairs(tmp_path / "dev.csv", ROWS[101:])
    files = ["--model-dir", tiny_folder, "--train-file", train, "--dev-file", dev, "--cache-dir", tmp_path / "cache"]
    how = ["--batch-size", 4, "--epochs", 2, "--max-length", 32, "--precision", "fp32", "--threads", 1]
    return [*files, *how, "--label-min", 0, "--label-max", 5, "--allow", "leaked-pair,contradiction,duplicate"]


def torchrun(*command, processes=2, more=()):
    """A command under torchrun; in a process of its own, whose standard output and error are read as one."""
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


def test_two_processes_train_as_one(tmp_path, words):
    assert run_inside(driver.main, *words, "--output-dir", tmp_path / "one").returncode == 0
    shown = torchrun(DRIVER, *words, "--output-dir", tmp_path / "two")
    assert shown.returncode == 0, shown.stderr
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert 0 < difference(one, two) < 1e-6
    assert shown.stdout.count("measuring the base model") == 1
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert len(logs[0]) == len(logs[1])
