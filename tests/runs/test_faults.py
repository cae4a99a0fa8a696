"""What is left when a disk is full, a folder gone, a process killed, or a number not finite."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bertFineTuningWithConnectionData as driver
from benchmarks.fault_runs import at_operation, ended
from connection.runs import disk_and_memory as needs
from connection.runs.checkpoints import Checkpoints, find_damage
from connection.runs.run_folder import RunFolder
from connection.system.atomic_files import atomic_folder
from connection.system.errors import RunError, exit_status
from connection.training.gradient_cache import OutOfMemoryRetry
from connection.training.objectives import cosine_mse
from connection.training.optimizer import AdamW
from connection.training.state import Progress
from ConnectionBert import ConnectionBert
from tests.conftest import PAIRS, ROOT, run_command, run_inside, training_words, write_pairs

EMPTY = hashlib.sha256(b"").hexdigest()
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the fault is made with Linux's own means")


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs.csv", PAIRS * 5)  # 10 steps of 4 pairs


def train(folder, pairs, output, *flags):
    return run_inside(driver.main, *training_words(folder, pairs, output, *flags))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- the disk ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_and_harms_no_checkpoint(tiny_folder, pairs, tmp_path):
    """The limit on a file's size lies above the model's and below a checkpoint's."""
    if sys.platform != "linux":
        pytest.skip("the fault is made with Linux's own means")
    import resource

    output = tmp_path / "run"
    assert train(tiny_folder, pairs, output).returncode == 0
    before = content(output / "checkpoints")
    sizes = {name: len(data) for name, data in before.items() if name.endswith("safetensors") and "000020" in name}
    limit = sum(sizes.values()) // 2
    assert min(sizes.values()) < limit < max(sizes.values())
    longer = ["--output-dir", output, "--resume", "--extend", "--epochs", 3]
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        ended = run_inside(driver.main, *longer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "The run stopped: " in ended.stderr.strip().splitlines()[-1]
    assert content(output / "checkpoints") == before
    assert not [path for path in output.rglob(".*") if path.name != ".lock"]
    assert run_inside(driver.main, *longer).returncode == 0


@pytest.mark.parametrize("dev", [True, False])
@pytest.mark.parametrize("fault", ["vanished", "replaced", "in the way"])
def test_a_folder_that_can_not_be_written_ends_the_run(tiny_folder, pairs, tmp_path, monkeypatch, fault, dev):
    """Nothing is written where the folder is no longer this run's, and another one's lock stays."""
    output, real, steps = tmp_path / "run", driver.training_step, []

    def step(*words):
        steps.append(1)
        if len(steps) == 5:
            if fault == "in the way":
                (output / "checkpoints").write_text("a file")
            else:
                shutil.rmtree(output)
            if fault == "replaced":
                output.mkdir()
                (output / ".lock").write_text("of another")
        return real(*words)

    monkeypatch.setattr(driver, "training_step", step)
    flags = [] if dev else ["--dev-file", "", "--dev-fraction", 0, "--test-fraction", 0]
    ended = train(tiny_folder, pairs, output, "--log-steps", 100, *flags)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.strip().splitlines()[-1].startswith("The run stopped: ")
    assert output.exists() == (fault != "vanished")
    if fault == "replaced":
        assert [path.name for path in output.iterdir()] == [".lock"]


@LINUX
def test_a_process_that_prepares_batches_and_is_killed_ends_the_run(tiny_folder, pairs, tmp_path, monkeypatch):
    real, seen = driver.training_step, []
    others = multiprocessing.active_children()

    def step(*words):
        seen.append(1)
        if len(seen) == 3:
            preparing = next(child for child in multiprocessing.active_children() if child not in others)
            preparing.kill()
        return real(*words)

    monkeypatch.setattr(driver, "training_step", step)
    shown = train(tiny_folder, pairs, tmp_path / "run", "--num-workers", 2, "--epochs", 500)
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr
    assert "--num-workers 0" in shown.stderr


def test_the_room_for_checkpoints_is_looked_at_before_the_start(tiny_folder, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**24 + 2**22))
    refused = train(tiny_folder, pairs, tmp_path / "run")
    assert refused.returncode == 2
    assert "2 checkpoints of" in refused.stderr
    assert "--keep-checkpoints 0 needs" in refused.stderr
    assert not (tmp_path / "run").exists()
    assert train(tiny_folder, pairs, tmp_path / "run", "--keep-checkpoints", 0).returncode == 0


