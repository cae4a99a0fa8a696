"""The base model's cosines, remembered from run to run."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import numpy as np
import torch

from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.evaluation.similarity import pair_similarities, remembered_cosines
from ConnectionBert import ConnectionBert
from tests.conftest import write_pairs


def test_base_cosines_are_remembered_and_never_of_another_model(tiny_folder, tmp_path, monkeypatch):
    model = ConnectionBert.load(tiny_folder)
    pairs = PairFile.open(write_pairs(tmp_path / "p.csv"))
    store = load_pairs(pairs, model.tokenizer, 32, -np.inf, np.inf, tmp_path / "store", False)
    cache, expected = tmp_path / "cache", pair_similarities(model, store)["cosine"]

    def remembered(places=slice(None)):
        return remembered_cosines(cache, model, {"dev": SimpleNamespace(store=store, places=places)})["dev"]

    assert np.array_equal(remembered(), expected)
    with monkeypatch.context() as patch:
        patch.setattr("connection.evaluation.similarity.pair_similarities", None)  # would fail if it were called
        assert np.array_equal(remembered(), expected)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    assert np.array_equal(remembered(), expected)
    assert np.array_equal(remembered(slice(2)), expected[:2])
    with torch.no_grad():
        model.encoder.embeddings.word_embeddings.weight[7] *= 1.5
    assert np.array_equal(remembered(), pair_similarities(model, store)["cosine"])
    assert not np.array_equal(pair_similarities(model, store)["cosine"], expected)


def test_a_full_disk_leaves_nothing_of_the_remembered_cosines(tiny_folder, tmp_path, monkeypatch):
    model = ConnectionBert.load(tiny_folder)
    pairs = PairFile.open(write_pairs(tmp_path / "p.csv"))
    store = load_pairs(pairs, model.tokenizer, 32, -np.inf, np.inf, tmp_path / "store", False)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = remembered_cosines(tmp_path / "cache", model, {"dev": SimpleNamespace(store=store, places=slice(None))})
    assert np.array_equal(found["dev"], pair_similarities(model, store)["cosine"])
    assert list((tmp_path / "cache").iterdir()) == []
