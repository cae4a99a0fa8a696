"""Several training files: what a value of --train-file says, batches of one file each, and how often a row is seen."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import bertFineTuningWithConnectionData as driver
from connection.data.prepare import prepare
from connection.data.split import rows_apart
from connection.settings_reader import make_settings, read_settings
from connection.system.errors import InputError
from connection.training.mixed_files import MixedDataset
from connection.training.objectives import FileObjective, make_objective, make_objectives
from connection.training.training_files import TrainingFile, parse_training_file
from ConnectionBert import ConnectionBert
from ConnectionDataset import make_datasets
from tests.conftest import NOUNS, PAIRS, write_pairs


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("own.csv", ("own.csv", 1, "")),
        ("nli.csv:0.5", ("nli.csv", 0.5, "")),
        ("nli.csv:multiple-negatives", ("nli.csv", 1, "multiple-negatives")),
        ("nli.csv:2:cosent+cosine-mse:0.5", ("nli.csv", 2, "cosent+cosine-mse:0.5")),
        ("nli.csv:cosent+cosine-mse:0.5", ("nli.csv", 1, "cosent+cosine-mse:0.5")),
        ("nli.csv:1:multiple-negatives:0.5", ("nli.csv", 1, "multiple-negatives:0.5")),
        ("C:\\data\\a.csv", ("C:\\data\\a.csv", 1, "")),
        ("C:\\data\\a.csv:0.5:auto", ("C:\\data\\a.csv", 0.5, "auto")),
        ("C:a.csv", ("C:a.csv", 1, "")),
        ("C:a.csv:2", ("C:a.csv", 2, "")),
        ("C:2", ("C:2", 1, "")),
        ("C:cosent", ("C:cosent", 1, "")),
        ("2026:pairs.csv:3", ("2026:pairs.csv", 3, "")),
        ("pairs:2026.csv", ("pairs:2026.csv", 1, "")),
        ("https://example.org:8080", ("https://example.org:8080", 1, "")),
    ],
)
def test_a_value_is_read_from_the_right(text, meant):
    assert parse_training_file(text) == meant


@pytest.mark.skipif("sys.platform == 'win32'", reason="no colons in names there")
def test_a_path_that_is_there_is_that_path(tmp_path):
    for name in ("a.csv:2", "a.csv:cosent"):
        (tmp_path / name).touch()
        assert parse_training_file(str(tmp_path / name)) == TrainingFile(str(tmp_path / name))
    assert parse_training_file(f"{tmp_path}/a.csv:2:cosent") == (f"{tmp_path}/a.csv:2", 1, "cosent")
    assert parse_training_file(f"{tmp_path}/a.csv:3:cosent") == (f"{tmp_path}/a.csv", 3, "cosent")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nli.csv:0", "0 is no ratio; write a number above 0"),
        ("nli.csv:-1:cosent", "-1 is no ratio"),
        ("nli.csv:nan", "nan is no ratio"),
        ("nli.csv:1e9", "at most 1000"),
        ("nli.csv:0.5:multiple-negative", "did you mean multiple-negatives?"),
        ("nli.csv:cosine_mse", "did you mean cosine-mse?"),
        ("README.md:half", "'half' is no ratio and no objective; they are cosine-mse"),
        ("nli.csv:multiple-negatives:0.5", "It stands before the objective: nli.csv:0.5:multiple-negatives"),
        ("nli.csv:cosent+nothing", "'nothing' is no objective"),
        (":0.5", "a path is empty"),
        (["own.csv", "./own.csv:2"], "./own.csv is given twice; a ratio shows it more often"),
        (["own.csv", "own.csv"], "own.csv is given twice"),
        (["own.csv", "nli.csv:0"], "0 is no ratio"),
        ([], "needs a value"),
        (["own.csv", 3], "3 is not text"),
    ],
)
def test_bad_values_say_the_way_out(text, said):
    with pytest.raises(InputError, match=r"--train-file: ") as refused:
        make_settings({"train_file": text}, vars(driver))
    assert said in str(refused.value)


def test_the_flag_may_be_repeated_and_the_constant_be_a_list():
    files = ["own.csv", "nli.csv:0.5:multiple-negatives"]
    words = [word for file in files for word in ("--train-file", file)]
    for settings in (
        read_settings(words, vars(driver), ""),
        read_settings([], vars(driver) | {"TRAIN_FILE": files}, ""),
        make_settings({"train_file": files}, vars(driver)),
    ):
        assert settings.train_file == tuple(files)
        assert settings.train_files == (("own.csv", 1, ""), ("nli.csv", 0.5, "multiple-negatives"))
        assert settings.dev_file == ""  # the bundled pairs say nothing about others
    assert read_settings(words[:2], vars(driver), "").train_file == "own.csv"


@pytest.fixture
def tokenizer(tiny_folder):
    return ConnectionBert.load(tiny_folder).tokenizer


@pytest.fixture
def read(tmp_path, tokenizer):
    def read(columns="", **files):
        paths = {name.replace("_", "-"): str(write_pairs(tmp_path / f"{name}.csv", *rows)) for name, rows in files.items()}
        return prepare(paths, tokenizer, 32, columns, (None, None), tmp_path / "cache", progress=False)

    return read


LINKS = [(f"the {noun} plays", f"a {noun} in the park") for noun in NOUNS]
TRIPLETS = [(f"the {noun} rides", f"a {noun} rides", "a red city", "a blue night") for noun in NOUNS[:5]]


@pytest.fixture
def mixed(read):
    prepared = read(
        train=(PAIRS * 3,),
        train_2=(LINKS, ("question", "answer")),
        train_3=(TRIPLETS, ("anchor", "positive", "negative_1", "negative_2")),
    )
    data, remarks = make_datasets(prepared, 0, (0, 0), 0)
    assert [*data], remarks == (["train", "train-2", "train-3"], [])
    return MixedDataset([*data.values()], [1, 0.5, 2])


def epoch(batches, number, first=0):
    batches.epoch, batches.first = number, first
    return list(batches)


def test_batches_are_of_one_file_each_and_shuffled_together(mixed):
    batches = mixed.shuffled(4, 7)
    drawn = epoch(batches, 1)
    assert len(drawn) == len(batches) == 6 + 2 + 3  # 24 pairs; 5 of 10; 10 of 5 triplets
    files = [{int(np.searchsorted(mixed.first_row, row, side="right")) for row in rows} for rows in drawn]
    assert all(len(of) == 1 for of in files)
    assert [min(of) for of in files] != sorted(min(of) for of in files)
    assert epoch(mixed.shuffled(4, 7), 1) == drawn != epoch(mixed.shuffled(4, 8), 1)
    assert epoch(batches, 2) != drawn
    assert epoch(batches, 1, first=4) == drawn[4:]


def test_each_row_is_seen_as_often_as_the_ratio_says(mixed):
    batches, starts = mixed.shuffled(4, 7), mixed.first_row
    seen = [Counter(itertools.chain(*epoch(batches, number))) for number in (1, 2)]
    assert all(counts[row] == 1 for counts in seen for row in range(starts[1]))
    halves = [{row for row in counts if starts[1] <= row < starts[2]} for counts in seen]
    assert [len(half) for half in halves] == [5, 5]
    assert halves[0] | halves[1] == {*range(starts[1], starts[2])}  # another half each epoch
    assert all(counts[row] == 2 for counts in seen for row in range(starts[2], starts[3]))


@pytest.mark.parametrize("ratio", [1e-9, 0.01, 0.1])
def test_of_the_smallest_ratio_an_epoch_shows_a_row(mixed, ratio):
    for parts, ratios in ((mixed.parts[:1], [ratio]), (mixed.parts[:2], [1, ratio])):
        data = MixedDataset(parts, ratios)
        batches = data.shuffled(4, 7)
        seen = [sum(row >= data.first_row[-2] for row in itertools.chain(*epoch(batches, number))) for number in (1, 2)]
        assert seen == [max(1, math.ceil(ratio * len(parts[-1])))] * 2


def test_triplets_stay_together(mixed):
    for rows in epoch(mixed.shuffled(2, 7), 1):
        if rows[0] >= mixed.first_row[2]:
            triplets = Counter((row - mixed.first_row[2]) // 3 for row in rows)
            assert {count % 3 for count in triplets.values()} == {0}


def test_rows_sentences_and_lines_are_those_of_the_files(mixed):
    rows = epoch(mixed.shuffled(4, 7), 1)
    for batch in rows:
        file = mixed._of_file(np.array(batch))[0]
        own = np.array(batch) - mixed.first_row[file]
        part = mixed.parts[file]
        got, expected = mixed.collate([mixed[row] for row in batch]), part.collate([part[row] for row in own])
        assert torch.equal(got.tokens.input_ids, expected.tokens.input_ids)
        assert torch.equal(got.target, expected.target)
        assert got.rows.tolist() == batch
        assert torch.equal(got.sentences - mixed.first_sentence[file], expected.sentences)
        assert mixed.where(got.rows) == part.where(torch.from_numpy(own))
        lengths = [len(part[row].tokens1) + len(part[row].tokens2) for row in own]
        assert mixed.token_counts(np.array(batch)).tolist() == lengths


def test_each_batch_has_its_files_objective(mixed):
    losses = ["cosent", "multiple-negatives", "triplet"]
    files = [FileObjective(loss, [0, 1], first) for loss, first in zip(losses, mixed.first_sentence, strict=True)]
    objective = make_objectives(files, 20.0, (), 8)
    seen = set()
    for rows in epoch(mixed.shuffled(4, 7), 1):
        batch = mixed.collate([mixed[row] for row in rows])
        u, v = torch.randn(2, len(rows), 8, generator=torch.Generator().manual_seed(1))
        file = mixed._of_file(np.array(rows))[0]
        by_hand = make_objective(losses[file], 20.0, (), 8, [0, 1])(u, v, batch.target, batch.sentences)
        assert objective(u, v, batch.target, batch.sentences) == by_hand
        seen.add(file)
    assert seen == {0, 1, 2}


def test_files_with_one_objective_share_its_classes():
    files = [
        FileObjective("softmax", [0, 1], 0),
        FileObjective("cosent", [0, 0.25, 1], 5),
        FileObjective("softmax", [0, 0.5], 9),
    ]
    objective = make_objectives(files, 20.0, (), 8)
    shapes = {name: tuple(tensor.shape) for name, tensor in objective.state_dict().items() if name.endswith("weight")}
    assert [*shapes.values()] == [(3, 24)]  # the classes 0, 0.5 and 1


def test_one_audit_of_all_files(read):
    again = [(*PAIRS[1][:2], 2), (*PAIRS[0][1::-1], 0), ("a dog", "a cat", 1)]
    prepared = read(
        train=(PAIRS,),
        train_2=([*again, ("a red book", "a book", 2)], ("sentence1", "sentence2", "label")),
        test=([("a book", "a red book", 4), PAIRS[3]],),
    )
    assert (
        (prepared.others["train-2"].low, prepared.others["train-2"].high) != (0, 5) == (prepared.scale.low, prepared.scale.high)
    )
    shown = {finding.name: finding for finding in prepared.findings if finding.file.endswith("train_2.csv")}
    assert (shown["contradiction"].lines, shown["duplicate"].lines) == ([3], [2])
    assert "line 3 (0) is line 2 (4.5) of" in shown["contradiction"].example
    assert shown["duplicate"].example.endswith("train.csv")
    leaks = [finding for finding in prepared.findings if finding.name == "leaked-pair"]
    assert [(leak.lines, leak.example.rpartition("/")[2]) for leak in leaks] == [([2, 3], "train.csv")]
    assert {finding.name for finding in prepared.blocking("stop", "")} == {"contradiction", "leaked-pair"}


def test_a_held_out_pair_that_leaked_from_two_files_counts_once(read):
    other = [PAIRS[3], ("a book", "a red book", 2), ("a dog", "a cat", 1)]
    test = [PAIRS[3], PAIRS[0], ("a book", "a red book", 4), ("a cat", "a city", 1), (PAIRS[1][0], "a night", 1)]
    prepared = read(train=(PAIRS,), train_2=(other,), dev=([("a dog", "a night", 1), ("the day", "a day", 4)],), test=(test,))
    found = {(finding.name, Path(finding.file).stem): finding for finding in prepared.findings}
    assert (found["leaked-pair", "test"].count, found["leaked-pair", "test"].lines) == (3, [2, 3, 4])
    assert found["shared-sentence", "test"].lines == [5, 6]  # the pairs that leaked are not among them
    assert found["shared-sentence", "test"].example.endswith("train.csv or " + str(prepared.stores["train-2"].path))
    assert found["shared-sentence", "dev"].example.endswith("also in " + str(prepared.stores["train-2"].path))


@pytest.mark.parametrize("damaged", [("train",), ("train-2",), ("train", "train-2"), ("train", "dev"), ("dev",)])
def test_a_file_that_is_damaged_below_its_first_rows_is_said_beside_the_others(tokenizer, tmp_path, damaged):
    good = [json.dumps({"sentence1": f"a dog {n}", "sentence2": f"a cat {n}", "label": n % 6}) for n in range(300)]
    paths = {}
    for split in ("train", "train-2", "dev", "test"):
        paths[split] = str(tmp_path / f"{split}.jsonl")
        lines = [*good, '{"sentence1": '] if split in damaged else good
        Path(paths[split]).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError) as raised:
        prepare(paths, tokenizer, 32, "", (None, None), tmp_path / "cache", progress=False)
    said = str(raised.value).splitlines()
    assert [line.partition(", line 301: not JSON")[0] for line in said] == [paths[split] for split in damaged]


def test_a_scale_that_cannot_be_names_its_file(tokenizer, tmp_path):
    files = {"train": [(*pair[:2], 1) for pair in PAIRS], "train-2": [(*pair[:2], 5) for pair in PAIRS]}
    paths = {split: str(write_pairs(tmp_path / f"{split}.csv", rows)) for split, rows in files.items()}
    with pytest.raises(InputError) as raised:
        prepare(paths, tokenizer, 32, "", (5, None), tmp_path / "cache", progress=False)
    said = str(raised.value).splitlines()
    assert [line.partition(": a label scale from 5 to ")[0] for line in said] == [*paths.values()]


def test_the_first_file_is_split_and_the_others_lose_its_sentences(read):
    rows = [(f"the {a} sees", f"a {a} {b}", i % 6) for i, a in enumerate(NOUNS) for b in NOUNS[:5]]
    others = [(one, "another text", 1) for one, *_ in rows[::5]] + [("a man", "a city", 0)]
    prepared = read(train=(rows,), train_2=(others,))
    data, remarks = make_datasets(prepared, 0, (0.2, 0.2), 1)
    held_out = np.concatenate([data["dev"].rows, data["test"].rows])
    gone = {rows[row][0] for row in held_out}
    kept = [row for row, (one, *_) in enumerate(others) if one not in gone]
    assert np.arange(len(others))[data["train-2"].places].tolist() == kept
    assert rows_apart(prepared.stores["train-2"], prepared.stores["train"], held_out).tolist() == kept
    assert f"{len(gone)} of the 11 pairs of train_2.csv are left out" in remarks[-1]
    assert {*data} == {"train", "train-2", "dev", "test"}
    with pytest.raises(InputError, match=r"Nothing of that file is left: give a --dev-file"):
        make_datasets(read(train=(rows,), train_2=([(rows[held_out[0]][0], "a day", 1)],)), 0, (0.2, 0.2), 1)


def test_declared_columns_hold_for_the_first_file_and_for_others_where_they_fit(read):
    prepared = read(
        columns="sentence1=x,sentence2=y,label=z",
        train=(PAIRS, ("x", "y", "z")),
        train_2=(LINKS, ("question", "answer")),
    )
    assert len(prepared.stores["train-2"]) == len(LINKS)
    with pytest.raises(InputError, match=r"train\.csv"):
        read(columns="sentence1=x,sentence2=y,label=z", train=(PAIRS,), train_2=(PAIRS, ("x", "y", "z")))


def test_each_file_has_its_own_weights_and_labels_are_balanced_where_there_are_some(read):
    named = ("sentence1", "sentence2", "score", "weight")
    prepared = read(
        train=(PAIRS * 2,),
        train_2=([(f"a {noun} here", f"a {noun} there", score, 2 * score + 1) for score, noun in enumerate(NOUNS[:2])], named),
        train_3=(LINKS, ("question", "answer")),
    )
    data, remarks = make_datasets(prepared, 0, (0, 0), 0)
    mixed = MixedDataset([*data.values()], [1, 1, 1])
    assert data["train"].weight is data["train-3"].weight is None
    assert prepared.weight_column == "weight"
    assert [remark.partition(":")[0] for remark in remarks] == ["train_2.csv"]
    rows = np.arange(mixed.first_row[1], mixed.first_row[2])
    batch = mixed.collate([mixed[row] for row in rows.tolist()])
    assert batch.weight is not None
    assert batch.weight.tolist() == [1, 3]
    assert mixed.collate([mixed[0], mixed[1]]).weight is None
    data, _ = make_datasets(prepared, 0, (0, 0), 0, balance=True)
    assert data["train"].weight is not None
    assert data["train-3"].weight is None
    assert data["train-2"].weight is not None
    assert data["train-2"].weight.tolist() == [2, 2]


def test_files_without_labels_alone_are_not_balanced(read):
    head = ("question", "answer")
    prepared = read(train=(LINKS, head), train_2=([(two, one) for one, two in LINKS], head))
    with pytest.raises(InputError, match=r"--balance: .*train.csv has no labels that differ"):
        make_datasets(prepared, 0, (0, 0), 0, balance=True)


def test_token_counts_are_those_of_both_sides_prompts(read, tokenizer):
    tokenizer.prompts = ("the day: ", "")
    data, _ = make_datasets(read(train=(PAIRS,), train_2=(LINKS, ("question", "answer"))), 0, (0, 0), 0)
    for part in data.values():
        items = [part[row] for row in range(len(part))]
        assert part.token_counts(np.arange(len(part))).tolist() == [len(one.tokens1) + len(one.tokens2) for one in items]
