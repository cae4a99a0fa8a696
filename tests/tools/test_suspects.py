"""tools.suspects: folds by sentence, residuals of unseen pairs computed again by scikit-learn, resuming; its benchmark."""

from __future__ import annotations

import json
import math
import random
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.isotonic import IsotonicRegression

import bertFineTuningWithConnectionData as driver
from benchmarks.suspects import found, plant
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.data.split import folds_by_sentence
from connection.system.errors import InputError
from ConnectionBert import load_tokenizer
from tests.conftest import CANDIDATES, MANY, run_inside, write_pairs
from tools.suspects import __main__ as suspects
from tools.suspects import folds

# 60 pairs without a sentence in common with another.
APART = [(f"the {word} {n} sees a big dog", f"a small cat reads {n} {word}", n % 6)
         for n in range(15) for word in ("man", "woman", "horse", "book")]  # fmt: skip


def store_of(folder, path):
    return load_pairs(PairFile.open(path), load_tokenizer(folder), 32, -math.inf, math.inf, path.parent, False)


@pytest.fixture
def in_process(monkeypatch):
    """The training command in this process: without the seconds that the libraries take to load. Returns the commands."""
    commands = []
    real = subprocess.run

    def run(command, **options):
        if Path(command[1]).name != Path(driver.__file__).name:  # git, asked for the commit
            return real(command, **options)
        commands.append(command)
        return subprocess.CompletedProcess(command, run_inside(driver.main, *command[2:]).returncode)

    monkeypatch.setattr(folds.subprocess, "run", run)
    return commands


def look(folder, file, output, *flags):
    return run_inside(suspects.main, "--train-file", file, "--model-dir", folder, "--max-length", 32, "--epochs", 1, "--folds",
                      2, "--output-dir", output, *flags)  # fmt: skip


# --- folds -------------------------------------------------------------------------------------------------------------


def test_no_sentence_is_in_two_folds_and_the_folds_are_even(tiny_folder, tmp_path):
    rng = random.Random(3)
    rows = [(f"a {n}", f"b {n + (n % 7 == 0)}", n % 5) for n in range(200)]
    rows += [(f"A  {n}", f"c {n}", 1) for n in range(0, 200, 9)]  # the same text but for case and spaces
    rng.shuffle(rows)
    store = store_of(tiny_folder, write_pairs(tmp_path / "pairs.csv", rows))
    fold, remarks = folds_by_sentence(store, 4, seed=1)
    assert remarks == []
    assert np.bincount(fold).tolist() == pytest.approx([len(rows) / 4] * 4, abs=4)
    sides: dict[str, set[int]] = {}
    for (one, two, _), number in zip(rows, fold.tolist(), strict=True):
        for text in (one, two):
            sides.setdefault(" ".join(text.lower().split()), set()).add(number)
    assert all(len(numbers) == 1 for numbers in sides.values())
    assert np.array_equal(fold, folds_by_sentence(store, 4, seed=1)[0])
    assert not np.array_equal(fold, folds_by_sentence(store, 4, seed=2)[0])


def test_pairs_that_hang_together_are_dealt_out_by_first_sentence_then_by_pair(tiny_folder, tmp_path):
    rows = CANDIDATES  # 60 pairs: ten first sentences with the same six second ones
    store = store_of(tiny_folder, write_pairs(tmp_path / "many.csv", rows))
    fold, remarks = folds_by_sentence(store, 2, seed=1)
    assert remarks == ["100% of the pairs hang together through shared sentences and are dealt out by first sentence"]
    of_first = pd.Series(fold).groupby([row[0] for row in rows]).nunique()
    assert (of_first == 1).all()
    same = [("the man", f"a dog {n % 30}", n % 5) for n in range(60)]
    store = store_of(tiny_folder, write_pairs(tmp_path / "same.csv", same))
    fold, remarks = folds_by_sentence(store, 3, seed=1)
    assert remarks == ["100% of the pairs hang together through shared sentences and are dealt out by pair"]
    assert (pd.Series(fold).groupby([row[1] for row in same]).nunique() == 1).all()  # a repeated pair stays together
    with pytest.raises(InputError, match=r"60 pairs: 7 folds .* fewer than 10"):
        folds_by_sentence(store, 7, seed=1)


