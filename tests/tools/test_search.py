"""tools.search: what it finds against sentence-transformers and faiss; the index is kept, brought up to date, and refused."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest
from sentence_transformers.util import semantic_search

from ConnectionBert import ConnectionBert
from tests.conftest import MANY, run_inside, write_bert, write_pairs
from tools import search

CORPUS = [row[1] for row in MANY]
QUERIES = sorted({row[0] for row in MANY})[:20]


@pytest.fixture
def corpus(tmp_path):
    return write_pairs(tmp_path / "corpus.csv", [(f"C{n}", text) for n, text in enumerate(CORPUS)], ("id", "text"))


@pytest.fixture
def queries(tmp_path):
    return write_pairs(tmp_path / "queries.csv", [(text,) for text in QUERIES], ("query",))


def cosines(folder, texts):
    vectors = ConnectionBert.load(folder).encode(texts, progress=False, precision="fp32")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("flags", [[], ["--approximate"]])
def test_it_finds_what_sentence_transformers_finds(tiny_folder, corpus, queries, tmp_path, flags):
    shown = run_inside(search.main, tiny_folder, corpus, "--queries", queries, "-o", tmp_path / "found.csv", "--top", 5, *flags)
    assert shown.returncode == 0, shown.stderr
    with open(tmp_path / "found.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    peer = semantic_search(cosines(tiny_folder, QUERIES), cosines(tiny_folder, CORPUS), top_k=5)
    assert len(rows) == 5 * len(QUERIES)
    for number, hits in enumerate(peer):
        ours = rows[5 * number : 5 * number + 5]
        assert [float(row["cosine"]) for row in ours] == pytest.approx([hit["score"] for hit in hits], abs=1e-4)
        assert [row["query text"] for row in ours] == [QUERIES[number]] * 5
        assert [row["text"] for row in ours] == [CORPUS[int(row["id"][1:])] for row in ours]
        assert [int(row["row"]) for row in ours] == [int(row["id"][1:]) + 2 for row in ours]
    if flags:
        assert "recall@10 on a sample of the corpus: 100.0%" in shown.stderr


def test_only_new_texts_are_encoded_and_the_answers_stay_right(tiny_folder, corpus, tmp_path):
    distinct = len(set(CORPUS))
    first = run_inside(search.main, tiny_folder, corpus, "a dog", "--json")
    assert f"{distinct} distinct, {distinct} encoded now" in first.stderr
    again = run_inside(search.main, tiny_folder, corpus, "a dog", "--json")
    assert f"{distinct} distinct, 0 encoded now" in again.stderr
    assert again.stdout == first.stdout
    changed = [*CORPUS[:50], "a new text of the night", *CORPUS[60:]]
    write_pairs(corpus, [(f"C{n}", text) for n, text in enumerate(changed)], ("id", "text"))
    shown = run_inside(search.main, tiny_folder, corpus, "a new text of the night", "--json", "--top", 3)
    assert f"{len(set(changed))} distinct, 1 encoded now" in shown.stderr
    (answer,) = map(json.loads, shown.stdout.splitlines())
    assert (answer[0]["id"], answer[0]["cosine"]) == ("C50", 1.0)
    expected = np.sort(cosines(tiny_folder, changed) @ cosines(tiny_folder, ["a new text of the night"])[0])[::-1][:3]
    assert [found["cosine"] for found in answer] == pytest.approx(expected.tolist(), abs=1e-4)


def test_an_index_of_another_model_or_damaged_is_refused(tiny_folder, tiny_encoder, corpus, tmp_path):
    assert run_inside(search.main, tiny_folder, corpus, "a dog").returncode == 0
    index = tmp_path / "corpus.csv.index"
    tiny_encoder.embeddings.word_embeddings.weight.data += 1
    other = write_bert(tmp_path / "other", tiny_encoder)
    shown = run_inside(search.main, other, corpus, "a dog")
    assert shown.returncode == 2
    assert "is of another model: give another folder, or remove it" in shown.stderr
    for damage in (b"", b"\x93NUMPY", (index / "texts.npy").read_bytes()[:-16]):
        (index / "texts.npy").write_bytes(damage)
        shown = run_inside(search.main, tiny_folder, corpus, "a dog")
        assert (shown.returncode, "is damaged" in shown.stderr) == (2, True)
    (index / "index.json").write_text("[1]")
    assert "holds no index, or a damaged one" in run_inside(search.main, tiny_folder, corpus, "a dog").stderr


def test_queries_that_are_typed(tiny_folder, corpus, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a dog\nthe city\n"))
    shown = run_inside(search.main, tiny_folder, corpus, "--top", 2)
    assert shown.returncode == 0
    assert len(shown.stdout.replace("> ", "").splitlines()) == 4
    assert "  1  " in shown.stdout
    assert "the query was cut" not in shown.stderr
    assert "the query was cut at" in run_inside(search.main, tiny_folder, corpus, "dog " * 5000).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["corpus.csv", " "], "the query is empty"),
        (["corpus.csv", "x", "--top", 0], "--top 0"),
        (["corpus.csv", "x", "--queries", "queries.csv"], "not both"),
        (["corpus.csv", "x", "-o", "found.csv"], "-o goes with --queries"),
        (["corpus.csv", "--queries", "queries.csv", "-o", "corpus.csv"], "would replace a file that is read"),
        (["corpus.csv", "x", "--index", "corpus.csv"], "should be a folder"),
        (["absent.csv", "x"], "absent.csv"),
        (["one.csv", "x"], "no rows"),
    ],
)
def test_bad_usage_is_one_message(tiny_folder, corpus, queries, tmp_path, words, said):
    write_pairs(tmp_path / "one.csv", [], ("id", "text"))
    shown = run_inside(search.main, tiny_folder, *words, cwd=tmp_path)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr
