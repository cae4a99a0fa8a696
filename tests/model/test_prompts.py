"""Prompts of first and of second sentences: read, trained with, saved, used by every command as sentence-transformers does."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

import bertFineTuningWithConnectionData as driver
from connection.data import pair_store
from connection.data.audit import audit
from connection.data.findings import findings_json
from connection.data.labels import LabelScale
from connection.data.pair_file import PairFile
from connection.data.pair_store import PairStore, load_pairs
from connection.data.prompts import side_prompts
from connection.evaluation.retrieval import search_answers
from connection.evaluation.similarity import remembered_cosines
from connection.evaluation.slices import token_overlap
from connection.search.explanation import explain
from ConnectionBert import ConnectionBert, load_tokenizer
from ConnectionDataset import ConnectionDataset
from tests.conftest import MANY, PAIRS, run_inside, training_words, write_pairs
from tests.model.test_architectures import write_encoder
from tests.model.test_bert import refused
from tools import encode, evaluate, link, mine, score, search, suggest

FIRST, SECOND = "the man sees ", "not in the city. "
FILE, POOLING = "config_sentence_transformers.json", "1_Pooling/config.json"
ONES, TWOS = [pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS]
SCALE = LabelScale(0, 5, "graded", "")
# Texts on both sides, a pair in both orders, a pair twice with other labels, two equal sides, texts that give equal tokens.
BOTH_SIDES = [
    ("a dog", "the cat", 5), ("the cat", "a dog", 4), ("a dog", "a big horse", 1), ("a big horse", "a big horse", 0),
    ("a book", "the park", 5), ("a book", "the park", 0), ("A  Dog", "the Cat", 5), ("\u200ba dog", "the city", 2),
]  # fmt: skip


@pytest.fixture
def peer(tiny_folder, tmp_path) -> Path:
    """A folder as sentence-transformers saves it, with a prompt for each side."""
    SentenceTransformer(modules=[Transformer(str(tiny_folder)), Pooling(32)], device="cpu").save(str(tmp_path / "peer"))
    return with_prompts(tmp_path / "peer", {"query": FIRST, "document": SECOND})


def with_prompts(folder: Path, prompts: dict[str, Any], default: str | None = None, include: bool = True) -> Path:
    (folder / FILE).write_text(json.dumps({"prompts": prompts, "default_prompt_name": default}))
    pooling = json.loads((folder / POOLING).read_text())
    (folder / POOLING).write_text(json.dumps(pooling | {"include_prompt": include}))
    return folder


def sides_of(folder: Path, ones=ONES, twos=TWOS) -> tuple[np.ndarray, np.ndarray]:
    """Sentence-transformers' vectors of first and of second sentences."""
    library = SentenceTransformer(str(folder), device="cpu")
    return library.encode_query(ones), library.encode_document(twos)


def cosines_of(folder: Path, ones=ONES, twos=TWOS) -> np.ndarray:
    u, v = sides_of(folder, ones, twos)
    return (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)


def require_vectors(folder: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    model = ConnectionBert.load(folder)
    for side, texts in ((1, ONES), (2, TWOS)):
        vectors = model.encode(texts, progress=False, precision="fp32", side=side)
        assert np.allclose(vectors, expected[side - 1], atol=1e-5), side


def store_of(path: Path, tokenizer: Any, max_length: int = 32) -> PairStore:
    return load_pairs(PairFile.open(path), tokenizer, max_length, -math.inf, math.inf, path.parent / "cache", False)


# --- which prompts a folder has ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({}, "", ("", "")),
        ({"query": "q", "document": "d"}, "", ("q", "d")),
        ({"query": "q", "passage": "p"}, "", ("q", "p")),
        ({"query": "q", "document": "", "passage": "p", "corpus": "c"}, "", ("q", "p")),
        ({"query": "q", "corpus": "c"}, "", ("q", "c")),
        ({"query": "q"}, "", ("q", "")),
        ({"passage": "p"}, "", ("", "p")),
        ({"mine": "m"}, "", ("", "")),
        ({"mine": "m", "query": "q"}, "m", ("m", "m")),
        ({"query": "q", "document": "d"}, "q", ("q", "d")),
    ],
)
def test_prompts_by_their_names(prompts, default, expected):
    assert side_prompts(prompts, default) == expected


