"""A run that was ended and goes on equals one that was not, to the last bit; and checkpoints that are damaged are not used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from transformers import BertModel

import bertFineTuningWithConnectionData as driver
from benchmarks.fault_runs import reached
from connection.runs.checkpoints import Checkpoints, _write_manifest
from connection.runs.run_folder import RunFolder
from connection.system.errors import InputError
from connection.training.state import RunState
from ConnectionBert import ConnectionBert
from tests.conftest import DRIVER, PAIRS, run_inside, signal_in_step, tiny_config, training_words, write_bert, write_pairs

MANY = PAIRS * 5  # 10 steps of 4 pairs
WAYS: dict[str, list[object]] = {
    "packed, bf16, average": ["--precision", "bf16", "--ema", 0.9, "--eval-steps", 3, "--checkpoint-steps", 4],
    "padded, fp32": ["--no-packing", "--precision", "fp32"],
    "in parts, by workers": ["--part-size", 2, "--num-workers", 1, "--precision", "fp32", "--layer-decay", 0.9],
    "a classifier": ["--loss", "softmax", "--no-packing", "--gradient-checkpointing"],
}


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs.csv", MANY)


def train(folder, pairs, output, *flags):
    own = ["--log-steps", 1, "--cache-dir", output.parent / "cache"]
    return run_inside(driver.main, *training_words(folder, pairs, output, *own, *flags))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run, to be copied; its model and its pairs lie where they were."""
    folder = tmp_path_factory.mktemp("done")
    torch.manual_seed(0)
    model, pairs = write_bert(folder / "tiny", BertModel(tiny_config())), write_pairs(folder / "pairs.csv", MANY)
    assert train(model, pairs, folder / "run").returncode == 0
    return folder / "run"


