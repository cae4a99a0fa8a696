"""tools.score: the columns that it adds, against the model itself; every form of file; what can't be scored."""

from __future__ import annotations

import csv
import json

import numpy as np
import openpyxl
import pyarrow.feather
import pyarrow.parquet
import pytest

import bertFineTuningWithConnectionData as driver
from connection.search import pair_rows
from connection.search.known_links import read_known
from connection.search.texts import read_texts
from ConnectionBert import ConnectionBert
from tests.conftest import MANY, PAIRS, binary, run_inside, training_words, write_pairs
from tools import score, similarity


@pytest.fixture
def trained(tiny_folder, tmp_path):
    pairs = write_pairs(tmp_path / "training.csv", binary(MANY))
    assert run_inside(driver.main, *training_words(tiny_folder, pairs, tmp_path / "run")).returncode == 0
    return tmp_path / "run"


def read(file) -> list[dict]:
    if file.suffix == ".parquet":
        return pyarrow.parquet.read_table(file).to_pylist()
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    if file.suffix == ".xlsx":
        header, *rows = openpyxl.load_workbook(file).active.iter_rows(values_only=True)
        return [dict(zip(header, row, strict=True)) for row in rows]
    with open(file, encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ","))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_every_row_gets_cosine_label_and_decision(trained, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(pair_rows, "ROWS_AT_ONCE", 3)  # several chunks
    pairs = write_pairs(
        tmp_path / "pairs.csv", [(a, b, n) for n, (a, b, _) in enumerate(PAIRS)], ("sentence1", "sentence2", "no")
    )
    output = tmp_path / f"scored.{ending}"
    shown = run_inside(score.main, trained, pairs, "-o", output)
    assert shown.returncode == 0, shown.stderr
    model = ConnectionBert.load(trained)
    cosine = model.similarity([a for a, *_ in PAIRS], [b for _, b, _ in PAIRS])
    low, high = model.labels or (0, 1)
    labels = model.calibration.predicted_label(cosine, low, high)
    rows = read(output)
    assert [(row["sentence1"], row["sentence2"], str(row["no"])) for row in rows] == [
        (a, b, str(n)) for n, (a, b, _) in enumerate(PAIRS)
    ]
    assert [float(row["cosine"]) for row in rows] == pytest.approx(cosine.tolist(), abs=1e-4)
    assert [float(row["predicted"]) for row in rows] == pytest.approx(labels.tolist(), abs=1e-4)
    assert [row["connected"] for row in rows] == ["yes" if value >= model.calibration.threshold else "no" for value in cosine]
    assert f"{len(PAIRS)} pairs scored" in shown.stderr
    assert f"{sum(row['connected'] == 'yes' for row in rows)} connected" in shown.stderr


def test_two_sentences_and_the_earlier_name(trained):
    shown = run_inside(score.main, trained, "a dog sees the cat", "the cat sees a dog").stdout
    assert shown == run_inside(similarity.main, trained / "model", "a dog sees the cat", "the cat sees a dog").stdout
    cosine = float(ConnectionBert.load(trained).similarity(["a dog sees the cat"], ["the cat sees a dog"])[0])
    assert f"cosine {cosine:.4f}" in shown
    assert "connected: the threshold is" in shown
    told = json.loads(run_inside(score.main, trained, "a dog", "a cat", "--json").stdout)
    assert told.keys() == {"cosine", "predicted", "connected"}


def test_a_cut_sentence_is_said(tiny_folder):
    assert "1 of 2 sentences cut at" in run_inside(score.main, tiny_folder, "dog " * 5000, "a cat").stderr
    assert "cut" not in run_inside(score.main, tiny_folder, "a dog", "a cat").stderr


def test_guards_of_an_earlier_file_are_taken_off_and_scored_again_nothing_is_added(tiny_folder, tmp_path):
    texts = [("-5 is a cat", "=a dog", "+1"), ("a dog", "'-' is a cat", "@x")]
    write_pairs(tmp_path / "pairs.jsonl", texts, ("sentence1", "sentence2", "note"))
    names, source = ("sentence1", "sentence2", "note"), tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in texts))
    for step in ("one.csv", "two.xlsx", "three.tsv", "four.jsonl"):
        shown = run_inside(score.main, tiny_folder, source, "-o", tmp_path / step)
        assert shown.returncode == 0, shown.stderr
        source = tmp_path / step
    rows = read(source)
    assert [tuple(row[name] for name in names) for row in rows[:1]] == texts[:1]
    assert rows[1]["note"] == "@x"
    cosine = ConnectionBert.load(tiny_folder).similarity([a for a, *_ in texts[:1]], [b for _, b, _ in texts[:1]])
    assert float(rows[0]["cosine 2"] if "cosine 2" in rows[0] else rows[0]["cosine"]) == pytest.approx(cosine[0], abs=1e-4)