def test_what_a_checkpoint_takes_is_what_is_looked_for(tiny_folder, pairs, tmp_path):
    for name, flags in {"plain": (), "average": ("--ema", 0.9)}.items():
        assert train(tiny_folder, pairs, tmp_path / name, *flags).returncode == 0
        weights = sum(weight.numel() for weight in ConnectionBert.load(tiny_folder).parameters())
        taken = (tmp_path / name / "checkpoints" / "step-000020" / "state.safetensors").stat().st_size
        assert 0.8 * taken < needs.checkpoint_bytes(weights, bool(flags)) - 2**20 < 1.2 * taken


# --- a process that is killed ------------------------------------------------------------------------------------------


def killed_at(number: int, folder: Path, work) -> bool:
    """Whether a child process that does `work` was killed before its file operation of this number in `folder`."""
    if sys.platform != "linux":
        raise NotImplementedError("forks are not known there")
    child = os.fork()
    if child:
        return ended(child) == -signal.SIGKILL
    try:
        at_operation(number, folder, folder / "operation.txt")()
        work()
    finally:
        os._exit(0)


@LINUX
def test_killed_at_any_file_operation_a_run_has_a_whole_checkpoint_and_a_whole_model(tmp_path):
    """Of a run that saves a better model and then a checkpoint, while it removes the oldest one."""
    run = tmp_path / "run"

    def save(step):
        with atomic_folder(run / "model") as new:
            (new / "model.safetensors").write_bytes(bytes([step]) * 1000)
            (new / "config.json").write_text(str(step))
        tensors = {"model.weight": torch.full((100,), float(step))}
        Checkpoints(run / "checkpoints", 2).write(
            step, tensors, {"metrics_bytes": 0, "metrics": EMPTY, "step": step}, run / "model"
        )

    for step in (1, 2):
        save(step)
    (run / "metrics.jsonl").touch()
    start = tmp_path / "start"
    shutil.copytree(run, start)
    number = 0
    while True:
        number += 1
        shutil.rmtree(run)
        shutil.copytree(start, run)
        if not killed_at(number, tmp_path, lambda: save(3)):
            break
        kept = Checkpoints(run / "checkpoints", 2).newest()
        assert not kept.notes
        assert kept.folder.name == f"step-{kept.values['step']:06}"
        assert kept.values["step"] in (2, 3)
        assert kept.tensors["model.weight"].tolist() == [kept.values["step"]] * 100
        step = int((run / "model" / "config.json").read_text())
        assert step in (2, 3)
        assert (run / "model" / "model.safetensors").read_bytes() == bytes([step]) * 1000
        opened = RunFolder(run, None, kept)  # what goes on from it: the checkpoint's own best model, and nothing left over
        assert opened.saved
        assert (run / "model" / "config.json").read_text() == str(kept.values["step"])
        assert not [path.name for path in run.rglob(".*")]
        assert all(find_damage(folder) == "" for folder in Checkpoints(run / "checkpoints", 2).steps())
    assert number > 25  # so many operations there were


# --- numbers that are not finite ---------------------------------------------------------------------------------------


def broken_loss(monkeypatch, broken_steps, kind="loss"):
    calls = []

    def loss_of(u, v, target, sentences, weight=None):
        calls.append(1)
        loss = cosine_mse(u, v, target, sentences)
        if len(calls) not in broken_steps:
            return loss
        if kind == "loss alone":  # its gradient is as it was
            return loss + math.inf
        return loss * math.nan if kind == "loss" else loss + (u * 0).sum().abs().sqrt()  # sqrt at 0: infinite slope

    monkeypatch.setattr("connection.training.objectives.cosine_mse", loss_of)