# --- the command -------------------------------------------------------------------------------------------------------


def test_residuals_are_of_models_that_have_not_seen_the_pair(tiny_folder, tmp_path, in_process):
    rows = [*APART, ('she said "no",\nthen =1+1', "-5 degrees", 2), (*APART[0][:2], 5)]  # odd text, and a contradiction
    file = write_pairs(tmp_path / "pairs.csv", rows)
    shown = look(tiny_folder, file, tmp_path / "out", "--show", 3)
    assert shown.returncode == 0, shown.stderr
    table = pd.read_csv(tmp_path / "out" / "suspects.csv", keep_default_na=False)
    assert (table["residual"].abs().diff()[1:] <= 1e-6).all()
    assert table["rank"].tolist() == list(range(1, len(rows) + 1))
    numbers = [2 + n for n in range(61)] + [64]  # the odd text takes two lines
    by_line = dict(zip(numbers, rows, strict=True))
    assert sorted(table["line"]) == numbers
    for row in table.itertuples():
        one, two, label = by_line[row.line]
        assert row.label == label
        assert (row.sentence1, row.sentence2.removeprefix("'")) == (one, two)
    assert table.loc[table["line"].isin([2, 64]), "fold"].nunique() == 1
    for number, part in table.groupby("fold"):
        peer = IsotonicRegression().fit(part["cosine"], part["label"]).predict(part["cosine"])
        assert (part["label"] - peer).tolist() == pytest.approx(part["residual"].tolist(), abs=1e-5)
        run = tmp_path / "out" / f"fold-{number}"
        told = json.loads((run / "settings.json").read_text())
        assert (told["label_min"], told["label_max"], told["epochs"], told["max_length"]) == (0, 5, 1, 32)
        assert json.loads((run / "results.json").read_text())["final"]["test"]["pairs"] == len(part)
        assert not (run / "model").exists()
    assert not list((tmp_path / "out").glob("*.jsonl"))
    assert len([line for line in shown.stdout.splitlines() if "predicted" in line and line.startswith(" ")]) == 3


def test_the_same_command_resumes_and_another_one_is_refused(tiny_folder, tmp_path, in_process):
    file, output = write_pairs(tmp_path / "pairs.csv", APART), tmp_path / "out"
    assert look(tiny_folder, file, output).returncode == 0
    first = (output / "suspects.csv").read_bytes()
    assert len(in_process) == 2
    assert look(tiny_folder, file, output).returncode == 0
    assert len(in_process) == 2
    results = output / "fold-2" / "results.json"
    results.write_text(results.read_text().replace('"interrupted": false', '"interrupted": true'))
    shown = look(tiny_folder, file, output)
    assert len(in_process) == 3
    assert "fold 2 of 2" in shown.stdout
    assert "fold 1 of 2" not in shown.stdout
    assert (output / "suspects.csv").read_bytes() == first
    for flags in (["--learning-rate", "1e-3"], ["--folds", 3], ["--seed", 1]):
        shown = look(tiny_folder, file, output, *flags)
        assert shown.returncode == 2
        assert "of other flags" in shown.stderr
    write_pairs(file, [*APART[:-1], (*APART[-1][:2], 0)])
    assert "another file" in look(tiny_folder, file, output).stderr
    assert (output / "suspects.csv").read_bytes() == first
    write_pairs(file, APART)
    few = (output / "fold-1" / "predictions.csv").read_text().splitlines()[:9]
    (output / "fold-2" / "predictions.csv").write_text("\n".join(few))
    shown = look(tiny_folder, file, output)
    assert shown.returncode == 2
    assert "fold-2 does not hold the pairs of this fold" in shown.stderr
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    shown = look(tiny_folder, file, other)
    assert shown.returncode == 2
    assert "give another folder" in shown.stderr
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