def assert_same(one, two):
    """All that two runs have reached, as of `reached`."""
    assert one.keys() == two.keys()
    assert one["bits"].keys() == two["bits"].keys()
    assert [name for name in one["bits"] if one["bits"][name] != two["bits"][name]] == []
    for part in one.keys() - {"bits"}:
        assert one[part] == two[part]


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(tiny_folder, pairs, tmp_path, monkeypatch, way):
    """Ended at the first step, within an epoch, at an epoch's end, and at the last step; with dropout."""
    assert train(tiny_folder, pairs, tmp_path / "whole", *WAYS[way]).returncode == 0
    expected = reached(tmp_path / "whole")
    for step in (1, 6, 10, 20):
        output = tmp_path / f"ended-{step}"
        with monkeypatch.context() as patch:
            signal_in_step(patch, step, signal.SIGTERM if step == 6 else signal.SIGINT)
            ended = train(tiny_folder, pairs, output, *WAYS[way])
        assert ended.returncode == (143 if step == 6 else 130), ended.stderr
        assert json.loads((output / "results.json").read_text())["steps"] == step
        torch.manual_seed(99)  # another process would have other numbers to draw
        resumed = run_inside(driver.main, "--output-dir", output, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert f"resumes from step-{step:06}" in resumed.stdout
        assert_same(reached(output), expected)


def test_several_ends_and_a_process_of_its_own(tiny_folder, pairs, tmp_path):
    """Ended by real signals from outside, twice in a row, until it is done: the result is that of one go."""
    flags = ["--epochs", 6, "--checkpoint-steps", 7, "--threads", 1, "--precision", "fp32"]  # each process would measure anew
    assert train(tiny_folder, pairs, tmp_path / "whole", *flags).returncode == 0
    output = tmp_path / "ended"
    words = ["--model-dir", tiny_folder, "--train-file", pairs, "--dev-file", pairs, "--allow", "leaked-pair",
             "--batch-size", 4, "--max-length", 32, "--log-steps", 1, "--learning-rate", "1e-3", *flags]  # fmt: skip
    words += ["--output-dir", output, "--cache-dir", tmp_path / "cache"]
    statuses = []
    for go in range(6):
        command = [sys.executable, DRIVER, *words, *(["--resume"] if go else [])]
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        logged = (output / "metrics.jsonl").read_text() if go else ""
        deadline = time.monotonic() + 60
        while go < 2 and time.monotonic() < deadline and process.poll() is None:
            file = output / "metrics.jsonl"
            if file.exists() and file.read_text().count("\n") > logged.count("\n") + 3:
                break
            time.sleep(0.005)
        if go < 2:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        assert "Traceback" not in said
        statuses.append(process.returncode)
        if process.returncode == 0:
            break
        assert process.returncode in (130, 143), said
    assert statuses[-1] == 0
    assert len(statuses) > 1
    assert_same(reached(output), reached(tmp_path / "whole"))


def test_a_signal_while_dev_pairs_are_measured_ends_that_too(tiny_folder, pairs, tmp_path, monkeypatch):
    assert train(tiny_folder, pairs, tmp_path / "whole", "--ema", 0.9).returncode == 0
    real = ConnectionBert.encode_tokens
    calls = []

    def slow(self, *words, **flags):
        calls.append(1)
        if len(calls) == 2:  # after the base model's
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        return real(self, *words, **flags)

    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    with monkeypatch.context() as patch:
        patch.setattr(ConnectionBert, "encode_tokens", slow)
        clock = time.perf_counter()
        assert train(tiny_folder, pairs, tmp_path / "ended", "--ema", 0.9).returncode == 143
        assert time.perf_counter() - clock < 25
    assert run_inside(driver.main, "--output-dir", tmp_path / "ended", "--resume").returncode == 0
    assert_same(reached(tmp_path / "ended"), reached(tmp_path / "whole"))


def test_more_epochs_are_asked_for_aloud(done, tmp_path):
    output = shutil.copytree(done, tmp_path / "run")
    refused = run_inside(driver.main, "--output-dir", output, "--resume", "--epochs", 3, "--seed", 7)
    assert refused.returncode == 2
    assert "--epochs: 3 now, 2 in the run so far; for more of them give --extend" in refused.stderr
    assert "--seed: 7 now, 42 in the run so far" in refused.stderr
    more = run_inside(driver.main, "--output-dir", output, "--resume", "--extend", "--epochs", 3, "--log-steps", 2)
    assert more.returncode == 0, more.stderr
    results = json.loads((output / "results.json").read_text())
    assert [row["epoch"] for row in results["epoch_figures"]] == [1, 2, 3]
    assert results["steps"] == 30
    for flags in (["--resume", "--overwrite"], ["--extend"], ["--resume", "--seeds", 2]):
        assert run_inside(driver.main, "--output-dir", output, *flags).returncode == 2


def test_a_run_that_is_done_can_be_resumed_without_harm(done, tmp_path):
    shutil.copytree(done, tmp_path / "run")
    before = reached(tmp_path / "run")
    assert run_inside(driver.main, "--output-dir", tmp_path / "run", "--resume").returncode == 0
    assert_same(reached(tmp_path / "run"), before)


def test_another_file_or_model_is_refused(tiny_folder, pairs, tmp_path):
    output = tmp_path / "run"
    assert train(tiny_folder, pairs, output).returncode == 0
    resume = ["--output-dir", output, "--resume"]
    moved = pairs.rename(tmp_path / "moved.csv")
    gone = run_inside(driver.main, *resume)
    assert gone.returncode == 2
    assert "pairs.csv" in gone.stderr
    there = [*resume, "--train-file", moved, "--dev-file", moved]
    assert run_inside(driver.main, *there).returncode == 0  # the same content by another name
    moved.write_text(moved.read_text().replace("guitar", "horse", 1))
    changed = run_inside(driver.main, *there)
    assert changed.returncode == 2
    assert f"the train pairs ({moved}) are not those of the run so far" in changed.stderr
    assert f"the dev pairs ({moved})" in changed.stderr
    write_pairs(moved, MANY)
    swapped = run_inside(driver.main, *there, "--dev-file", "", "--test-file", moved)
    assert swapped.returncode == 2
    assert "the dev pairs (none)" in swapped.stderr
    assert f"the test pairs ({moved})" in swapped.stderr
    model = ConnectionBert.load(tiny_folder)
    model.save(tmp_path / "same")
    assert run_inside(driver.main, *there, "--model-dir", tmp_path / "same", "--max-length", 32).returncode == 0
    model.encoder.embeddings.LayerNorm.bias.data[0] += 1
    model.save(tmp_path / "other")
    other = run_inside(driver.main, *there, "--model-dir", tmp_path / "other")
    assert other.returncode == 2
    assert "the model in --model-dir" in other.stderr


def test_an_edited_constant_counts_as_a_flag(tiny_folder, pairs, tmp_path, monkeypatch):
    constants = {"MODEL_DIR": str(tiny_folder), "TRAIN_FILE": str(pairs), "DEV_FILE": str(pairs), "TEST_FILE": "",
                 "ALLOW": "leaked-pair", "OUTPUT_DIR": str(tmp_path / "run"), "CACHE_DIR": str(tmp_path / "cache"),
                 "BATCH_SIZE": 4, "MAX_LENGTH": 32, "EPOCHS": 1}  # fmt: skip
    for name, value in constants.items():
        monkeypatch.setattr(driver, name, value)
    assert run_inside(driver.main).returncode == 0
    monkeypatch.setattr(driver, "RESUME", True)
    for name, value, said in (("LEARNING_RATE", 1e-3, "--learning-rate: 0.001 now"), ("EPOCHS", 2, "--epochs: 2 now"),
                              ("TRAIN_FILE", str(write_pairs(tmp_path / "other.csv")), "the train pairs")):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(driver, name, value)
            refused = run_inside(driver.main)
        assert refused.returncode == 2
        assert said in refused.stderr
    assert run_inside(driver.main).returncode == 0


def test_an_extension_that_is_ended_before_its_first_step_is_not_forgotten(done, tmp_path, monkeypatch):
    output = shutil.copytree(done, tmp_path / "run")
    real = RunState.restore

    def restore(self, tensors, values):
        real(self, tensors, values)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "restore", restore)
        assert run_inside(driver.main, "--output-dir", output, "--resume", "--extend", "--epochs", 3).returncode == 143
    assert run_inside(driver.main, "--output-dir", output, "--resume").returncode == 0
    assert json.loads((output / "results.json").read_text())["steps"] == 30