@pytest.mark.parametrize(
    ("prompts", "include"),
    [
        ({"query": FIRST, "document": SECOND}, True),
        ({"query": FIRST, "document": SECOND}, False),
        ({"query": FIRST}, False),
        ({"document": SECOND}, True),
        ({"query": "", "mine": FIRST}, False),
    ],
)
def test_vectors_of_each_side_are_those_of_encode_query_and_encode_document(peer, tmp_path, prompts, include):
    with_prompts(peer, prompts, include=include)
    expected = sides_of(peer)
    require_vectors(peer, expected)
    ConnectionBert.load(peer).save(tmp_path / "saved")
    require_vectors(tmp_path / "saved", expected)
    assert all(np.allclose(one, two, atol=1e-5) for one, two in zip(sides_of(tmp_path / "saved"), expected, strict=True))
    plain = SentenceTransformer(str(peer), device="cpu").encode(ONES)  # no side: no prompt, as the folder has no default
    assert np.allclose(ConnectionBert.load(peer).encode(ONES, progress=False, precision="fp32"), plain, atol=1e-5)


def test_a_passage_prompt_is_used_and_saved_under_the_name_that_the_library_takes(peer, tmp_path):
    """encode_document never gets to "passage": a model of that library has always a "document"."""
    with_prompts(peer, {"query": FIRST, "passage": SECOND})
    library = SentenceTransformer(str(peer), device="cpu")
    expected = library.encode_query(ONES), library.encode(TWOS, prompt=SECOND)
    require_vectors(peer, expected)
    model = ConnectionBert.load(peer)
    model.save(tmp_path / "saved")
    assert np.allclose(sides_of(tmp_path / "saved")[1], expected[1], atol=1e-5)
    assert f"{FIRST!r} stands before each first sentence of a pair, and {SECOND!r} stands before each second" in model.notes[0]


def test_similarity_has_a_side_for_each_list_and_encode_knows_two(peer):
    model = ConnectionBert.load(peer)
    assert np.allclose(model.similarity(ONES, TWOS), cosines_of(peer), atol=1e-5)
    assert model.similarity(["a dog"], ["a dog"])[0] < 0.999
    with pytest.raises(ValueError, match="side is 3"):
        model.encode(ONES, side=3)


@pytest.mark.parametrize(
    ("given", "default"),
    [(("", ""), "mine"), (("a ", None), None), ((None, "a "), "mine"), (("a ", "a "), None), (("", "a "), None)],
)
def test_prompts_that_are_given_replace_the_folders_and_are_read_back(peer, tmp_path, given, default):
    with_prompts(peer, {"query": FIRST, "passage": SECOND, "mine": "red "}, default)
    model = ConnectionBert.load(peer, prompts=given)
    expected = tuple(own if asked is None else asked for asked, own in zip(given, (FIRST, SECOND), strict=True))
    assert model.prompts[1:] == expected
    model.save(tmp_path / "saved")
    assert ConnectionBert.load(tmp_path / "saved").prompts == model.prompts
    library = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert (library.prompts["query"], library.prompts["document"]) == expected
    assert library.prompts["mine"] == "red "
    assert library.default_prompt_name == ("query" if expected[0] == expected[1] != "" else None)
    require_vectors(tmp_path / "saved", sides_of(tmp_path / "saved"))


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta"])
@pytest.mark.parametrize("include", [True, False])
def test_other_tokenizers_join_prompt_and_text_as_the_library_does(tmp_path, kind, include):
    """Their pieces reach over white space: a text behind a prompt may begin with other pieces than alone."""
    folder = write_encoder(tmp_path / "tiny", kind)
    ConnectionBert.load(folder).save(tmp_path / "saved")
    with_prompts(tmp_path / "saved", {"query": "the man: ", "document": "a big red"}, include=include)
    require_vectors(tmp_path / "saved", sides_of(tmp_path / "saved"))