@pytest.mark.parametrize("packing", ["--packing", "--no-packing"])
@pytest.mark.parametrize("kind", ["loss", "gradient", "loss alone"])
def test_a_skipped_batch_changes_nothing(tiny_folder, pairs, tmp_path, monkeypatch, kind, packing):
    """As if its gradient had not been: the state after it, but for the random numbers and counts, is the one before it."""
    flags = ["--loss", "cosine-mse", "--on-nonfinite", "skip", "--checkpoint-steps", 1, "--keep-checkpoints", 50, packing]
    with monkeypatch.context() as patch:
        broken_loss(patch, {4, 6, 7}, kind)
        shown = train(tiny_folder, pairs, tmp_path / "run", *flags, "--epochs", 1)
    assert shown.returncode == 0, shown.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["skipped_steps"], results["steps"]) == (3, 10)
    assert math.isfinite(results["epoch_figures"][0]["training loss"])
    states = {step: load_file(tmp_path / f"run/checkpoints/step-{step:06}/state.safetensors") for step in range(1, 10)}
    for step, same in ((4, True), (5, False), (7, True)):
        before, after = states[step - 1], states[step]
        moved = [name for name in before if name.startswith("model.encoder") and not torch.equal(before[name], after[name])]
        assert bool(moved) is not same
        if same:
            counts = [name for name in before if name.endswith((".step", ".steps"))]
            assert counts
            assert all(torch.equal(before[name], after[name]) for name in counts)


def test_five_skipped_batches_in_a_row_end_the_run(tiny_folder, pairs, tmp_path, monkeypatch):
    broken_loss(monkeypatch, {4, 5, 6, 7, 8, 9, 10})
    shown = train(tiny_folder, pairs, tmp_path / "run", "--loss", "cosine-mse", "--on-nonfinite", "skip")
    assert shown.returncode == 1
    assert "of step 8 is not a finite number" in shown.stderr
    assert f"{pairs}, lines " in shown.stderr


@pytest.mark.parametrize("packing", ["--packing", "--no-packing"])
def test_a_weight_that_is_not_finite_stops_the_next_step(tiny_folder, pairs, tmp_path, monkeypatch, packing):
    real, steps = driver.training_step, []

    def step(model, *words):
        loss = real(model, *words)
        steps.append(1)
        if len(steps) == 3:
            model.encoder.encoder.layer[0].output.LayerNorm.bias.data[0] = math.nan
            if model.packed_bert:
                model.packed_bert.weights.copy.copy_(model.packed_bert.weights.master)
        return loss

    monkeypatch.setattr(driver, "training_step", step)
    shown = train(tiny_folder, pairs, tmp_path / "run", "--checkpoint-steps", 2, packing)
    assert shown.returncode == 1
    assert "of step 4 is not a finite number" in shown.stderr
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000002"]


def test_no_checkpoint_is_made_of_numbers_that_are_not_finite(tiny_folder, pairs, tmp_path, monkeypatch):
    real = AdamW.update

    def update(self, *words):
        norm = real(self, *words)
        next(iter(self.adamw.state.values()))["exp_avg"][0] = math.inf
        return norm

    monkeypatch.setattr(AdamW, "update", update)
    shown = train(tiny_folder, pairs, tmp_path / "run", "--no-packing", "--checkpoint-steps", 1)
    assert shown.returncode == 1
    assert "holds NaN or infinite values after step 1" in shown.stderr
    assert not list((tmp_path / "run").glob("checkpoints/*"))


# --- memory ------------------------------------------------------------------------------------------------------------


def full_above(monkeypatch, most):
    real = driver.training_step

    def step(model, objective, optimizer, rate, norm, batch):
        if max(len(part.rows) for part in batch) > most:
            optimizer.accumulate()  # as if its first part had been done
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(model, objective, optimizer, rate, norm, batch)

    monkeypatch.setattr(driver, "training_step", step)


@pytest.mark.parametrize(("packing", "loss"), [("--packing", "cosent"), ("--no-packing", "cosine-mse")])
def test_a_full_gpu_gets_the_same_batches_in_smaller_parts(tiny_folder, pairs, tmp_path, monkeypatch, packing, loss):
    """The weights are those of `--part-size 1`: no row is lost or comes twice."""
    flags = ["--loss", loss, "--precision", "fp32", "--dropout", 0, packing]
    assert train(tiny_folder, pairs, tmp_path / "parts", *flags, "--part-size", 1).returncode == 0
    with monkeypatch.context() as patch:
        full_above(patch, 1)
        shown = train(tiny_folder, pairs, tmp_path / "full", *flags)
    assert shown.returncode == 0, shown.stderr
    assert "from here on 2 pairs at a time" in shown.stdout
    assert "from here on 1 pairs at a time" in shown.stdout
    parts, full = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("parts", "full"))
    assert all(torch.equal(parts[name], full[name]) for name in parts)
    sizes = []

    def seen(*words):
        sizes.append(len(words[-1]))
        return torch.zeros(())

    monkeypatch.setattr(driver, "training_step", seen)
    resumed = train(tiny_folder, pairs, tmp_path / "full", *flags, "--resume", "--extend", "--epochs", 3)
    assert resumed.returncode == 0, resumed.stderr
    assert set(sizes) == {4}  # parts of one pair, as before


