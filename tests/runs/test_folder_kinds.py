"""Training, and resuming, where the model folder or the labels are not of the usual kind."""

from __future__ import annotations

import json
import signal

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

import bertFineTuningWithConnectionData as driver
from ConnectionBert import ConnectionBert
from tests.conftest import MANY, run_inside, signal_in_step, train_and_test, training_words, write_pairs
from tests.runs.test_resume import assert_same, reached

SETTINGS = "config_sentence_transformers.json"
# name: the pooling, and changes of files
FOLDERS: dict[str, tuple] = {
    "a combination": (["mean", "max"], {}),
    "a default prompt": ("mean", {SETTINGS: {"prompts": {"mine": "not a book. "}, "default_prompt_name": "mine"}}),
    "a prompt that is left out of the mean": (
        "mean",
        {
            SETTINGS: {"prompts": {"mine": "not a book. "}, "default_prompt_name": "mine"},
            "1_Pooling/config.json": {"include_prompt": False},
        },
    ),
    "cut vectors": ("mean", {SETTINGS: {"truncate_dim": 8}}),
}


@pytest.fixture(params=FOLDERS)
def folder(request, tiny_folder, tmp_path):
    pooling, changes = FOLDERS[request.param]
    peer = tmp_path / "peer"
    SentenceTransformer(modules=[Transformer(str(tiny_folder)), Pooling(32, pooling_mode=pooling)], device="cpu").save(
        str(peer)
    )
    for name, entries in changes.items():
        (peer / name).write_text(json.dumps(json.loads((peer / name).read_text()) | entries))
    return peer


def test_a_folder_of_its_own_kind_is_trained_resumed_and_keeps_its_kind(folder, tmp_path, monkeypatch):
    pairs = write_pairs(tmp_path / "pairs.csv", MANY[:40])
    words = [*training_words(folder, pairs, tmp_path / "whole"), "--dropout", 0.1]
    assert run_inside(driver.main, *words).returncode == 0
    words[words.index(tmp_path / "whole")] = tmp_path / "ended"
    with monkeypatch.context() as patch:
        signal_in_step(patch, 6, signal.SIGTERM)
        assert run_inside(driver.main, *words).returncode == 143
    resumed = run_inside(driver.main, "--output-dir", tmp_path / "ended", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same(reached(tmp_path / "ended"), reached(tmp_path / "whole"))
    texts = [row[0] for row in MANY[:9]]
    before, after = (
        SentenceTransformer(str(path), device="cpu").encode(texts) for path in (folder, tmp_path / "whole" / "model")
    )
    ours = ConnectionBert.load(tmp_path / "whole").encode(texts, progress=False, precision="fp32")
    assert before.shape == after.shape
    assert np.allclose(ours, after, atol=1e-5)
    assert not np.allclose(before, after, atol=1e-3)  # it was trained


def test_on_a_reversed_scale_the_same_model_is_trained_and_its_figures_are_the_same(tiny_folder, tmp_path):
    """Distances: 5 - score, 5 is no connection. Targets, and all that follows from them, are those of the scores."""
    _, plain, _ = train_and_test(tiny_folder, tmp_path / "plain", MANY, "--label-min", 0, "--label-max", 5)
    distances = [(one, two, 5 - score) for one, two, score in MANY]
    shown, results, table = train_and_test(tiny_folder, tmp_path / "reversed", distances, "--label-min", 5, "--label-max", 0)
    for split in ("dev", "test"):
        for when in ("base", "final"):
            assert results[when][split]["spearman"] == pytest.approx(plain[when][split]["spearman"], abs=1e-6)
    assert results["gain"]["test"]["spearman"] == pytest.approx(plain["gain"]["test"]["spearman"], abs=1e-6)
    assert results["final"]["test"]["graded"] == pytest.approx(plain["final"]["test"]["graded"], abs=1e-4)
    model = ConnectionBert.load(tmp_path / "reversed")
    assert model.labels == (5.0, 0.0)
    test = table[table["split"] == "test"]
    predicted = model.calibration.predicted_label(test["final"].to_numpy(), 5.0, 0.0)
    order = np.argsort(test["final"].to_numpy())
    assert (np.diff(predicted[order]) <= 0).all()  # nearer is less
    errors = pd.read_csv(tmp_path / "reversed" / "errors.csv").query("split == 'test'")
    assert (errors["residual"] - (errors["label"] - errors["predicted"])).abs().max() < 1e-4
    assert "5 (no connection) to 0 (full connection)" in shown