# --- odd prompts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt", [" ", "\n\t", "a\nb: \x00\x07\u200b", "\U0001f600 é \u202e", "[SEP] a [MASK]", "dog " * 40, "é" * 10_000]
)
def test_odd_prompts_are_those_of_the_library(peer, prompt):
    with_prompts(peer, {"query": prompt, "document": SECOND})
    require_vectors(peer, sides_of(peer))


@pytest.mark.parametrize(
    ("prompt", "why"),
    [("x" * 10_001, "10,001 characters"), ("a \udcff", "not UTF-8"), ("a" + "\u0301" * 600, "combining marks")],
)
def test_prompts_that_can_not_stand_before_a_text_are_refused(peer, pair_file, tmp_path, prompt, why):
    with_prompts(peer, {"query": prompt})
    message = refused(peer)
    assert FILE in message
    assert why in message
    shown = run_inside(driver.main, *training_words(peer, pair_file, tmp_path / "run"), f"--prompt2={prompt}")
    assert shown.returncode == 2
    assert f"--prompt2: a prompt {'of' if prompt[0] == 'x' else 'with'} " in shown.stderr
    assert why in shown.stderr


def test_a_prompt_without_room_for_a_text_is_refused_with_a_way_out(peer, pair_file, tmp_path):
    words = training_words(peer, pair_file, tmp_path / "run")
    shown = run_inside(driver.main, *words, "--prompt2", "dog " * 40)
    assert (shown.returncode, shown.stdout.count("epoch")) == (2, 0)
    assert "fills the maximum length of 32 tokens" in shown.stderr
    assert "--max-length) above 43, or shorter prompts (--prompt1, --prompt2)" in shown.stderr
    assert not (tmp_path / "run").exists()


# --- pair files ---------------------------------------------------------------------------------------------------------------


def test_a_text_on_both_sides_is_one_text_with_two_sequences_of_tokens(peer, tmp_path, monkeypatch):
    path = write_pairs(tmp_path / "p.csv", BOTH_SIDES)
    tokenizer, plain = load_tokenizer(peer), load_tokenizer(peer)
    plain.prompts = ("", "")
    for limit in (1 << 30, 0):  # in memory, and mapped from the cache
        monkeypatch.setattr(pair_store, "SMALL_FILE", limit)
        store, unprompted = store_of(path, tokenizer), store_of(path, plain)
        assert (store.folder is not None) == (limit == 0)
        for name in ("index1", "index2", "hash", "words"):  # the numbers, and what the objectives and the audit go by
            assert np.array_equal(getattr(store, name), getattr(unprompted, name)), name
        data = ConnectionDataset(store, SCALE, 0)
        numbers = data.sentences(np.arange(len(BOTH_SIDES)))
        assert numbers[0, 0] == numbers[1, 1]
        library = SentenceTransformer(str(peer), device="cpu")
        for row, (one, two, _) in enumerate(BOTH_SIDES):
            item = data[row]
            for tokens, text, prompt in ((item.tokens1, one, FIRST), (item.tokens2, two, SECOND)):
                assert tokens.tolist() == library.preprocess([text], prompt=prompt)["input_ids"][0].tolist()
        found, expected = (
            {row["name"]: row["lines"] for row in findings_json(audit({"train": part}, SCALE))} for part in (store, unprompted)
        )
        assert found == expected
        places = store.index1, store.index2
        assert np.array_equal(token_overlap(store, *places), token_overlap(unprompted, *places))
        assert store.prompt_tokens == len(FIRST.split())
        assert {"duplicate", "swapped-duplicate", "contradiction", "identical-sides"} <= set(found)


def test_a_pair_that_leaks_by_its_tokens_alone_is_found_under_two_prompts(peer, tmp_path):
    """Texts that differ in characters which the tokenizer drops: they are the same for the model."""
    tokenizer = load_tokenizer(peer)
    train = store_of(write_pairs(tmp_path / "train.csv", PAIRS), tokenizer)
    test = store_of(write_pairs(tmp_path / "test.csv", [(f"\u200b{ONES[2]}", f"{TWOS[2]}\u200b", 0), *MANY[:20]]), tokenizer)
    leaks = [finding.lines for finding in audit({"train": train, "test": test}, SCALE) if finding.name == "leaked-pair"]
    assert leaks == [[2]]


