"""Weights of pairs: each objective against repeated rows, where weights come from, and what they do to a run."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

import bertFineTuningWithConnectionData as driver
from connection.data.balance import weigh_pairs
from connection.data.labels import LabelScale, find_scale
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.system import processes
from connection.system.errors import InputError
from connection.training.distributed import whole_batch
from connection.training.loss_choice import FITS
from connection.training.objectives import make_objective
from ConnectionBert import load_tokenizer
from ConnectionDataset import ConnectionDataset
from tests.conftest import MANY, PAIRS, binary, run_inside, training_words, write_pairs

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
    """The value for these `rows` of the ten pairs; the gradients of the sentences' vectors and of the objective's weights."""
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
    sent: dict[int, torch.Tensor] = {}
    monkeypatch.setattr(processes, "count", lambda: 2)
    for rank, rows in enumerate((slice(0, 2), slice(0, 0))):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(processes, "gather", lambda rows, rank=rank: [sent.setdefault(rank, rows), *sent.values()][1:])
        own = None if weight is None or rank else weight[rows]
        numbers = torch.zeros(2, 0, dtype=torch.int64) if rank else sentences
        found = whole_batch(u[rows], v[rows], target[rows], numbers, own)
        for whole, expected in zip(found[:4], (u, v, target, sentences), strict=True):
            assert torch.equal(whole, expected)
        assert (found[4] if found[4] is None else found[4].tolist()) == ([0.25, 3] if weighted else None)


# --- where weights come from -------------------------------------------------------------------------------------------


def weighed(folder, path, labels, weights, balance):
    """The weights of pairs with these labels, and the remarks."""
    texts = [(f"a dog {place}", f"the cat {place}") for place in range(len(labels))]
    rows = [(*pair, label, weight) for pair, label, weight in zip(texts, labels, weights, strict=True)]
    file = PairFile.open(write_pairs(path, rows, HEADER), weighted=True)
    store = load_pairs(file, load_tokenizer(folder), 32, -np.inf, np.inf, path, False)
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


@pytest.mark.parametrize(("each", "warned"), [(1 / 560, True), (0.09, True), (0.11, False), (1, False), (1000, False)])
def test_weights_that_are_small_on_average_are_warned_of(tiny_folder, tmp_path, each, warned):
    labels = [0, 1, 2, 3, 4, 5] * 2
    for balance in (False, True):
        _, weight, said = weighed(tiny_folder, tmp_path / f"{balance}.csv", labels, [each / 2, each * 3 / 2] * 6, balance)
        assert weight.mean() == pytest.approx(each)
        assert [f"multiply all of them by {1 / each:.3g}" in remark for remark in said[1:]] == [True] * warned


@pytest.mark.parametrize(
    ("header", "weights", "name", "said"),
    [
        ("sentence1,sentence2,score,weight", "0.5", "weight", "(by name, 'weight' says how often each pair counts)"),
        ("Sample Weight (n),sentence1,sentence2,score,city", "2", "Sample Weight (n)", "'Sample Weight (n)' says how often"),
        ("sentence1,sentence2,score,weight,city", "0.5", "", "'weight' is left alone: it says how often each pair counts if"),
        ("sentence1,sentence2,score,weight", "heavy", "", "'weight' is left alone"),
        ("sentence1,sentence2,score,weight", "", "", "'weight' is left alone"),
        ("sentence1,sentence2,score,kilos", "0.5", "", "(by name)"),
    ],
)
def test_the_column_is_found_by_name_where_that_is_safe(tmp_path, header, weights, name, said):
    names = header.split(",")
    values = [dict(zip(HEADER, (*pair, weights), strict=True)) for pair in PAIRS]
    rows = [[row["weight"] if "eight" in of or of == "kilos" else row.get(of, "Rome") for of in names] for row in values]
    path = write_pairs(tmp_path / "p.csv", rows, names)
    file = PairFile.open(path, weighted=True)
    assert file.columns.weight_name == name
    assert said in str(file)
    (chunk,) = file.chunks()
    assert (None if chunk.weight is None else set(chunk.weight)) == ({float(weights)} if name else None)
    (chunk,) = PairFile.open(path).chunks()  # of pairs that are not trained on
    assert (chunk.weight, len(chunk.bad)) == (None, 0)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_declared_column_is_read_in_each_form(tmp_path, form):
    frame = pd.DataFrame([(place / 4, *pair, "x") for place, pair in enumerate(PAIRS)], columns=["n", "a", "b", "y", "z"])
    path = tmp_path / f"p.{form}"
    if form == "parquet":
        frame.to_parquet(path)
    elif form == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    file = PairFile.open(path, "weight=n,sentence1=a,label=y,sentence2=b", weighted=True)
    (chunk,) = file.chunks()
    assert chunk.weight is not None
    assert chunk.weight.tolist() == frame.n.tolist()
    assert (chunk.sentence1, chunk.label.tolist()) == (frame.a.tolist(), frame.y.tolist())
    assert "label = 'y', weight = 'n' (as declared)" in str(file)
    assert len(next(PairFile.open(path, "sentence1=a,label=y,sentence2=b,weight=none").chunks())) == 8  # not trained on
    with pytest.raises(InputError, match="weight=none: no column of that name"):
        PairFile.open(path, "sentence1=a,label=y,sentence2=b,weight=none", weighted=True)
    with pytest.raises(InputError, match="the same column is declared twice"):
        PairFile.open(path, "sentence1=a,label=y,sentence2=b,weight=y", weighted=True)


def test_pairs_without_labels_and_triplets_have_weights(tmp_path):
    rows = [(*pair[:2], f"the red {place}", place % 3) for place, pair in enumerate(PAIRS)]
    path = write_pairs(tmp_path / "p.csv", rows, ("anchor", "positive", "negative", "count"))
    (chunk,) = PairFile.open(path, "anchor=anchor,positive=positive,negative=negative,weight=count", weighted=True).chunks()
    assert chunk.label.tolist() == [1, 0] * 8
    assert chunk.weight is not None
    assert chunk.weight.tolist() == np.repeat([row[3] for row in rows], 2).tolist()
    (chunk,) = PairFile.open(path, "sentence1=1,sentence2=2,weight=4", weighted=True).chunks()
    assert chunk.weight is not None
    assert (chunk.label.tolist(), chunk.weight.tolist()) == ([1] * 8, [row[3] for row in rows])


WAY = "is no weight: write a number from 0 to 1,000,000"
BAD = {"": "blank", "often": f"'often' {WAY}", "-1": "'-1' is below 0", "nan": f"'nan' {WAY}", "-inf": f"'-inf' {WAY}",
       "1e9": "'1e9' is too large for a weight: 1,000,000 at most", "1,500": "'1,500' is not clear", "1_0": f"'1_0' {WAY}",
       "50%": f"'50%' {WAY}"}  # fmt: skip


@pytest.mark.parametrize("labelled", [True, False])
def test_bad_weights_name_column_and_value(tmp_path, labelled):
    good = ["0", "1", "2.5", "2,5", "0,125", "1e6", "1e-50", " 3 "]
    rows = [(*PAIRS[place % 8][: 2 + labelled], weight) for place, weight in enumerate([*good, *BAD])]
    path = write_pairs(tmp_path / "p.csv", rows, HEADER if labelled else ("anchor", "positive", "weight"))
    declared = "sentence1=1,sentence2=2,label=3,weight=4" if labelled else "anchor=1,positive=2,weight=3"
    (chunk,) = PairFile.open(path, declared, weighted=True).chunks()
    assert chunk.weight is not None
    assert chunk.weight.tolist() == [0, 1, 2.5, 2.5, 0.125, 1e6, 1e-50, 3]
    for row, (cell, why) in zip(chunk.bad, BAD.items(), strict=True):
        assert (row.finding, row.cells[-1]) == ("bad-weight", cell)
        assert row.what.startswith(f"column weight: {why}")
    ragged = tmp_path / "q.csv"
    ragged.write_text("sentence1,sentence2,score,weight\na dog,a cat,1,2\na dog,a cow,3\na dog,a red, cow,3,4\n", "utf-8")
    (chunk,) = PairFile.open(ragged, weighted=True).chunks()
    assert [row.finding for row in chunk.bad] == ["ragged-row"] * 2
    assert chunk.weight is not None
    assert chunk.weight.tolist() == [2]


# --- from the command line ---------------------------------------------------------------------------------------------


def losses(output):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "split" not in line]


def test_a_run_with_whole_weights_is_one_of_repeated_rows(tiny_folder, tmp_path):
    """All pairs are in one batch: in parts of 3, or of one part. The dev file has no weights."""
    dev = write_pairs(tmp_path / "dev.csv", binary(MANY))
    rows = [(*pair, place % 4) for place, pair in enumerate(binary(PAIRS))]
    files = {"weighted": write_pairs(tmp_path / "w.csv", rows, HEADER)}
    files["repeated"] = write_pairs(tmp_path / "r.csv", [row[:3] for row in rows for _ in range(row[3])])
    found = {}
    for run, file in files.items():
        flags = ("--batch-size", 64, "--log-steps", 1, "--dev-file", dev, "--part-size", 3 * (run == "weighted"))
        words = training_words(tiny_folder, file, tmp_path / run, *flags, "--loss", "cosent+multiple-negatives")
        shown = run_inside(driver.main, *words, "--precision", "fp32", "--balance")
        assert shown.returncode == 0, shown.stderr
        found[run] = losses(tmp_path / run)
        assert ("2 pairs have the weight 0 and are not trained on" in shown.stdout) == (run == "weighted")
        assert json.loads((tmp_path / run / "settings.json").read_text())["weight_column"] == "weight" * (run == "weighted")
    assert found["weighted"] == pytest.approx(found["repeated"], rel=1e-4)
    other = ("--no-balance", "--columns", "sentence1=1,sentence2=2,label=3")
    shown = run_inside(driver.main, *words, "--precision", "fp32", "--resume", *other)
    assert shown.returncode == 2
    for part in ("--balance: False now, True in the run so far", "--columns: 'sentence1=1,sentence2=2,label=3' now, ''"):
        assert part in shown.stderr
    assert len(found["weighted"]) == 2
    pairs = json.loads((tmp_path / "weighted" / "results.json").read_text())["splits"]
    assert (pairs["train"]["pairs"], pairs["dev"]["pairs"]) == (6, 100)


def test_what_can_t_be_weighed_is_refused(tiny_folder, tmp_path):
    def refused(name, rows, header, *flags):
        words = training_words(tiny_folder, write_pairs(tmp_path / name, rows, header), tmp_path / "run", *flags)
        shown = run_inside(driver.main, *words)
        assert shown.returncode == 2
        assert not (tmp_path / "run").exists()
        return shown.stderr

    declared = ("--columns", "sentence1=1,sentence2=2,label=3,weight=weight")
    said = refused("p.csv", [(*pair, "x" * (place == 3)) for place, pair in enumerate(PAIRS)], HEADER, *declared)
    assert "line 5: column weight: 'x' is no weight: write a number" in said
    assert "--label-map" not in said  # the help with words is for labels
    assert "line 2: column weight: blank" in said
    assert "have the weight 0" in refused("q.csv", [(*pair, 0) for pair in PAIRS], HEADER)
    assert "--balance" in refused("r.csv", [pair[:2] for pair in PAIRS], HEADER[:2], "--balance")
    assert "nothing to balance" in refused("s.csv", [(*pair[:2], 1) for pair in PAIRS], HEADER[:3], "--balance")


@pytest.mark.parametrize(
    ("labels", "loss"),
    [
        ([5] * 4 + [0, 1, 2, 3], "multiple-negatives"),  # the others have the weight 0
        ([2] * 4 + [0, 1, 3, 5], "cosine-mse"),
        ([2, 2, 2, 5, 0, 1, 3, 4], "cosent"),
    ],
)
def test_the_objective_is_chosen_by_the_pairs_that_count(tiny_folder, tmp_path, labels, loss):
    rows = [(*pair[:2], label, int(place < 4)) for place, (pair, label) in enumerate(zip(PAIRS, labels, strict=True))]
    pairs = write_pairs(tmp_path / "p.csv", rows, HEADER)
    words = training_words(tiny_folder, pairs, tmp_path / "run", "--batch-size", 8)
    shown = run_inside(driver.main, *words)
    assert shown.returncode == 0, shown.stderr
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["loss"] == loss
    if loss == "cosine-mse":
        refused = run_inside(driver.main, *words, "--overwrite", "--loss", "cosent")
        assert (refused.returncode, "2 distinct labels at least" in refused.stderr) == (2, True)
