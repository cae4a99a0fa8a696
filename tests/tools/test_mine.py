"""python -m tools.mine: against sentence-transformers' own mining, and what is read and written."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from connection.data.pair_file import PairFile
from connection.search.negatives import find_negatives, read_linked
from ConnectionBert import ConnectionBert
from tests.conftest import NOUNS, run_inside
from tools import mine

# Two right answers of each of ten first sentences.
PAIRS = [(f"the {noun} plays", f"a {NOUNS[(3 * i + 4 * j) % 10]} {verb} the {noun}")
         for i, noun in enumerate(NOUNS) for j, verb in enumerate(("sees", "reads"))]  # fmt: skip


class Given:
    """What `mine_hard_negatives` needs of the `datasets` library, which is not among the requirements."""

    def __init__(self, columns):
        self.table = pd.DataFrame(columns)
        self.column_names = list(self.table)

    def __len__(self):
        return len(self.table)

    def __getitem__(self, name):
        return self.table[name].tolist()

    def to_pandas(self):
        return self.table

    @classmethod
    def from_dict(cls, columns):
        return cls(columns)


def write(path, rows, head="question,answer"):
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def mined(tmp_path, folder, *flags, rows=PAIRS, head="question,answer", name="out.jsonl"):
    file = write(tmp_path / "p.csv", rows, head)
    shown = run_inside(mine.main, file, "--model-dir", folder, "-o", tmp_path / name, *flags)
    assert shown.returncode == 0, shown.stderr
    return shown, [json.loads(line) for line in (tmp_path / name).read_text().splitlines()] if name.endswith("jsonl") else []


@pytest.mark.parametrize(
    ("flags", "others"),
    [
        (["--margin", "0.96"], {"relative_margin": 0.04}),
        (["--margin", "0.98", "--negatives", 3], {"relative_margin": 0.02}),
        (["--margin", "10", "--margin-absolute", "0.01"], {"absolute_margin": 0.01}),
        (["--margin", "10", "--margin-absolute", "-2", "--range-min", 2, "--negatives", 3], {"range_min": 2}),
    ],
    ids=str,
)
def test_the_negatives_are_those_of_sentence_transformers(tiny_folder, tmp_path, monkeypatch, flags, others):
    count = flags[flags.index("--negatives") + 1] if "--negatives" in flags else 1
    _, rows = mined(tmp_path, tiny_folder, *flags)
    found = {(row["anchor"], row["positive"], text) for row in rows for name, text in row.items() if "mined" in name and text}
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(Dataset=Given))
    monkeypatch.setitem(mine_hard_negatives.__globals__, "is_datasets_available", lambda: True)
    given = Given(dict(zip(("anchor", "positive"), zip(*PAIRS, strict=True), strict=True)))
    theirs = mine_hard_negatives(
        given, SentenceTransformer(str(tiny_folder), device="cpu"), num_negatives=count, range_max=18, verbose=False, **others
    )
    assert found == set(zip(*(theirs[name] for name in ("anchor", "positive", "negative")), strict=True))
    assert len(found) >= 5


@pytest.fixture
def linked(tmp_path):
    def read(rows, head="question,answer,label", **flags):
        return read_linked(PairFile.open(write(tmp_path / "p.csv", rows, head)), None, None, **flags)

    return read


def test_what_the_file_links_is_no_negative(linked):
    """Also by a low label, and in another spelling; a pair that it labels 0 may be one; nor is the sentence itself."""
    rows = [
        ("a dog", "a cat", 5),
        ("a dog", "a horse", 2),
        ("A  Dog", "a book", 4),
        ("a dog", "a man", 0),
        ("a man", "A DOG", 1),
    ]
    texts = linked(rows)
    assert {texts.texts[number] for number in texts.candidates} == {"a dog", "a cat", "a horse", "a book", "a man"}
    vectors = np.ones((len(texts.texts), 1), np.float32)
    found = find_negatives(texts, vectors, vectors, 4, relative=1, absolute=0)
    assert [texts.texts[number] for number in found.anchors] == ["a dog"]
    assert [texts.texts[number] for number in found.texts[0] if number >= 0] == ["a man"]


def test_the_search_goes_on_until_there_are_enough(linked):
    """The 60 nearest of 100 candidates are too near; the furthest right answer says what is too near."""
    rows = [("a dog", "right 0", 1), ("a dog", "right 1", 1), *((f"q {n}", f"text {n}", 1) for n in range(100))]
    texts = linked(rows)
    angle = {f"text {n}": 0.01 * n for n in range(100)} | {"right 0": 0.1, "right 1": 0.5955}
    vectors = np.array([[np.cos(angle.get(text, 0)), np.sin(angle.get(text, 0))] for text in texts.texts], np.float32)
    found = find_negatives(texts, vectors, vectors, 3, relative=1, absolute=0)
    assert [texts.texts[number] for number in found.texts[0]] == ["text 60", "text 61", "text 62"]
    assert found.cosine[0] == pytest.approx(np.cos([0.6, 0.61, 0.62]), abs=1e-6)
    assert (
        find_negatives(texts, vectors, vectors, 200, relative=1, absolute=0).texts[0].tolist().count(-1) == 160
    )  # 40 are far enough


def test_a_corpus_and_labelled_pairs(tiny_folder, tmp_path):
    """Only texts of the corpus are negatives; pairs and negatives are written with their labels."""
    corpus = write(tmp_path / "corpus.csv", [(f"the {noun} is not in the city",) for noun in NOUNS], "text")
    rows = [(*pair, label) for pair, label in zip(PAIRS, [5, 4] * 10, strict=True)] + [("a red horse", "a blue cat", 0)]
    shown, found = mined(
        tmp_path, tiny_folder, "--corpus", corpus, "--as", "pairs", "--negatives", 2, "--margin", 2, rows=rows,
        head="sentence1,sentence2,score",
    )  # fmt: skip
    assert "20 connected pairs of 10 first sentences, 10 candidates" in shown.stderr
    assert [(row["sentence1"], row["sentence2"]) for row in found if row["label"] == 1] == PAIRS
    negatives = [row for row in found if row["label"] == 0]
    assert len(negatives) == 20
    assert {row["sentence2"] for row in negatives} <= {f"the {noun} is not in the city" for noun in NOUNS}
    model = ConnectionBert.load(str(tiny_folder))
    for row in (found[0], negatives[0]):
        assert row["cosine"] == pytest.approx(float(model.similarity([row["sentence1"]], [row["sentence2"]])[0]), abs=1e-5)


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.parquet", "out.jsonl"])
@pytest.mark.parametrize("form", mine.FORMS)
def test_what_is_written_is_read_by_the_trainer(tiny_folder, tmp_path, name, form):
    """Also texts that a spreadsheet would take for formulas, which a CSV file holds with an apostrophe."""
    rows = [*PAIRS, ("=the man plays", "+a man"), ("-the dog", "@a dog")]
    mined(tmp_path, tiny_folder, "--as", form, "--negatives", 2, "--margin", 2, rows=rows, name=name)
    file = PairFile.open(tmp_path / name)
    assert file.columns.kind == ("labelled" if form == "pairs" else "triplets")
    pairs = [
        pair for chunk in file.chunks() for pair in zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)
    ]
    assert [pair[:2] for pair in pairs if pair[2] == 1] == rows
    assert {pair[1] for pair in pairs if pair[2] == 0} <= {two for _, two in rows}
    assert len(pairs) == 3 * len(rows) if form == "triplets" else len(rows) + 2 * 12


def test_first_sentences_without_a_negative_are_said(tiny_folder, tmp_path):
    shown, found = mined(tmp_path, tiny_folder, "--negatives", 3, "--margin", "0.97")
    without = int(shown.stderr.partition(" first sentences have no negative that is far enough")[0].split("\n")[-1])
    assert 0 < without < 10
    assert len({row["anchor"] for row in found}) == 10 - without
    assert f"{len(found)} triplets" in shown.stderr
    assert "nearest, to be looked at: are they really no answers?" in shown.stderr
    alone, pairs = mined(tmp_path, tiny_folder, "--negatives", 3, "--margin", "0.97", "--as", "pairs")
    assert "their pairs are written alone" in alone.stderr
    assert sum(row["label"] for row in pairs) == len(PAIRS)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--negatives", 0], "--negatives 0: give a number from 1"), (["--margin", "nan"], "--margin nan"),
        (["--range-min", -1], "--range-min -1"), (["-o", "x.txt"], "the name should end in .csv"),
        (["-o", "{file}"], "would replace a file that is read"), (["--label-max", 5], "has no labels"),
        (["--label-map", "a"], "--label-map: "), (["--margin", "-9"], "No candidate is far enough"),
        (["--corpus", "none.csv"], "can't be read"), (["--header-row", 99], "no names in line 99"),
    ],
)  # fmt: skip
def test_bad_flags_are_refused_and_nothing_is_written(tiny_folder, tmp_path, flags, said):
    file = write(tmp_path / "p.csv", PAIRS)
    words = [tmp_path / word if word == "x.txt" else file if word == "{file}" else word for word in flags]
    shown = run_inside(mine.main, file, "--model-dir", tiny_folder, "-o", tmp_path / "out.csv", *words)
    assert (shown.returncode, said in shown.stderr) == (2, True), shown.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "tiny"]


def test_bad_rows_and_files_without_links_are_refused(tiny_folder, tmp_path):
    for rows, head, flags, said in (
        ([*PAIRS, ("a dog", "")], "question,answer", [], "line 22: column answer: blank"),
        (
            [("a dog", f"a cat {n}", n % 3) for n in range(9)],
            "sentence1,sentence2,score",
            ["--label-max", 5],
            "no connected pair",
        ),
    ):
        file = write(tmp_path / "p.csv", rows, head)
        shown = run_inside(mine.main, file, "--model-dir", tiny_folder, "-o", tmp_path / "out.csv", *flags)
        assert (shown.returncode, said in shown.stderr) == (2, True), shown.stderr
    shown, _ = mined(
        tmp_path, tiny_folder, "--on-bad-rows", "skip", "--margin", 2, rows=[*PAIRS, ("a dog", "")], name="out.csv"
    )
    assert pd.read_csv(tmp_path / "out.csv").shape[1] == 3