def test_texts_that_only_the_longer_prompt_hides_from_the_model_stay_two_texts(peer, tmp_path):
    with_prompts(peer, {"query": "dog " * 10, "document": "cat "})
    rows = [("a man", "a big red book is in the park", 5), ("a man", "a big red book is in the city", 0)]
    store = store_of(write_pairs(tmp_path / "p.csv", rows), load_tokenizer(peer), max_length=14)
    first, second = (store.tokens[store.index2[row]].tolist() for row in (0, 1))
    assert first == second  # as first sentences
    assert store.tokens2[store.index2[0]].tolist() != store.tokens2[store.index2[1]].tolist()
    assert store.same[store.index2[0]] != store.same[store.index2[1]]


def test_cut_sentences_are_counted_with_the_prompt_of_their_side(peer, tmp_path):
    with_prompts(peer, {"query": "dog " * 10, "document": ""})
    rows = [("a man sees", "a man sees a dog", 1)] * 3 + [("a dog", "a cat " * 8, 2)]
    store = store_of(write_pairs(tmp_path / "p.csv", rows), load_tokenizer(peer), max_length=14)
    first, second = store.cut()
    assert (first.tolist(), second.tolist()) == ([True, True, True, False], [False, False, False, True])
    assert (store.cut_sentences, ConnectionDataset(store, SCALE, 0).cut_sentences) == (2, 4)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_a_training_pass_makes_the_librarys_vectors(peer, pair_file, include, packed):
    with_prompts(peer, {"query": FIRST, "document": SECOND}, include=include)
    model = ConnectionBert.load(peer)
    data = ConnectionDataset(store_of(pair_file, model.tokenizer), SCALE, model.tokenizer.pad_token_id)
    data.packed = packed
    model.prepare_training("fp32", packed, 0, dropout=0.0)
    model.train()
    vectors = model(data.collate([data[row] for row in range(len(data))]).tokens)
    for found, expected in zip(vectors, sides_of(peer), strict=True):
        assert np.allclose(found.detach(), expected, atol=1e-5)


def test_retrieval_asks_with_one_prompt_and_answers_with_the_other(peer, tmp_path):
    rows = [(one, two) for one, two, _ in MANY[:30]] + [("a dog", "a cat"), ("a cat", "a dog")]
    path = write_pairs(tmp_path / "p.csv", rows, ("query", "answer"))
    model = ConnectionBert.load(peer)
    found = search_answers(model, store_of(path, model.tokenizer), slice(None), np.ones(len(rows), bool), "")
    answers = sorted({two for _, two in rows})
    u, v = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides_of(peer, [one for one, _ in rows], answers))
    scores = u @ v.T
    for row, (one, two) in enumerate(rows):
        cosine = scores[row, answers.index(two)]
        assert found[row, 0] == pytest.approx(cosine, abs=1e-5)
        others = [column for column, text in enumerate(answers) if text not in (one, two) and (one, text) not in rows]
        right = [column for column, text in enumerate(answers) if (one, text) in rows and scores[row, column] > cosine + 1e-6]
        assert found[row, 1] == 1 + (scores[row, others] >= cosine - 1e-6).sum() + len(right)


def test_cosines_that_are_kept_are_those_of_the_second_prompt_too(peer, pair_file, tmp_path):
    for second in (SECOND, "a "):
        model = ConnectionBert.load(with_prompts(peer, {"query": FIRST, "document": second}))
        data: Any = SimpleNamespace(store=store_of(pair_file, model.tokenizer), places=slice(None))
        for _ in range(2):
            found = remembered_cosines(tmp_path / "kept", model, {"dev": data})["dev"]
            assert np.allclose(found, cosines_of(peer), atol=1e-5)
    assert len(list((tmp_path / "kept").iterdir())) == 2


