"""--tensorboard: TensorBoard's own reader finds every figure of metrics.jsonl in the event files, once, also after a resume."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import bertFineTuningWithConnectionData as driver
from connection.runs import event_files
from connection.runs.event_files import EventFiles, scalars
from connection.system.errors import InputError
from tests.conftest import MANY, binary, run_inside, signal_in_step, training_words, write_pairs


def in_event_files(output) -> dict[str, list[tuple[int, float]]]:
    reader = EventAccumulator(str(output / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    tags = reader.Tags()["tensors"]
    return {tag: [(event.step, event.tensor_proto.float_val[0]) for event in reader.Tensors(tag)] for tag in tags}


def in_metrics(output) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {}
    for line in (output / "metrics.jsonl").read_text().splitlines():
        figures = json.loads(line)
        for name, value in figures.items():
            if name not in ("step", "split") and value is not None:
                found.setdefault(f"{figures.get('split', 'train')}/{name}", []).append((figures["step"], pytest.approx(value)))
    return found


def test_each_figure_is_there_once_also_after_a_run_was_stopped_and_resumed(tiny_folder, tmp_path, monkeypatch):
    pairs, output = write_pairs(tmp_path / "pairs.csv", binary(MANY)), tmp_path / "run"
    words = training_words(tiny_folder, pairs, output, "--test-file", pairs, "--log-steps", 2, "--tensorboard")
    with monkeypatch.context() as patch:
        signal_in_step(patch, 30, 2)
        assert run_inside(driver.main, *words).returncode == 130
    assert in_event_files(output) == in_metrics(output)
    shown = run_inside(driver.main, "--output-dir", output, "--resume")  # the run's own setting
    assert shown.returncode == 0, shown.stderr
    found = in_event_files(output)
    assert found == in_metrics(output)
    assert [step for step, _ in found["train/loss"]] == list(range(2, 51, 2))
    assert [step for step, _ in found["dev/average_precision"]] == [0, 25, 50]
    assert "test/spearman" in found
    assert run_inside(driver.main, *words[:-1], "--overwrite").returncode == 0
    assert not (output / "tensorboard").exists()


def test_figures_within_figures_have_a_path_and_undefined_ones_are_left_out():
    line = {"step": 3, "split": "dev", "binary": {"f1": 0.5, "mcc": None}, "pairs": 7, "curve": [1.0], "ok": True}
    assert dict(scalars(line)) == {"binary/f1": 0.5, "pairs": 7.0}
    assert all(math.isfinite(value) for _, value in scalars(line))


def test_a_log_that_is_no_runs_is_refused_with_its_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"loss": 1}\n')
    with pytest.raises(InputError, match="line 2 is not of a run"):
        EventFiles(tmp_path / "metrics.jsonl")


def test_without_the_package_its_command_is_named_before_anything_is_read(tiny_folder, pair_file, tmp_path, monkeypatch):
    monkeypatch.setattr(event_files.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(driver, "require_libraries", lambda: None)
    shown = run_inside(driver.main, *training_words(tiny_folder, pair_file, tmp_path / "run", "--tensorboard"))
    assert shown.returncode == 2
    assert "pip install -r requirements-tensorboard.txt" in shown.stderr
    assert "loading" not in shown.stdout
    assert not (tmp_path / "run").exists()
