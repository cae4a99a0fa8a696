"""Masked language modelling, beside transformers' own head and loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from connection.data.tokenization import tokenize
from connection.system.errors import InputError
from connection.training import masked_words
from connection.training.masked_words import WordHead, adapt, hide, masked_loss
from ConnectionBert import ConnectionBert
from tests.conftest import PAIRS

TEXTS = sorted({text for pair in PAIRS for text in pair[:2]})


def rows_of(model: ConnectionBert) -> list[np.ndarray]:
    store = tokenize(TEXTS, model.tokenizer, model.max_length)
    return [store[row] for row in range(len(store))]


def head_of(model: ConnectionBert) -> WordHead:
    config = model.encoder.config
    torch.manual_seed(0)
    return WordHead(model.encoder.get_input_embeddings().weight, config.hidden_size, config.layer_norm_eps)


def test_shares_of_what_is_hidden():
    row = np.array([2, *[7] * 100_000, 3])
    (shown,), (picked,) = hide([row], [0, 1, 2, 3, 4], 4, 50, np.random.default_rng(0))
    assert not picked[[0, -1]].any()  # [CLS] and [SEP]
    assert picked.mean() == pytest.approx(0.15, abs=0.005)
    assert (shown == row)[~picked].all()
    assert (shown == 4)[picked].mean() == pytest.approx(0.8 + 0.1 / 50, abs=0.01)
    assert (shown == 7)[picked].mean() == pytest.approx(0.1 + 0.1 / 50, abs=0.01)
    assert set(shown[picked].tolist()) == set(range(50))  # any of the words


def test_loss_is_that_of_transformers(tiny_folder, monkeypatch):
    monkeypatch.setattr(masked_words, "HIDDEN", 0.5)
    model = ConnectionBert.load(tiny_folder)
    rows, head = rows_of(model), head_of(model)
    found, count = masked_loss(model, head, rows, np.random.default_rng(1))

    whole = BertForMaskedLM(model.encoder.config).eval()
    whole.bert.load_state_dict(model.encoder.state_dict(), strict=False)
    own = {"transform.dense": head.dense, "transform.LayerNorm": head.norm}
    for name, module in own.items():
        whole.cls.predictions.get_submodule(name).load_state_dict(module.state_dict())
    tokenizer = model.tokenizer
    shown, picked = hide(rows, tokenizer.all_special_ids, tokenizer.mask_token_id, len(head.words), np.random.default_rng(1))
    longest = max(map(len, rows))
    ids, mask, labels = (torch.zeros(len(rows), longest, dtype=torch.int64) for _ in range(3))
    labels -= 100
    for number, (row, hidden, wanted) in enumerate(zip(rows, shown, picked, strict=True)):
        ids[number, : len(row)], mask[number, : len(row)] = torch.from_numpy(hidden), 1
        labels[number, : len(row)] = torch.from_numpy(np.where(wanted, row, -100))
    assert sum(wanted.sum() for wanted in picked) == count > 10
    torch.testing.assert_close(found, whole(input_ids=ids, attention_mask=mask, labels=labels).loss)


def test_nothing_hidden_is_no_loss(tiny_folder, monkeypatch):
    monkeypatch.setattr(masked_words, "HIDDEN", 0.0)
    model = ConnectionBert.load(tiny_folder)
    loss, hidden = masked_loss(model, head_of(model), rows_of(model), np.random.default_rng(0))
    assert (loss.item(), hidden) == (0, 0)
    before = model.encode(TEXTS)
    assert [math.isnan(loss) for loss in adapt(model, rows_of(model), 2, 4, 1e-3, 0)] == [True, True]
    assert (model.encode(TEXTS) == before).all()  # no step was taken


def test_the_words_are_learned_and_the_seed_decides(tiny_folder):
    def adapted(seed: int) -> tuple[list[float], np.ndarray]:
        model = ConnectionBert.load(tiny_folder)
        losses = list(adapt(model, rows_of(model), 30, 4, 1e-3, seed))
        assert not model.training
        return losses, model.encode(TEXTS)

    base = ConnectionBert.load(tiny_folder).encode(TEXTS)
    losses, vectors = adapted(1)
    assert losses[-1] < 0.8 * losses[0]
    assert np.abs(vectors - base).max() > 0.01
    assert (adapted(1)[1] == vectors).all()
    assert (adapted(2)[1] != vectors).any()


def test_weight_decay_is_of_matrices_alone(tiny_folder, monkeypatch):
    """As in fine-tuning: after a first step, whose gradient is the same, biases and LayerNorm are equal without any."""
    states = []
    for decay in (0.0, 0.5):
        monkeypatch.setattr(masked_words, "WEIGHT_DECAY", decay)
        model = ConnectionBert.load(tiny_folder)
        assert len(list(adapt(model, rows_of(model), 1, 100, 1e-3, 0))) == 1
        states.append(dict(model.encoder.named_parameters()))
    same = {name for name, weight in states[0].items() if torch.equal(weight, states[1][name])}
    assert same - {"pooler.dense.weight"} == {name for name, weight in states[0].items() if weight.ndim < 2}


def test_loss_of_an_epoch_is_that_of_its_tokens(tiny_folder, monkeypatch):
    """Not the mean of batches: with one text in each, some hide nothing, and others more than one token."""
    model, seen = ConnectionBert.load(tiny_folder), []

    def counted(*words):
        loss, hidden = masked_loss(*words)
        seen.append((loss.item(), hidden))
        return loss, hidden

    monkeypatch.setattr(masked_words, "masked_loss", counted)
    (found,) = adapt(model, rows_of(model), 1, 1, 1e-5, 0)
    assert {0, 1} < {hidden for _, hidden in seen}
    assert found == pytest.approx(sum(loss * hidden for loss, hidden in seen) / sum(hidden for _, hidden in seen))


def test_texts_of_unknown_words_are_refused(tiny_folder):
    model = ConnectionBert.load(tiny_folder)
    store = tokenize(["漢字", "仮名"], model.tokenizer, model.max_length)
    with pytest.raises(InputError, match="None of the texts has a word"):
        next(adapt(model, [store[0], store[1]], 1, 1, 1e-3, 0))
