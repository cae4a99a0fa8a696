"""The losses of one tiny run, step by step, as they were agreed on: a change of the arithmetic shows as numbers."""

from __future__ import annotations

import json

import pytest

import bertFineTuningWithConnectionData as driver
from tests.conftest import run_inside, training_words

# Of three epochs, packed, padded and in micro-batches alike: cosine-mse, fp32, without dropout.
LOSSES = [0.4318553, 0.3366479, 0.5048764, 0.2174014, 0.1910404, 0.4616161]


@pytest.mark.parametrize(
    "how", [["--packing"], ["--no-packing"], ["--part-size", 3]], ids=["packed", "padded", "micro-batches"]
)
def test_losses_are_as_they_were(tiny_folder, pair_file, tmp_path, how):
    flags = ["--loss", "cosine-mse", "--precision", "fp32", "--dropout", 0, "--log-steps", 1, "--epochs", 3, *how]
    shown = run_inside(driver.main, *training_words(tiny_folder, pair_file, tmp_path / "run", *flags))
    assert shown.returncode == 0, shown.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if "learning_rate" in line] == pytest.approx(LOSSES, abs=1e-5)