def test_a_gpu_that_is_full_all_the_same_ends_the_run(tiny_folder, pairs, tmp_path, monkeypatch):
    full_above(monkeypatch, 0)
    shown = train(tiny_folder, pairs, tmp_path / "run")
    assert shown.returncode == 1
    assert "full with one pair at a time" in shown.stderr
    assert "smaller --batch-size" in shown.stderr
    optimizer: Any = SimpleNamespace(updating=True)
    batch: Any = [SimpleNamespace(rows=torch.arange(4))]
    data: Any = None

    def step(batch):
        raise torch.OutOfMemoryError("full")

    def full():
        return torch.empty(2**60)

    out = io.StringIO()
    with contextlib.redirect_stderr(out):
        assert exit_status(full) == 1
    assert "the memory is full" in out.getvalue()
    with pytest.raises(RunError, match="within an update"):
        OutOfMemoryRetry(data, optimizer, 0, Progress())(step, batch)


def test_a_setting_that_needs_more_memory_than_there_is_is_warned_about(tiny_folder, pairs, tmp_path, monkeypatch):
    assert "WARNING" not in train(tiny_folder, pairs, tmp_path / "one").stdout
    monkeypatch.setattr(needs, "available_memory", lambda: 2**16)
    shown = train(tiny_folder, pairs, tmp_path / "two")
    assert shown.returncode == 0
    assert "WARNING: training may need" in shown.stdout
    assert "0 MiB are free" in shown.stdout


@LINUX
def test_the_estimate_of_memory_is_near_what_a_step_takes(minilm, tmp_path):
    """Peak resident memory of a real run of long sentences, less what the process has before its first step.

    Read where Linux keeps it for the program that runs: getrusage's figure is at least that of the process that started it.
    """
    long = [(" ".join([one] * 40), " ".join([two] * 40), score) for one, two, score in PAIRS]
    file = write_pairs(tmp_path / "long.csv", long * 2)
    code = (
        "import sys, bertFineTuningWithConnectionData as d\n"
        "real, seen = d.training_step, []\n"
        "import connection.runs.disk_and_memory as n\n"
        "peak = lambda: next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "n.available_memory = lambda: 1\n"
        "def step(*words):\n"
        "    seen.append(peak()); return real(*words)\n"
        "d.training_step = step\n"
        "status = d.main(sys.argv[1:]); print('GREW', peak() - seen[0]); sys.exit(status)\n"
    )
    flags = ["--model-dir", minilm, "--train-file", file, "--epochs", 1, "--batch-size", 16, "--max-length", 256]
    flags += ["--dev-fraction", 0, "--test-fraction", 0, "--output-dir", tmp_path / "run", "--precision", "fp32"]
    flags += ["--keep-checkpoints", 0]
    shown = run_command("-c", code, *flags, cwd=ROOT, OMP_NUM_THREADS=str(os.cpu_count()))
    assert shown.returncode == 0, shown.stderr
    grew = int(shown.stdout.split("GREW ")[1].split()[0])
    said = float(shown.stdout.split("training may need ")[1].split()[0]) * 2**30
    assert 0.5 * grew < said < 2 * grew


# --- a long run --------------------------------------------------------------------------------------------------------


@LINUX
def test_memory_and_files_stay_as_they_are_over_many_steps(tiny_folder, pairs, tmp_path):
    """A short share of `benchmarks.faults`: 300 steps, with evaluation and checkpoints, without a leak of files."""
    counted: list[int] = []
    real = driver.training_step

    def step(*words):
        counted.append(len(os.listdir("/proc/self/fd")))
        return real(*words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "training_step", step)
        shown = train(tiny_folder, pairs, tmp_path / "run", "--epochs", 30, "--eval-steps", 7, "--checkpoint-steps", 5)
    assert shown.returncode == 0, shown.stderr
    assert len(counted) == 300
    assert max(counted[20:]) <= counted[20]
    assert np.isfinite(json.loads((tmp_path / "run" / "results.json").read_text())["pairs_per_second"])