def test_binary_labels_and_a_fold_of_one_label_alone(tiny_folder, tmp_path, in_process):
    rows = [(one, two, 0) for one, two, _ in APART[:-1]] + [(*APART[-1][:2], 1)]
    file = write_pairs(tmp_path / "pairs.csv", rows)
    shown = look(tiny_folder, file, tmp_path / "out", "--loss", "cosine-mse")
    assert shown.returncode == 0, shown.stderr
    table = pd.read_csv(tmp_path / "out" / "suspects.csv")
    assert table["predicted"].between(0, 1).all()
    assert len(table) == 60


def test_what_cannot_be_looked_at_is_refused_before_anything_is_trained(tiny_folder, tmp_path, in_process):
    file = write_pairs(tmp_path / "pairs.csv", APART)
    shown = look(tiny_folder, file, tmp_path / "out", "--epochs", 0, "--batch-size", "x", "--folds", 1)
    assert shown.returncode == 2
    assert all(flag in shown.stderr for flag in ("--epochs", "--batch-size", "--folds"))
    few = write_pairs(tmp_path / "few.csv", MANY[:12])
    assert "fewer than 10" in look(tiny_folder, few, tmp_path / "out").stderr
    same = write_pairs(tmp_path / "same.csv", [(one, two, 3) for one, two, _ in APART])
    shown = look(tiny_folder, same, tmp_path / "out")
    assert shown.returncode == 2
    assert "all labels are 3" in shown.stderr
    blank = write_pairs(tmp_path / "blank.csv", [*APART, ("", "a dog", 1)])
    assert "blank" in look(tiny_folder, blank, tmp_path / "out").stderr
    assert not in_process
    assert not (tmp_path / "out").exists()
    assert look(tiny_folder, blank, tmp_path / "out", "--on-bad-rows", "skip").returncode == 0
    assert len(pd.read_csv(tmp_path / "out" / "suspects.csv")) == 60


@pytest.mark.parametrize(("status", "told"), [(1, 1), (2, 2), (130, 130), (-9, 1)])
def test_a_fold_whose_training_fails_ends_the_command_alike(tiny_folder, tmp_path, monkeypatch, status, told):
    monkeypatch.setattr(folds.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, status))
    shown = look(tiny_folder, write_pairs(tmp_path / "pairs.csv", APART), tmp_path / "out")
    assert shown.returncode == told
    assert "fold-1" in shown.stderr or status == 130


def test_folds_trained_in_processes_of_their_own(tiny_folder, tmp_path):
    file = write_pairs(tmp_path / "pairs.csv", APART)
    shown = run_inside(suspects.main, "--train-file", file, "--model-dir", tiny_folder, "--max_length", 32, "--folds", 2,
                       "--output-dir", tmp_path / "out", "--epochs", 1, "--threads", 1)  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "the most suspicious label first" in shown.stdout
    assert len(pd.read_csv(tmp_path / "out" / "suspects.csv")) == 60


# --- the benchmark's parts -----------------------------------------------------------------------------------------------


def test_planted_labels_are_others_of_the_file_far_away():
    label = np.random.default_rng(1).integers(0, 26, 400) / 5
    changed, planted = plant(label, 0.05, 1, np.random.default_rng(2))
    assert planted.sum() == 20
    assert np.array_equal(changed[~planted], label[~planted])
    assert (np.abs(changed - label)[planted] >= 1).all()
    assert set(changed) <= set(label)
    with pytest.raises(InputError, match="no label is 1 or more away"):
        plant(np.full(40, 2.0), 0.05, 1, np.random.default_rng(2))


def test_precision_counts_the_planted_among_the_first_of_the_list():
    table = pd.DataFrame({"rank": range(1, 101), "line": range(200, 100, -1)})
    assert found(table, {200, 198, 150}, 0.05) == (2, 5)