@pytest.mark.parametrize("moment", ["log", "save"])
def test_a_signal_just_after_a_measurement_loses_and_repeats_nothing(done, tiny_folder, pairs, tmp_path, monkeypatch, moment):
    real = getattr(RunFolder, moment)

    def signalled(self, *words, **figures):
        if moment == "save" or (figures.get("split") == "dev" and figures["step"]):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *words, **figures)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, moment, signalled)
        assert train(tiny_folder, pairs, tmp_path / "ended").returncode == 143
    assert run_inside(driver.main, "--output-dir", tmp_path / "ended", "--resume").returncode == 0
    assert_same(reached(tmp_path / "ended"), reached(done))


def test_a_run_of_several_seeds_is_resumed_in_the_seeds_own_folder(tiny_folder, pairs, tmp_path, monkeypatch):
    flags = ["--seeds", 2, "--dev-file", "", "--dev-fraction", 0.2]
    assert train(tiny_folder, pairs, tmp_path / "whole", *flags, "--seed", 43, "--seeds", 1, "--split-seed", 42).returncode == 0
    with monkeypatch.context() as patch:
        steps = json.loads((tmp_path / "whole" / "results.json").read_text())["steps"]
        signal_in_step(patch, steps + 3, signal.SIGTERM)  # of the second seed
        assert train(tiny_folder, pairs, tmp_path / "seeds", *flags).returncode == 143
    resumed = run_inside(driver.main, "--output-dir", tmp_path / "seeds" / "seed-43", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same(reached(tmp_path / "seeds" / "seed-43"), reached(tmp_path / "whole"))


def test_a_whole_checkpoint_never_goes_for_a_damaged_one(tiny_folder, pairs, tmp_path, monkeypatch):
    output = tmp_path / "run"
    assert train(tiny_folder, pairs, output, "--checkpoint-steps", 4, "--keep-checkpoints", 3).returncode == 0
    for name in ("step-000016", "step-000020"):
        (output / "checkpoints" / name / "state.json").write_text("{}")
    (output / "checkpoints" / "step-999999").mkdir()
    with monkeypatch.context() as patch:
        signal_in_step(patch, 2, signal.SIGTERM)
        assert run_inside(driver.main, "--output-dir", output, "--resume", "--keep-checkpoints", 2).returncode == 143
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["step-000012", "step-000014"]


def test_metrics_that_were_changed_are_not_gone_on_with(done, tmp_path):
    output = shutil.copytree(done, tmp_path / "run")
    metrics = (output / "metrics.jsonl").read_text()
    for content in ("{}\n" + metrics, metrics[:-20], None):
        if content is None:
            (output / "metrics.jsonl").unlink()
        else:
            (output / "metrics.jsonl").write_text(content)
        refused = run_inside(driver.main, "--output-dir", output, "--resume")
        assert refused.returncode == 2
        assert "metrics.jsonl is not as it was" in refused.stderr
    (output / "metrics.jsonl").write_text(metrics)
    (output / "settings.json").unlink()  # a checkpoint has them too
    assert run_inside(driver.main, "--output-dir", output, "--resume").returncode == 0


@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing", "manifest", "link", "linked folder"])
@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json", "model/model.safetensors"])
def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_it_used(done, tmp_path, harm, name):
    output = shutil.copytree(done, tmp_path / "run")
    expected = reached(output)
    newest = output / "checkpoints" / "step-000020"
    file = newest / name
    content = file.read_bytes()
    if harm in ("missing", "link"):
        file.unlink()
    if harm == "truncated":
        file.write_bytes(content[:-1])
    elif harm == "flipped":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif harm == "link":
        (tmp_path / "outside").write_bytes(content)
        file.symlink_to(tmp_path / "outside")
    elif harm == "linked folder":
        (file.parent / "extra").symlink_to(tmp_path, target_is_directory=True)
    elif harm == "manifest":
        told = json.loads((newest / "manifest.json").read_text())
        told["files"].pop("state.json")
        (newest / "manifest.json").write_text(json.dumps(told))
    shown = run_inside(driver.main, "--output-dir", output, "--resume")
    assert shown.returncode == 0, shown.stderr
    assert "step-000020 is damaged" in shown.stdout
    assert "resumes from step-000010" in shown.stdout
    assert_same(reached(output), expected)


def test_without_a_whole_checkpoint_there_is_nothing_to_resume(tiny_folder, pairs, tmp_path):
    for flags in ([], ["--keep-checkpoints", 0]):
        if flags:
            assert train(tiny_folder, pairs, tmp_path / "run", *flags).returncode == 0
            assert not (tmp_path / "run" / "checkpoints").exists()
        shown = run_inside(driver.main, "--output-dir", tmp_path / "run", "--resume")
        assert shown.returncode == 2
        assert "no checkpoint to resume from" in shown.stderr
    with pytest.raises(InputError, match="no checkpoint"):
        Checkpoints(tmp_path, 2).newest()


CRAFTED: list[tuple[str, object]] = [
    ("metrics_bytes", None),
    ("metrics_bytes", 1.5),
    ("metrics", 5),
    ("progress", {}),
    ("settings", []),
    ("random", 1),
]
CRAFTED_PROGRESS: list[tuple[str, object]] = [
    ("step", "x"),
    ("step", None),
    ("epochs", 5),
    ("_loss", "x"),
    ("best", []),
    ("best_step", 1.5),
]


def test_a_checkpoint_that_was_crafted_with_a_right_manifest_gives_no_traceback(tiny_folder, pairs, tmp_path):
    output = tmp_path / "run"
    assert train(tiny_folder, pairs, output, "--epochs", 1).returncode == 0
    folder = output / "checkpoints" / "step-000010"
    values = json.loads((folder / "state.json").read_text())
    for name, value in CRAFTED + CRAFTED_PROGRESS:
        inner = {"progress": values["progress"] | {name: value}} if (name, value) in CRAFTED_PROGRESS else {name: value}
        (folder / "state.json").write_text(json.dumps(values | inner))
        (folder / "manifest.json").unlink()
        _write_manifest(folder, 10)
        shown = run_inside(driver.main, "--output-dir", output, "--resume")
        assert shown.returncode == 2, (name, value)
        assert "step-000010" in shown.stderr or "metrics.jsonl" in shown.stderr or "checkpoint" in shown.stderr


def test_from_another_folder_what_is_not_found_is_said(tiny_folder, pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train("tiny", "pairs.csv", tmp_path / "run", "--epochs", 1).returncode == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = ["--output-dir", tmp_path / "run", "--resume"]
    refused = run_inside(driver.main, *there)
    assert refused.returncode == 2
    assert f"--model-dir: tiny is not there, seen from {tmp_path / 'elsewhere'}" in refused.stderr
    assert "--train-file: pairs.csv is not there" in refused.stderr
    moved = ["--model-dir", tiny_folder, "--train-file", pairs, "--dev-file", pairs]
    assert run_inside(driver.main, *there, *moved).returncode == 0


def test_an_output_folder_that_can_not_be_one_is_bad_usage(tiny_folder, pairs, tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    for name in (tmp_path / "one", tmp_path / ("x" * 300)):
        for flags in (
            ["--resume"],
            ["--resume", "--seeds", 2],
            ["--model-dir", tiny_folder, "--train-file", pairs, "--max-length", 32],
        ):
            refused = run_inside(driver.main, "--output-dir", name, *flags)
            assert refused.returncode == 2
            assert "--output-dir" in refused.stderr


@pytest.mark.parametrize(("code", "status"), [
    ("atexit.register(os.kill, os.getpid(), signal.SIGTERM); run_to_the_end(lambda: 130)", 130),
    ("atexit.register(os.kill, os.getpid(), signal.SIGINT); run_to_the_end(lambda: 0)", 0),
    ("run_to_the_end(lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(9) or 0)", 143),
])  # fmt: skip
def test_a_signal_in_the_first_or_the_last_moment_has_its_status_or_none(code, status):
    code = f"import atexit, os, signal, time; from connection.system.signals import run_to_the_end; {code}"
    assert subprocess.run([sys.executable, "-c", code], cwd=DRIVER.parent).returncode == status


def test_the_newest_checkpoints_stay_and_overwrite_clears_them(tiny_folder, pairs, tmp_path):
    output = tmp_path / "run"
    assert train(tiny_folder, pairs, output, "--checkpoint-steps", 3, "--keep-checkpoints", 3).returncode == 0
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["step-000015", "step-000018", "step-000020"]
    (output / ".model.0123abcd").mkdir()  # of a process that was killed
    flags = ["--overwrite", "--epochs", 1, "--dev-file", "", "--dev-fraction", 0, "--test-fraction", 0]
    assert train(tiny_folder, pairs, output, *flags).returncode == 0
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-000010"]
    assert not list(output.glob(".*"))
    (output / "report.html").unlink()
    (output / "report.html").mkdir()
    refused = train(tiny_folder, pairs, output, "--overwrite")
    assert refused.returncode == 2
    assert "holds report.html, but not of a run" in refused.stderr
