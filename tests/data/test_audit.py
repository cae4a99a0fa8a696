"""The audit's findings are exact on constructed files, and the public files show what is known of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from connection.data.audit import audit, missing_codes, not_labels
from connection.data.labels import find_scale
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.data.prepare import prepare
from connection.data.text_hashes import pair_keys, plain
from connection.system.errors import InputError
from ConnectionBert import ConnectionBert
from tests.conftest import ROOT, run_command, run_inside, write_pairs
from tools import check

CLEAN = [
    (f"the man sees {word}", f"a dog rides {word}", score)
    for word, score in zip("bcdefgh", (0, 1, 2, 3, 4, 5, 2.5), strict=True)
]


@pytest.fixture
def tokenizer(tiny_folder):
    return ConnectionBert.load(tiny_folder).tokenizer


@pytest.fixture
def findings_of(tokenizer, tmp_path):
    """{(finding, file stem): lines} of a training file and perhaps held-out ones; label scale 0 to 5."""

    def findings(train, **held_out):
        files = {part: str(write_pairs(tmp_path / f"{part}.csv", rows)) for part, rows in {"train": train, **held_out}.items()}
        prepared = prepare(files, tokenizer, 16, "", (0, 5), tmp_path / "cache", progress=False)
        return {(finding.name, finding.file.split("/")[-1].split(".")[0]): finding for finding in prepared.findings}

    return findings


def lines(findings):
    return {key: (finding.count, finding.lines) for key, finding in findings.items()}


def test_a_clean_file_has_no_findings(findings_of):
    assert findings_of(CLEAN) == {}


def test_duplicates_swapped_duplicates_and_contradictions(findings_of):
    rows = [
        *CLEAN,  # lines 2 to 8
        ("The Man  sees B", "a dog rides b", 0),  # 9: line 2 but for case and spaces
        ("a dog rides c", "the man sees c", 1.5),  # 10: line 3 swapped
        ("the man sees h", "a dog rides h", 5),  # 11: line 8, half the scale apart and no more: no contradiction
        ("the man sees d", "a dog rides d", 4.6),  # 12: line 4, labelled 2 there
    ]
    found = findings_of(rows)
    assert lines(found) == {
        ("contradiction", "train"): (2, [4, 12]),
        ("duplicate", "train"): (3, [9, 11, 12]),
        ("swapped-duplicate", "train"): (1, [10]),
    }
    assert "line 4: 2, line 12: 4.6" in found["contradiction", "train"].example


def test_a_pair_of_training_in_dev_or_test(findings_of):
    dev = [("a cat", "a horse", 1), ("a dog rides e", "THE man sees e", 2), ("a cat", "a book", 4)]
    test = [("the man sees f", "a book", 3), ("a red cat", "a blue cat", 1)]
    found = findings_of(CLEAN, dev=dev, test=test)
    assert lines(found) == {
        ("leaked-pair", "dev"): (1, [3]),
        ("shared-sentence", "test"): (1, [2]),
        ("dev-test-sentence", "test"): (1, [2]),  # "a book"
    }
    assert "line 3 is line 5 of" in found["leaked-pair", "dev"].example


OTHER_SPELLINGS = {
    "zero-width space": lambda text: text.replace("o", "o\u200b"),
    "soft hyphen": lambda text: text.replace("a", "\u00ada"),
    "direction mark": lambda text: "\u200f" + text,
    "word joiner": lambda text: text.replace(" ", " \u2060"),
    "control character": lambda text: text.replace("e", "e\x01"),
    "space before the full stop": lambda text: text.replace(".", " ."),
    "words after the cut": lambda text: text + " big big",
}


@pytest.mark.parametrize("spelling", OTHER_SPELLINGS)
def test_a_leak_by_another_spelling_of_the_same_tokens_is_found(findings_of, spelling):
    """Fourteen words fill the maximum length of 16 tokens with [CLS] and [SEP]."""
    words = "the man sees a red book in a big park in night. on day".split()
    train = [(" ".join(words), f"a dog rides {letter}", number % 6) for number, letter in enumerate("bcdefgh")]
    test = [(OTHER_SPELLINGS[spelling](one), two, label) for one, two, label in train]
    found = findings_of(train, test=test)
    assert lines(found)["leaked-pair", "test"] == (7, [2, 3, 4, 5, 6, 7, 8])
    assert "line 2 is line 2 of" in found["leaked-pair", "test"].example
    both = findings_of(train + [(two, OTHER_SPELLINGS[spelling](one), label) for one, two, label in train])
    assert both["swapped-duplicate", "train"].count == 7


def test_texts_of_unknown_words_are_not_taken_for_the_same(findings_of):
    train = [("안녕 하세요", "a dog rides b", 1), ("the man sees c", "a dog rides c", 4)]
    assert ("leaked-pair", "test") not in findings_of(train, test=[("감사 합니다", "a dog rides b", 2), ("b", "c", 1)])


def test_a_pair_of_dev_in_test_is_a_warning_of_its_own(findings_of):
    dev = [("a cat", "a horse", 1), ("a red cat", "a book", 4)]
    test = [("a blue cat", "a dog", 0), ("A  horse", "a cat", 3), ("a red cat", "a man", 2)]
    found = findings_of(CLEAN, dev=dev, test=test)
    assert lines(found) == {("dev-test-pair", "test"): (1, [3]), ("dev-test-sentence", "test"): (1, [4])}
    assert {finding.severity for finding in found.values()} == {"warning"}
    assert "line 3 is line 2 of" in found["dev-test-pair", "test"].example
    assert found["dev-test-pair", "test"].example.endswith("dev.csv")


def test_words_for_a_missing_text(findings_of):
    rows = [*CLEAN, ("nan", "a dog", 1), ("a cat", "#N/A", 2), ("NULL", "None", 3), ("a dog", "not a cat", 2)]
    found = findings_of(rows)
    found.pop(("unknown-text", "train"), None)  # they are no words of the small vocabulary
    assert lines(found) == {("null-word", "train"): (3, [9, 10, 11])}


def test_texts_are_compared_in_their_plain_form():
    assert plain("  A\u0301b \t C\n") == plain("\u00c1B c") == "\u00e1b c"
    assert plain("Stra\u00dfe") == plain("STRASSE")
    assert plain("a b") != plain("ab")
    one, two = np.array([1, 2, 3], np.uint64), np.array([2, 1, 3], np.uint64)
    keys = pair_keys(one, two)
    assert keys[0] == keys[1] != keys[2]


def test_bad_rows_labels_and_lengths(findings_of):
    rows = [
        *CLEAN,
        ("", "a", 1),
        ("a", "b", "nan"),
        ("a", "b", 7),
        ("a", "b", "high"),
        ("a dog", "a dog", 1),
        ("a b " * 20, "a", 3),
    ]
    found = lines(findings_of(rows, dev=[("x", "y", 2), ("y", "z", 2)]))
    assert found == {
        ("blank-text", "train"): (1, [9]),
        ("bad-label", "train"): (3, [10, 11, 12]),
        ("identical-sides", "train"): (1, [13]),
        ("cut-sentences", "train"): (1, [14]),
        ("few-labels", "dev"): (0, []),
        ("one-label", "dev"): (0, []),
    }


def test_one_label_for_most_pairs_and_drift(findings_of):
    train = [(f"the man {n}", f"a dog {n}", 5 if n < 40 else n % 5) for n in range(60)]
    dev = [(f"a cat {n}", f"a horse {n}", n % 2) for n in range(60)]
    found = findings_of(train, dev=dev)
    assert {name for name, _ in found} - {"unknown-text"} == {
        "one-label",
        "label-drift",
    }  # numbers are no words of the vocabulary
    assert "67% of the labels are 5" in found["one-label", "train"].example


def test_korean_through_an_english_vocabulary_is_caught_and_the_leaks_of_stsb(minilm, public_data):
    tokenizer = ConnectionBert.load(minilm).tokenizer
    for name, expected in (("korsts/sts-{}.tsv", True), ("stsb/stsb-en-{}.csv", False)):
        stores = {}
        for part in ("train", "test"):
            file = PairFile.open(public_data / name.format(part))
            stores[part] = load_pairs(file, tokenizer, 128, -math.inf, math.inf, public_data, False)
        found = {
            (finding.name, finding.file.endswith(name.format("train"))): finding
            for finding in audit(stores, find_scale(None, None, [0, 5]))
        }
        assert (("unknown-text", True) in found) == expected
        leaks = found["leaked-pair", False]
        keys = [{frozenset(map(plain, pair)) for pair in _texts(public_data / name.format(part))} for part in ("train", "test")]
        rows = [frozenset(map(plain, pair)) for pair in _texts(public_data / name.format("test"))]
        assert leaks.count == sum(row in keys[0] for row in rows)


def _texts(path):
    for chunk in PairFile.open(path).chunks():
        yield from zip(chunk.sentence1, chunk.sentence2, strict=True)


def test_check_command(minilm, tmp_path):
    rows = [*CLEAN, ("a man", "a dog", 9)]
    good, bad = write_pairs(tmp_path / "good.csv", CLEAN), write_pairs(tmp_path / "bad.csv", rows)
    scale = ["--model-dir", minilm, "--label-min", 0, "--label-max", 5]
    shown = run_command("-m", "tools.check", good, *scale, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    assert "sentence1 = 'sentence1', sentence2 = 'sentence2', label = 'score' (by name)" in shown.stdout
    assert "line 4: 'the man sees d' | 'a dog rides d' | '2'" in shown.stdout
    shown = run_inside(check.main, bad, *scale, "--json")
    assert shown.returncode == 2
    assert [(f["name"], f["lines"]) for f in json.loads(shown.stdout)["findings"]] == [("bad-label", [9])]
    for flags in (["--on-bad-rows", "skip"], ["--allow", "bad-label"]):
        assert run_inside(check.main, bad, *scale, *flags).returncode == 0
    fine = ["--label-min", "-1e3", "--label-max", "1e3", "--allow", "leaked-pair, contradiction"]
    assert run_inside(check.main, good, "--model-dir", minilm, *fine).returncode == 0
    for flags, why in (
        (["--label-min", "nan"], "'nan' is not a finite number"),
        (["--label-max", "1e300"], "1e+300 is above the largest value"),
        (["--label-min", "5", "--label-max", "5"], "5 is --label-max too"),
        (["--max-length", "2"], "2 is below the smallest value, 3"),
        (["--max-length", "many"], "'many' is not a whole number"),
        (["--allow", "leaked-pairs"], "leaked-pairs is no finding"),
    ):
        shown = run_inside(check.main, good, "--model-dir", minilm, *flags)
        assert (shown.returncode, shown.stdout) == (2, "")
        assert why in shown.stderr
    shown = run_inside(check.main, tmp_path / "absent.csv", "--model-dir", minilm)
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr


def test_findings_of_a_cached_store_are_found_once(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("connection.data.pair_store.SMALL_FILE", 0)
    file = str(write_pairs(tmp_path / "p.csv", [*CLEAN, CLEAN[0], ("a dog", "A Dog", 0)]))
    runs = [prepare({"train": file}, tokenizer, 16, "", (0, 5), tmp_path / "cache", progress=False).findings for _ in range(2)]
    assert runs[0] == runs[1]
    assert [(finding.name, finding.lines) for finding in runs[0]] == [("duplicate", [9]), ("identical-sides", [10])]
    monkeypatch.setattr("connection.data.audit._look_within", lambda *words: pytest.fail("looked again"))
    prepare({"train": file}, tokenizer, 16, "", (0, 5), tmp_path / "cache", progress=False)


def test_a_file_of_bad_rows_alone_is_an_error_even_when_they_are_skipped(tokenizer, tmp_path):
    file = str(write_pairs(tmp_path / "p.csv", [("", "a", 1), ("", "b", 2)]))
    prepared = prepare({"train": file}, tokenizer, 16, "", (0, 5), tmp_path, progress=False)
    assert [finding.name for finding in prepared.blocking("skip", "no-rows")] == ["no-rows"]


def test_declared_columns_that_a_dev_file_does_not_have(tokenizer, tmp_path):
    train = write_pairs(tmp_path / "train.csv", CLEAN, header=("one", "two", "value"))
    dev = write_pairs(tmp_path / "dev.csv", [("a cat", "a horse", 1), ("a red cat", "a book", 4)])
    files = {"train": str(train), "dev": str(dev)}
    prepared = prepare(files, tokenizer, 16, "sentence1=one,sentence2=two,label=value", (0, 5), tmp_path, progress=False)
    assert len(prepared.stores["dev"]) == 2
    with pytest.raises(InputError, match="sentence1=one: no column of that name"):
        prepare({"train": str(dev)}, tokenizer, 16, "sentence1=one,sentence2=two,label=value", (0, 5), tmp_path, progress=False)


def test_labels_that_were_seen_and_an_end_that_was_not(tokenizer, tmp_path):
    file = str(write_pairs(tmp_path / "p.csv", CLEAN[:5]))
    prepared = prepare({"train": file}, tokenizer, 16, "", (None, None), tmp_path, progress=False)
    assert "5 pairs, labels 0 to 4" in prepared.understood[0]
    file = str(write_pairs(tmp_path / "q.csv", CLEAN[1:5]))
    prepared = prepare({"train": file}, tokenizer, 16, "", (0, None), tmp_path, progress=False)
    assert prepared.understood[-1].startswith("note: no training label is 0 or 5, an end of the scale")


@pytest.mark.parametrize("name", ["loop.csv", "a" * 300 + ".csv", "bad\udcff.csv"])
def test_names_that_cannot_be_opened(tiny_folder, tmp_path, name):
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    shown = run_inside(check.main, tmp_path / name, "--model-dir", tiny_folder)
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr


def test_output_in_an_encoding_that_cannot_hold_the_text(tiny_folder, tmp_path):
    file = write_pairs(tmp_path / "p.csv", [("고양이", "개", 0), ("a", "b", 5), ("남자", "여자", 3)])
    shown = run_inside(check.main, file, "--model-dir", tiny_folder, encoding="cp1252")
    assert (shown.returncode, shown.stderr.count("Traceback")) == (0, 0)
    assert "\\uace0" in shown.stdout


def test_rows_that_an_open_quote_swallows(tokenizer, tmp_path):
    rows = [f"the man sees {word},a dog rides {word},{n}" for n, word in enumerate("abcdef")]
    rows[2] = '"the man sees,a dog rides c,2'
    rows[5] = 'a dog rides f",a dog,5'
    good = ['"a cat\nand, too, a horse\n sees",a book,1']  # one line like a row is no sign
    path = tmp_path / "p.csv"
    path.write_text("\n".join(["sentence1,sentence2,score", *rows, *good, "a cat,a horse,0", ""]))
    found = prepare({"train": str(path)}, tokenizer, 64, "", (0, 5), tmp_path, progress=False).findings
    assert [(row.count, row.lines) for row in found if row.name == "swallowed-rows"] == [(1, [4])]


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        ([1, 2, 5, -999], [-999]), ([0, 1, 9], [9]), ([0, 0.5, 1, 99, -9], [-9, 99]), ([0, 5, 88], [88]), ([1, 5, 9], []),
        ([0, 99], []), ([0, 50, 99], []), ([0, 1, 2, 98], []), ([0, 1, 9.9], []), ([1, 99], []),
        ([-1, 0, 1, 2], [-1]), ([-1, 0, 3, 99], [-1, 99]), ([-1, 0, 1], []), ([-1, -0.5, 0, 2], []), ([-2, -1, 0, 1, 2], []),
    ],
)  # fmt: skip
def test_codes_of_missing_labels(labels, codes):
    assert missing_codes(sorted(map(float, labels))) == codes


@pytest.mark.parametrize(
    ("labels", "ends", "why"),
    [
        ([20230101, 20230102, 20230131], (), "can't be told apart in float32"), ([1700000000, 1700000060], (), "told apart"),
        ([202301, 202312], (), "look like dates"), ([20230101, 20250101], (), "look like dates"), ([202301, 202313], (), ""),
        ([202301, 202312], (202301, 202312), ""), ([16777217, 16777220], (0, 20000000), ""), ([0, 1e9], (), ""),
        ([20230101, 20230103], (20230101, 20230103), "told apart"), ([0, 5], (), ""),
    ],
)  # fmt: skip
def test_dates_and_identifiers_are_no_labels(labels, ends: tuple[float, ...], why):
    labels = list(map(float, labels))
    said = not_labels(labels, find_scale(ends[0] if ends else None, ends[1] if ends else None, labels))
    assert bool(said) == bool(why)
    assert why in said


def test_labels_of_dates_block_training(tmp_path, tiny_folder):
    pairs = [(f"a dog {number}", f"a man {number}", 20230101 + number % 3) for number in range(12)]
    said = run_inside(check.main, str(write_pairs(tmp_path / "p.csv", pairs)), "--model-dir", str(tiny_folder))
    assert (said.returncode, "no-scale" in said.stdout) == (2, True)


def test_a_code_of_a_missing_label_blocks_and_its_way_out_works(tmp_path, tiny_folder):
    pairs = [(f"a dog {number}", f"a man {number}", label) for number, label in enumerate([0, 1, 2, 3, 4, 5, -999] * 3)]
    file = write_pairs(tmp_path / "p.csv", pairs)
    words = [str(file), "--model-dir", str(tiny_folder), "--cache-dir", str(tmp_path), "--on-bad-rows", "skip"]
    said = run_inside(check.main, *words)
    assert said.returncode == 2
    assert "missing-code" in said.stdout
    assert "(lines 8, 15, 22)" in said.stdout
    flags = said.stdout.partition("if the scale is 0 to 5: ")[2].split()[:4]
    again = run_inside(check.main, *words, *flags)
    assert (again.returncode, "18 pairs, labels 0 to 5" in again.stdout) == (0, True), again.stdout


@pytest.mark.parametrize(
    ("bad", "said"), [(1, ""), (2, "note: 2 of 20 rows (10%) are bad rows, which --on-bad-rows skip leaves out")]
)
def test_more_than_a_few_bad_rows_are_said(tokenizer, tmp_path, bad, said):
    rows = [(f"a dog {number}", f"a man {number}", "?" if number < bad else number % 6) for number in range(20)]
    prepared = prepare({"train": str(write_pairs(tmp_path / "p.csv", rows))}, tokenizer, 16, "", (0, 5), tmp_path, False)
    assert ("bad rows, which" in str(prepared)) == bool(said)
    assert said in str(prepared)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_one_label_that_bad_rows_leave_is_refused(tokenizer, tmp_path, bad):
    """Merged cells, or blank ones for no: the rows with a label are all of one."""
    rows = [(f"a dog {number}", f"a man {number}", "" if number < bad else 1) for number in range(20)]
    prepared = prepare({"train": str(write_pairs(tmp_path / "p.csv", rows))}, tokenizer, 16, "", (None, None), tmp_path, False)
    blocking = [finding.name for finding in prepared.blocking("skip", "")]
    assert blocking == ["one-label-left"] * (bad > 1)  # one of 20 is not more than 5%
    if bad > 1:
        with pytest.raises(InputError, match="--allow them by name: one-label-left"):
            prepared.require("skip", "")


def test_the_vocabulary_is_judged_by_sentences_and_not_by_identifiers(tokenizer, tmp_path):
    """An identifier is cut into many pieces in any language."""

    def found(two):
        rows = [(f"the man sees {letter}", two(number), number % 6) for number, letter in enumerate("bcdefghi")]
        declared = "sentence1=sentence1,sentence2=sentence2,label=score"
        prepared = prepare(
            {"train": str(write_pairs(tmp_path / "p.csv", rows))}, tokenizer, 32, declared, (0, 5), tmp_path, False
        )
        return "unknown-text" in {finding.name for finding in prepared.findings}

    assert not found(lambda number: f"b.c.d.e.f.g.h.{'bcdefghi'[number]}")
    assert found(lambda number: f"b.c.d.e.f.g b.c.d.e.f.g.{'bcdefghi'[number]}")