def test_a_formula_that_was_never_computed_is_said_in_its_cell(tiny_folder, tmp_path):
    book = openpyxl.Workbook()
    for row in (("sentence1", "sentence2", "note"), ("a dog", "a cat", "=1+1"), ("a cat", "a dog", "x")):
        book.active.append(row)
    book.save(tmp_path / "pairs.xlsx")
    assert run_inside(score.main, tiny_folder, tmp_path / "pairs.xlsx", "-o", tmp_path / "scored.xlsx").returncode == 0
    assert read(tmp_path / "scored.xlsx")[0]["note"].startswith("(a formula without a computed value")


def test_pairs_that_change_while_they_are_scored_are_refused(tiny_folder, tmp_path, monkeypatch):
    pairs, real = write_pairs(tmp_path / "pairs.csv", PAIRS), ConnectionBert.encode_tokens

    def encoded(self, *words, **named):
        pairs.write_text(pairs.read_text() + "one,more,1\n")
        return real(self, *words, **named)

    monkeypatch.setattr(ConnectionBert, "encode_tokens", encoded)
    shown = run_inside(score.main, tiny_folder, pairs, "-o", tmp_path / "scored.csv")
    assert (shown.returncode, "was changed while it was read" in shown.stderr) == (2, True)
    assert not (tmp_path / "scored.csv").exists()


def test_without_calibration_there_is_a_cosine_alone_and_rows_without_text_have_none(tiny_folder, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.csv", [("a dog", "a cat"), ("", "a cat"), ("=1+1", "a dog")], ("q", "a"))
    shown = run_inside(score.main, tiny_folder, pairs, "--columns", "sentence1=q,sentence2=a")
    header, *rows = csv.reader(shown.stdout.splitlines())
    assert header == ["q", "a", "cosine"]
    assert [bool(row[2]) for row in rows] == [True, False, True]
    assert rows[2][0] == "'=1+1"
    assert "1 rows have no score" in shown.stderr
    assert "line 3: blank" in shown.stderr
    lines = run_inside(score.main, tiny_folder, pairs, "--columns", "sentence1=q,sentence2=a", "--json").stdout.splitlines()
    assert np.isfinite(json.loads(lines[0])["cosine"])
    assert json.loads(lines[1])["cosine"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.csv"], "absent.csv"),
        (["odd.csv"], "which columns hold the two sentences? The first row: 1 'x', 2 'y', 3 'z'"),
        (["odd.csv", "--columns", "sentence1=x"], "give sentence1=NAME,sentence2=NAME"),
        (["odd.csv", "--columns", "sentence1=x,sentence2=w"], "no column is named w"),
        (["empty.csv"], "is empty"),
        (["header.csv"], "no rows below its header"),
        (["header.csv", "-o", "out.csv"], "no rows below its header"),
        (["pairs.csv", "-o", "out.doc"], "should end in .csv"),
        (["pairs.csv", "-o", "pairs.csv"], "would replace the file that is read"),
        (["pairs.csv", "-o", "nowhere/x.csv"], "in a folder that is there"),
        (["one", " "], "is no sentence"),
        (["one", "two", "three"], "one file of pairs, or two sentences"),
        (["one", "two", "-o", "x.csv"], "of a file of pairs"),
    ],
)
def test_bad_usage_and_files_are_one_message_and_no_file(tiny_folder, tmp_path, words, said):
    write_pairs(tmp_path / "odd.csv", [(1, 2, 3)], ("x", "y", "z"))
    write_pairs(tmp_path / "header.csv", [], ("sentence1", "sentence2", "no"))
    write_pairs(tmp_path / "pairs.csv", PAIRS)
    (tmp_path / "empty.csv").touch()
    before = sorted(tmp_path.iterdir())
    shown = run_inside(score.main, tiny_folder, *words, cwd=tmp_path)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_a_columnar_file_is_read_to_its_end(tmp_path, ending):
    table = pyarrow.table({"sentence1": [f"a dog {n}" for n in range(450)], "sentence2": ["a cat"] * 450})
    file = tmp_path / f"pairs.{ending}"
    (pyarrow.parquet.write_table if ending == "parquet" else pyarrow.feather.write_feather)(table, file)
    assert sum(len(chunk.cells) for chunk in pair_rows.open_pairs(file).chunks()) == 450
    assert len(read_texts(file, "sentence1").texts) == 450
    known = read_known([file], {f"a dog {n}": [n] for n in range(450)}, {"a cat": [0]}, 1, None)
    assert known.links.tolist() == list(range(450))


def test_names_below_a_title_are_found(tiny_folder, tmp_path):
    (tmp_path / "a.csv").write_text("Our pairs,,\n,,\nNo,sentence1,sentence2\n7,a dog,a cat\n8,the man,a horse\n")
    (tmp_path / "b.csv").write_text("Our pairs,,\nNo,Erstes,Anderes\n7,a dog,a cat\n8,the man,a horse\n")
    for name, *flags in (("a.csv",), ("b.csv", "--columns", "sentence1=Erstes,sentence2=Anderes")):
        shown = run_inside(score.main, tiny_folder, tmp_path / name, *flags, "--json")
        assert shown.returncode == 0, shown.stderr
        assert [json.loads(line)["No"] for line in shown.stdout.splitlines()] == ["7", "8"]
