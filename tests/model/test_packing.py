"""Rows of packed sentences: nothing is lost, and no sentence sees another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from connection.model.packing import pack
from ConnectionBert import ConnectionBert
from tests.conftest import VOCABULARY

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60)


def sentences(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(5, len(VOCABULARY), length) for length in lengths]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.booleans())
def test_every_token_stands_in_one_slot(lengths, packed):
    given_sentences = sentences(lengths)
    batch = pack(given_sentences, 0, packed)
    for number, sentence in enumerate(given_sentences):
        slots = batch.slots[number][batch.attention_mask[number].bool()]
        rows, places = slots // batch.input_ids.shape[1], slots % batch.input_ids.shape[1]
        assert len(set(rows.tolist())) == 1  # in one row, end to end
        assert (places.diff() == 1).all()
        assert batch.input_ids.flatten()[slots].tolist() == sentence.tolist()
        assert batch.position_ids.flatten()[slots].tolist() == list(range(len(sentence)))
        assert (batch.sentence.flatten()[slots] == number).all()
    assert batch.attention_mask.sum() == sum(lengths)
    assert (batch.sentence < len(lengths)).sum() == sum(lengths)  # no slot is taken twice
    assert torch.equal(batch.unique_ids[batch.inverse], batch.input_ids)
    assert packed or batch.input_ids.shape == (len(lengths), max(lengths))


def test_packing_leaves_few_slots_empty():
    random = np.random.default_rng(0)
    lengths = random.integers(6, 40, 128)
    batch = pack(sentences(lengths), 0)
    assert batch.input_ids.numel() < 1.05 * lengths.sum()


def vectors(model, given_sentences, packed=True):
    with torch.no_grad():
        return model.sentence_vectors(pack(given_sentences, 0, packed))


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_vectors_do_not_depend_on_neighbours_or_order(tiny_folder, pooling):
    model = ConnectionBert.load(tiny_folder, pooling)
    given_sentences = sentences([3, 9, 30, 5, 64, 12, 12, 7, 50, 4])
    padded = vectors(model, given_sentences, packed=False)
    assert torch.allclose(vectors(model, given_sentences), padded, atol=1e-5)
    alone = torch.cat([vectors(model, [sentence]) for sentence in given_sentences])
    assert torch.allclose(alone, padded, atol=1e-5)
    order = np.random.default_rng(1).permutation(10)
    assert torch.allclose(vectors(model, [given_sentences[i] for i in order]), padded[order], atol=1e-5)


def test_a_changed_sentence_changes_no_other(tiny_folder):
    model = ConnectionBert.load(tiny_folder)
    given_sentences = sentences([9, 20, 14, 8])
    before = vectors(model, given_sentences)
    changed = [given_sentences[0], sentences([20], seed=9)[0], *given_sentences[2:]]
    after = vectors(model, changed)
    assert pack(given_sentences, 0).input_ids.shape[0] == 1  # all four share a row
    assert torch.equal(after[[0, 2, 3]], before[[0, 2, 3]])
    assert not torch.allclose(after[1], before[1], atol=1e-3)


def test_the_gradient_to_other_sentences_is_exactly_0(tiny_folder):
    model = ConnectionBert.load(tiny_folder)
    batch = pack(sentences([9, 20, 14, 8]), 0)
    embedded = model.encoder.embeddings.word_embeddings(batch.input_ids).detach().requires_grad_()
    states = model.encoder(inputs_embeds=embedded, attention_mask=batch.attention_mask_4d, position_ids=batch.position_ids)
    batch.by_sentence(states.last_hidden_state)[1].square().sum().backward()
    gradient = embedded.grad.flatten(0, 1).abs().sum(-1)
    others = batch.sentence.flatten() != 1
    assert (gradient[others] == 0).all()
    assert (gradient[~others] > 0).all()
