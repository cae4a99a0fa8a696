"""The pieces of `benchmarks.tsdae`, beside what transformers makes of the same tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertLMHeadModel

from benchmarks import tsdae
from ConnectionBert import ConnectionBert
from tests.conftest import PAIRS, VOCABULARY, run_inside, write_pairs

ROWS = [[2, 5, 6, 7, 8, 9, 3], [2, 10, 11, 3]]  # of the tiny vocabulary, [CLS] and [SEP] at their ends
ALL_WORDS = torch.arange(len(VOCABULARY))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_denoising_loss_is_that_of_transformers(tiny_folder, monkeypatch):
    monkeypatch.setattr(tsdae, "DELETED", 0)
    model = ConnectionBert.load(tiny_folder)
    decoder, loss = tsdae.denoised(model, ALL_WORDS, generator())
    assert isinstance(decoder, BertLMHeadModel)
    decoder.eval()
    ids, mask = tsdae.padded(ROWS)
    states = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    vectors = torch.stack([row[: len(tokens)].mean(0) for row, tokens in zip(states, ROWS, strict=True)])
    labels = ids.where(mask.bool(), torch.tensor(-100))
    found, tokens = loss([np.array(row) for row in ROWS])
    assert tokens == mask[:, 1:].sum()
    torch.testing.assert_close(found, decoder(ids, mask, encoder_hidden_states=vectors[:, None], labels=labels).loss)


def test_deletion_keeps_the_ends_and_one_token():
    random = generator()
    row = [2, *range(5, 5 + 10_000), 3]
    left = tsdae.delete(row, random)
    assert (left[0], left[-1]) == (2, 3)
    assert left == [*sorted(left[:-1]), 3]  # in their order
    assert len(left) / len(row) == pytest.approx(0.4, abs=0.02)
    assert all(len(tsdae.delete([2, 7, 3], random)) == 3 for _ in range(20))
    assert tsdae.delete([2, 3], random) == [2, 3]  # a text without a token


def test_adapted_folder(tiny_folder, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.csv")
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        words = ["--model-dir", tiny_folder, "--pairs", pairs, "--epochs", 3, "--seed", seed]
        shown = run_inside(tsdae.main, tmp_path / name, *words, "--learning-rate", "1e-3")
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith("16 texts")
    texts = [pair[0] for pair in PAIRS]
    base, one, again, other = (ConnectionBert.load(folder).encode(texts) for folder in
                               (tiny_folder, *(tmp_path / name for name in ("one", "again", "other"))))  # fmt: skip
    assert (one == again).all()
    assert abs(one - base).max() > 1e-3
    assert abs(one - other).max() > 1e-6


def test_loss_falls(tiny_folder):
    texts = [pair[0] for pair in PAIRS]
    losses = [tsdae.adapt(ConnectionBert.load(tiny_folder), texts, epochs, 1e-3, 0) for epochs in (1, 30)]
    assert losses[1] < losses[0] - 0.5
