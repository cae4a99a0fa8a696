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
from connection.system.sealed_files import read_sealed
from ConnectionBert import ConnectionBert
from tests.conftest import make_pipe, write_pairs


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


def test_damaged_or_foreign_cosines_are_computed_again(tiny_folder, tmp_path, capsys):
    model = ConnectionBert.load(tiny_folder)
    pairs = PairFile.open(write_pairs(tmp_path / "p.csv"))
    store = load_pairs(pairs, model.tokenizer, 32, -np.inf, np.inf, tmp_path / "store", False)
    cache, expected = tmp_path / "cache", pair_similarities(model, store)["cosine"]

    def remembered():
        return remembered_cosines(cache, model, {"dev": SimpleNamespace(store=store, places=slice(None))})["dev"]

    assert np.array_equal(remembered(), expected)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    for place in range(8 * len(content)):  # each single bit
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        assert read_sealed(file, len(content)) is None
    assert capsys.readouterr().err == ""
    for wrong in (b"", content[:-1], content + b"x", np.lib.format.magic(1, 0) + b"[" * 999):
        file.write_bytes(wrong)
        assert np.array_equal(remembered(), expected)
        assert capsys.readouterr().err.count("computed again") == 1
        assert file.read_bytes() == content
    if os.name != "nt":
        file.unlink()
        make_pipe(file)
        assert np.array_equal(remembered(), expected)
        file.unlink()
        (tmp_path / "mine").write_bytes(content)
        file.symlink_to(tmp_path / "mine")
        assert np.array_equal(remembered(), expected)
        assert (tmp_path / "mine").read_bytes() == content
        assert not file.is_symlink()
        file.chmod(0o666)
        assert np.array_equal(remembered(), expected)
        assert capsys.readouterr().err.count("computed again") == 3
        assert file.stat().st_mode & 0o777 == 0o600


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