# --- a run --------------------------------------------------------------------------------------------------------------------


def test_a_run_trains_measures_and_saves_with_both_prompts(peer, pair_file, tmp_path):
    with_prompts(peer, {}, include=False)
    words = training_words(peer, pair_file, tmp_path / "run", "--prompt1", FIRST, "--prompt2", SECOND)
    shown = run_inside(driver.main, *words, "--test-file", pair_file, "--log-steps", 1)
    assert shown.returncode == 0, shown.stderr
    assert "stands before each first sentence of a pair" in shown.stdout
    assert "--prompt1= --prompt2=" not in shown.stdout
    model = tmp_path / "run" / "model"
    require_vectors(model, sides_of(model))
    with open(tmp_path / "run" / "predictions.csv", encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    after = dict(zip((int(row["line"]) for row in rows), (float(row["final"]) for row in rows), strict=True))
    assert [after[line] for line in range(2, 10)] == pytest.approx(cosines_of(model), abs=1e-5)
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (settings["prompt1"], settings["prompt2"]) == (FIRST, SECOND)
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "model.encode_document(" in card
    refusal = run_inside(driver.main, *words, "--resume", "--prompt2", "a ")
    assert refusal.returncode == 2
    assert f"--prompt2: 'a ' now, {SECOND!r} in the run so far" in refusal.stderr


def test_one_prompt_for_both_sides_is_the_default_prompt_to_the_last_bit(peer, pair_file, tmp_path):
    def losses(name: str, *flags: str) -> list[Any]:
        words = training_words(peer, pair_file, tmp_path / name, "--loss", "multiple-negatives+cosine-mse", "--epochs", 1)
        shown = run_inside(driver.main, *words, "--log-steps", 1, *flags)
        assert shown.returncode == 0, shown.stderr
        assert ("to train without the folder's prompts: --prompt1= --prompt2=" in shown.stdout) == (name == "default")
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        return [(line["step"], line.get("loss"), line.get("spearman")) for line in lines]

    with_prompts(peer, {"mine": FIRST}, "mine")
    default = losses("default")
    with_prompts(peer, {"query": "red ", "document": "blue "})
    assert losses("given", f"--prompt1={FIRST}", f"--prompt2={FIRST}") == default
    none = losses("none", "--prompt1=", "--prompt2=")
    with_prompts(peer, {})
    assert losses("plain") == none != default
    assert not ConnectionBert.load(tmp_path / "none").encoding.sides[0]


# --- commands -----------------------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_commands_of_pairs_know_the_sides(peer, pair_file, tmp_path):
    expected = cosines_of(peer)
    shown = run_inside(score.main, peer, ONES[0], TWOS[0], "--json")
    assert json.loads(shown.stdout)["cosine"] == pytest.approx(expected[0], abs=1e-4)
    assert run_inside(score.main, peer, pair_file, "-o", tmp_path / "scored.csv").returncode == 0
    assert [float(row["cosine"]) for row in rows_of(tmp_path / "scored.csv")] == pytest.approx(expected, abs=1e-4)
    assert explain(ConnectionBert.load(peer), ONES[0], TWOS[0]).cosine == pytest.approx(expected[0], abs=1e-5)
    words = explain(
        ConnectionBert.load(with_prompts(peer, {"query": FIRST, "document": "not "}, include=False)), "a dog", "a cat"
    )
    assert (words.first, words.second) == (("a", "dog", "[SEP]"), ("a", "cat", "[SEP]"))
    assert words.cosine == pytest.approx(cosines_of(peer, ["a dog"], ["a cat"])[0], abs=1e-5)
    shown = run_inside(evaluate.main, peer, pair_file, "--json", tmp_path / "figures.json", "--cache-dir", tmp_path / "cache")
    assert shown.returncode == 0, shown.stderr
    pearson = np.corrcoef(cosines_of(peer), [pair[2] for pair in PAIRS])[0, 1]
    found = json.loads((tmp_path / "figures.json").read_text())["files"][0]["model"]["cosine"]
    assert found["pearson"] == pytest.approx(pearson, abs=1e-5)


def test_commands_of_lists_ask_with_the_first_prompt(peer, tmp_path):
    a, b = write_pairs(tmp_path / "a.csv", [(text,) for text in ONES], ("text",)), tmp_path / "b.csv"
    write_pairs(b, [(text,) for text in TWOS], ("text",))
    u, v = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides_of(peer))
    expected = {(one, two): value for one, row in zip(ONES, u @ v.T, strict=True) for two, value in zip(TWOS, row, strict=True)}

    assert run_inside(link.main, peer, a, b, "-o", tmp_path / "links.csv", "--top", 8).returncode == 0
    found = {(row["sentence1"], row["sentence2"]): float(row["cosine"]) for row in rows_of(tmp_path / "links.csv")}
    assert found == pytest.approx(expected, abs=1e-4)
    assert run_inside(link.main, peer, a, "-o", tmp_path / "same.csv", "--top", 8).returncode == 0  # one list: one side
    same = {(row["sentence1"], row["sentence2"]): float(row["cosine"]) for row in rows_of(tmp_path / "same.csv")}
    assert all(
        value == pytest.approx(float(u[ONES.index(one)] @ u[ONES.index(two)]), abs=1e-4) for (one, two), value in same.items()
    )
    shown = run_inside(search.main, peer, b, "--queries", a, "-o", tmp_path / "found.csv", "--top", 8)
    assert shown.returncode == 0, shown.stderr
    found = {(row["query text"], row["text"]): float(row["cosine"]) for row in rows_of(tmp_path / "found.csv")}
    assert found == pytest.approx(expected, abs=1e-4)
    assert run_inside(suggest.main, peer, a, b, "-o", tmp_path / "to-label.csv").returncode == 0
    for row in rows_of(tmp_path / "to-label.csv"):
        assert float(row["cosine"]) == pytest.approx(expected[row["sentence1"], row["sentence2"]], abs=1e-4)
    links = write_pairs(tmp_path / "links-known.csv", [(one, two, 1) for one, two in zip(ONES, TWOS, strict=True)])
    words = [links, "--model-dir", peer, "--as", "pairs", "--margin", 10, "-o", tmp_path / "mined.csv"]
    shown = run_inside(mine.main, *words)
    assert shown.returncode == 0, shown.stderr
    mined = rows_of(tmp_path / "mined.csv")
    assert {row["label"] for row in mined} == {"1.0", "0.0"}
    for row in mined:
        assert float(row["cosine"]) == pytest.approx(expected[row["sentence1"], row["sentence2"]], abs=1e-4)


