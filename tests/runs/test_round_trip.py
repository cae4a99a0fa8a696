"""To sentence-transformers and back: a model that either side trained is loaded, evaluated and trained on by the other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

import bertFineTuningWithConnectionData as driver
from ConnectionBert import ConnectionBert
from tests.conftest import MANY, run_inside, training_words, write_pairs
from tools import evaluate

ONE, TWO, LABEL = (list(column) for column in zip(*MANY, strict=True))


def train_there(model: SentenceTransformer, steps: int) -> list[float]:
    """A few steps with the other library's objective, without dropout. Returns the losses."""
    objective, optimizer, losses = CosineSimilarityLoss(model.eval()), torch.optim.AdamW(model.parameters(), lr=1e-4), []
    for _ in range(steps):
        loss = objective([model.preprocess(ONE), model.preprocess(TWO)], torch.tensor(LABEL) / 5)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def spearman_there(model: SentenceTransformer) -> float:
    judge = EmbeddingSimilarityEvaluator(ONE, TWO, LABEL, similarity_fn_names=["cosine"], name="pairs", write_csv=False)
    return judge(model)["pairs_spearman_cosine"]


def spearman_here(folder, pairs, tmp_path) -> float:
    shown = run_inside(evaluate.main, folder, pairs, "--json", tmp_path / "figures.json")
    assert shown.returncode == 0, shown.stderr
    return json.loads((tmp_path / "figures.json").read_text())["files"][0]["model"]["cosine"]["spearman"]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_there_and_here_and_there_again(tiny_folder, tmp_path, pooling):
    pairs = write_pairs(tmp_path / "pairs.csv", MANY)
    transformer = Transformer(str(tiny_folder), max_seq_length=32)
    theirs = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode=pooling)], device="cpu")
    losses = train_there(theirs, 5)
    assert losses[-1] < losses[0]
    theirs.save(str(tmp_path / "theirs"))

    model = ConnectionBert.load(tmp_path / "theirs")  # loaded here
    assert model.pooling == pooling
    np.testing.assert_allclose(model.encode(ONE, precision="fp32"), theirs.encode(ONE), rtol=0, atol=1e-5)
    there = spearman_there(theirs)
    assert spearman_here(tmp_path / "theirs", pairs, tmp_path) == pytest.approx(there, abs=1e-3)

    words = training_words(tmp_path / "theirs", pairs, tmp_path / "run", "--loss", "cosine-mse", "--test-file", pairs)
    assert run_inside(driver.main, *words).returncode == 0  # trained on here
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["base"]["test"]["spearman"] == pytest.approx(there, abs=1e-3)
    assert results["final"]["test"]["loss"] < results["base"]["test"]["loss"]

    again = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")  # and there
    assert again.max_seq_length == 32
    assert spearman_there(again) == pytest.approx(results["final"]["test"]["spearman"], abs=1e-3)
    before = again.encode(ONE)
    losses = train_there(again, 5)
    assert losses[0] == pytest.approx(results["final"]["test"]["loss"], rel=1e-4)  # it begins where the training here ended
    assert losses[-1] < losses[0]
    again.save(str(tmp_path / "again"))
    after = ConnectionBert.load(tmp_path / "again").encode(ONE, precision="fp32")
    np.testing.assert_allclose(after, again.encode(ONE), rtol=0, atol=1e-5)
    assert not np.allclose(after, before, atol=1e-3)
