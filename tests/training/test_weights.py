"""Weights of pairs: each objective against repeated rows, where weights come from, and what they do to a run."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional

from connection.data.balance import weigh_pairs
from connection.data.labels import LabelScale, find_scale
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.system import processes
from connection.training.distributed import whole_batch
from connection.training.loss_choice import FITS
from connection.training.objectives import make_objective
from ConnectionBert import load_tokenizer
from ConnectionDataset import ConnectionDataset
from tests.conftest import PAIRS, write_pairs

HEADER = ("sentence1", "sentence2", "score", "weight")
# Ten pairs with shared sentences on both sides; 0 and 3 are a duplicate, 1 and 4 the same pair turned round.
SENTENCES = torch.tensor([[0, 1, 2, 0, 11, 2, 2, 6, 7, 0], [10, 11, 12, 10, 1, 16, 17, 18, 12, 19]])
WEIGHTS = torch.tensor([3, 1, 2, 1, 4, 1, 2, 1, 3, 2])
LABELS = {
    "graded": torch.tensor([1.0, 0.75, 1, 1, 0.75, 0.25, 0, 0.5, 1, 0.25]),
    "binary": torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 0, 1, 0]),
    "connected": torch.ones(10),
    "unconnected": torch.zeros(10),
}


def value_and_gradients(objective, vectors, target, rows, weight=None):
    """The value for these `rows` of the ten pairs, and the gradients of the sentences' vectors and the objective's own weights."""
    vectors = vectors.clone().requires_grad_()
    u, v = (vectors[side[rows]] for side in SENTENCES)
    value = objective(u, v, target[rows].double(), SENTENCES[:, rows], weight)
    return [value.detach(), *torch.autograd.grad(value, [vectors, *objective.parameters()], materialize_grads=True)]


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", [*FITS, "cosent+cosine-mse:0.5"])
def test_whole_weights_count_as_repeated_rows(name, kind):
    """Also where the value is 0 for want of a pair to compare, and with weights alike in all pairs."""
    torch.manual_seed(1)
    vectors = torch.randn(20, 6, dtype=torch.float64) + torch.randn(1, 6, dtype=torch.float64)
    dims = () if name == "softmax" else (6, 3)
    objective = make_objective(name, 5.0, dims, 6, [0.0, 0.25, 0.5, 0.75, 1.0]).double()
    once = torch.arange(10)
    for weight in (WEIGHTS, torch.full((10,), 2)):
        weighted = value_and_gradients(objective, vectors, LABELS[kind], once, weight.double())
        repeated = value_and_gradients(objective, vectors, LABELS[kind], once.repeat_interleave(weight))
        for ours, theirs in zip(weighted, repeated, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    unweighted = value_and_gradients(objective, vectors, LABELS[kind], once)
    ones = value_and_gradients(objective, vectors, LABELS[kind], once, torch.ones(10, dtype=torch.float64))
    for ours, theirs in zip(ones, unweighted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FITS)
def test_the_smallest_and_largest_weights_stay_finite(name):
    vectors = functional.normalize(torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    u, v = (vectors[side].clone().requires_grad_() for side in SENTENCES)
    weight = torch.tensor([1e-40, 1e6]).repeat(5)
    for target in LABELS.values():
        value = make_objective(name, 20.0, (), 6, [0.0, 0.25, 0.5, 0.75, 1.0])(u, v, target, SENTENCES, weight)
        assert torch.isfinite(torch.stack([value, *(side.sum() for side in torch.autograd.grad(value, (u, v)))])).all()


# --- batches -----------------------------------------------------------------------------------------------------------


def dataset(folder, path, rows, header=HEADER, columns=""):
    file = PairFile.open(write_pairs(path, rows, header), columns, weighted=True)
    store = load_pairs(file, load_tokenizer(folder), 32, -np.inf, np.inf, path.parent / "cache", False)
    scale = LabelScale(0, 5, "graded", "")
    kept, weight, _ = weigh_pairs(store, None, scale, False)
    return ConnectionDataset(store, scale, 0, kept, weight)


def test_batches_carry_the_weights_of_their_pairs(tiny_folder, tmp_path):
    """Through a pipe to another process too; a pair of weight 0 is in no batch."""
    data = dataset(tiny_folder, tmp_path / "p.csv", [(*pair, place / 2) for place, pair in enumerate(PAIRS)])
    assert [data.where(torch.tensor([row])).rsplit(" ", 1)[1] for row in range(len(data))] == list("3456789")
    parts = data.collate_parts([data[row] for row in (4, 0, 2)], 2)
    for part, expected in zip(parts, ([2.5, 0.5], [1.5]), strict=True):
        for batch in (part, part.to(torch.device("cpu")), pickle.loads(pickle.dumps(part))):
            assert batch.weight.tolist() == expected
            assert torch.equal(batch.sentences, part.sentences)
    plain = dataset(tiny_folder, tmp_path / "q.csv", PAIRS, HEADER[:3])
    batch = plain.collate([plain[0]])
    assert batch.weight is batch.to(torch.device("cpu")).weight is pickle.loads(pickle.dumps(batch)).weight is None


@pytest.mark.parametrize("weighted", [True, False])
def test_processes_gather_the_weights(monkeypatch, weighted):
    """Of two processes; the second has no pair of the batch, and does not know that there are weights."""
    u, v, target = torch.randn(2, 4), torch.randn(2, 4), torch.tensor([0.5, 1])
    sentences, weight = torch.tensor([[1, 2], [3, 2**40]]), torch.tensor([0.25, 3]) if weighted else None
    sent = {}
    monkeypatch.setattr(processes, "count", lambda: 2)
    for rank, rows in enumerate((slice(0, 2), slice(0, 0))):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(processes, "gather", lambda rows, rank=rank: [sent.setdefault(rank, rows), *sent.values()][1:])
        own = None if weight is None or rank else weight[rows]
        numbers = torch.zeros(2, 0, dtype=torch.int64) if rank else sentences
        found = whole_batch(u[rows], v[rows], target[rows], numbers, own)
        for whole, expected in zip(found[:4], (u, v, target, sentences), strict=True):
            assert torch.equal(whole, expected)
        assert found[4].tolist() == [0.25, 3] if weighted else found[4] is None


# --- where weights come from -------------------------------------------------------------------------------------------


def weighed(folder, path, labels, weights, balance):
    """The weights of pairs with these labels, and the remarks."""
    rows = [(f"a dog {place}", f"the cat {place}", label, weight) for place, (label, weight) in enumerate(zip(labels, weights))]
    store = load_pairs(
        PairFile.open(write_pairs(path, rows, HEADER), weighted=True), load_tokenizer(folder), 32, -np.inf, np.inf, path, False
    )
    return weigh_pairs(store, None, find_scale(None, None, store.labels), balance)


def test_balance_gives_each_label_or_band_the_same_total_weight(tiny_folder, tmp_path):
    _, weight, said = weighed(tiny_folder, tmp_path / "p.csv", [1] + [0] * 9, [1] * 10, True)
    assert weight.tolist() == pytest.approx([5.0] + [5 / 9] * 9)
    assert "0.556 to 5, mean 1, from the file's column, and --balance, so that each of 2 labels counts the same" in said[0]
    labels = [0, 0.1, 0.2, 0.45, 1.1, 1.2, 1.3, 2.6, 2.7, 3.3, 4.9, 5]  # bands of 0.5: 4 pairs, 3, 2, 1, 2
    _, weight, said = weighed(tiny_folder, tmp_path / "q.csv", labels, [1] * 12, True)
    assert weight.tolist() == pytest.approx(np.repeat(12 / 5 / np.array([4, 3, 2, 1, 2]), [4, 3, 2, 1, 2]))
    assert "each of 5 bands" in said[0]


def test_balance_takes_the_column_as_repeated_rows(tiny_folder, tmp_path):
    labels, weights = [1, 0, 0, 0, 0], [2, 1, 0, 3, 1]
    rows, weight, said = weighed(tiny_folder, tmp_path / "p.csv", labels, weights, True)
    _, repeated, _ = weighed(tiny_folder, tmp_path / "q.csv", np.repeat(labels, weights), [1] * 7, True)
    assert rows.tolist() == [0, 1, 3, 4]
    assert weight.tolist() == pytest.approx([2 * repeated[0], repeated[2], 3 * repeated[2], repeated[2]])
    assert said[1] == "1 pairs have the weight 0 and are not trained on"