def test_vectors_and_indexes_are_of_one_side(peer, tmp_path):
    listed = write_pairs(tmp_path / "list.csv", [(text,) for text in TWOS], ("text",))
    shown = run_inside(encode.main, peer, listed, "-o", tmp_path / "v.npy")
    assert shown.returncode == 2
    assert "say which of them the texts are, by --side 1 or --side 2" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    for side, expected in enumerate(sides_of(peer, TWOS), 1):
        shown = run_inside(encode.main, peer, listed, "-o", tmp_path / "v.npy", "--side", side, "--json")
        assert np.allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)
        assert json.loads(shown.stdout)["prompt"] == (FIRST, SECOND)[side - 1]
    assert run_inside(search.main, peer, listed, "a dog").returncode == 0
    with_prompts(peer, {"query": FIRST, "document": "not "})
    shown = run_inside(search.main, peer, listed, "a dog")
    assert shown.returncode == 2
    assert f"is of texts with the prompt {SECOND!r}, and the model has 'not ' before them" in shown.stderr
    with_prompts(peer, {"query": "red ", "document": SECOND})  # queries are not in it
    assert "0 encoded now" in run_inside(search.main, peer, listed, "a dog").stderr
    with_prompts(peer, {"query": SECOND, "document": SECOND})
    assert run_inside(encode.main, peer, listed, "-o", tmp_path / "v.npy").returncode == 0  # one prompt: no side to name
