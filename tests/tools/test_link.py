"""tools.link from two lists to its files: what is in them, the round trip through training, and what is refused."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import shutil

import numpy as np
import pytest

import bertFineTuningWithConnectionData as driver
from ConnectionBert import ConnectionBert
from tests.conftest import NOUNS, ROOT, run_inside, train_and_test, training_words, write_pairs
from tests.search.chromium import chromium, saved  # noqa: F401
from tools import link

A = [(f"R{row}", f"the {noun} plays", f"=note {row}") for row, noun in enumerate(NOUNS)]
B = [(f"T{row}", f"a {noun} is in the park at night") for row, noun in enumerate(NOUNS[::-1])]


@pytest.fixture
def lists(tmp_path):
    one = write_pairs(tmp_path / "reqs.csv", A, ("id", "text", "note"))
    return one, write_pairs(tmp_path / "tests.csv", B, ("id", "text"))


def read(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def cosines_of(folder, one, two):
    vectors = ConnectionBert.load(folder).encode([*one, *two], progress=False, precision="fp32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[: len(one)] @ vectors[len(one) :].T


def test_candidates_links_and_what_is_uncovered(tiny_folder, lists, tmp_path):
    cosines = cosines_of(tiny_folder, [row[1] for row in A], [row[1] for row in B])
    threshold = float(np.sort(cosines.max(1))[3]) - 1e-4  # 7 rows of A have a link
    words = ["--threshold", threshold, "--top", 2, "--json", tmp_path / "links.json", "--other-columns"]
    shown = run_inside(link.main, tiny_folder, *lists, "-o", tmp_path / "links.csv", *words)
    assert shown.returncode == 0, shown.stderr
    rows = read(tmp_path / "links.csv")
    assert list(rows[0]) == ["rank", "id1", "id2", "sentence1", "sentence2", "cosine", "connected", "A.note"]
    order = np.argsort(-cosines, axis=1)[:, :2]
    assert [(row["id1"], row["id2"]) for row in rows] == [(f"R{a}", f"T{b}") for a in range(10) for b in order[a]]
    assert [row["rank"] for row in rows] == ["1", "2"] * 10
    np.testing.assert_allclose([float(row["cosine"]) for row in rows], np.take_along_axis(cosines, order, 1).ravel(), atol=1e-4)
    connected = np.take_along_axis(cosines, order, 1) >= threshold
    assert [row["connected"] for row in rows] == ["yes" if yes else "no" for yes in connected.ravel()]
    assert rows[0]["sentence1"] == "the man plays"
    assert rows[0]["A.note"] == "'=note 0"  # no formula in a spreadsheet
    uncovered = read(tmp_path / "uncovered.csv")
    linked_b = {int(b) for b, yes in zip(order.ravel(), connected.ravel(), strict=True) if yes}
    assert [row["id"] for row in uncovered if row["list"] == "reqs.csv"] == [f"R{a}" for a in np.flatnonzero(~connected.any(1))]
    assert [row["id"] for row in uncovered if row["list"] == "tests.csv"] == [f"T{b}" for b in range(10) if b not in linked_b]
    last = uncovered[-1]
    b = int(last["id"][1:])
    assert last["id of the best"] == f"R{cosines[:, b].argmax()}"
    assert float(last["cosine of the best"]) == pytest.approx(cosines[:, b].max(), abs=1e-4)
    assert f"7 of 10 rows of reqs.csv have a link; {10 - 7} have none." in shown.stdout
    found = json.loads((tmp_path / "links.json").read_text())
    assert (found["candidates"], found["links"], found["a"]["linked"]) == (20, connected.sum(), 7)
    assert found["b"]["linked"] == len(linked_b)


def test_without_an_output_the_candidates_are_printed_and_the_rest_is_said_aside(tiny_folder, lists):
    shown = run_inside(link.main, tiny_folder, *lists, "--top", 1)
    rows = list(csv.DictReader(io.StringIO(shown.stdout)))
    assert [row["id1"] for row in rows] == [f"R{row}" for row in range(10)]
    assert {row["connected"] for row in rows} == {"yes"}
    assert "the best candidate of each row (the model has no threshold: give --threshold)" in shown.stderr
    assert "10 of 10 rows of reqs.csv have a link" in shown.stderr


def test_the_models_own_threshold_and_predicted_label_are_used_and_said(tiny_folder, lists, tmp_path):
    rows = [(f"the {one} sees", f"a {two} is red", int(one == two)) for one in NOUNS for two in NOUNS]
    train_and_test(tiny_folder, tmp_path / "run", rows, "--cache-dir", tmp_path / "cache")
    threshold = ConnectionBert.load(tmp_path / "run").calibration.threshold
    assert threshold is not None
    shown = run_inside(link.main, tmp_path / "run", *lists, "-o", tmp_path / "links.csv")
    assert f"cosine {threshold:.4f} or more (the model's own, fitted on dev pairs)" in shown.stdout
    for row in read(tmp_path / "links.csv"):
        assert (row["connected"] == "yes") == (float(row["cosine"]) >= threshold)
        assert 0 <= float(row["predicted"]) <= 1


def test_one_list_has_its_duplicates_each_pair_once(tiny_folder, tmp_path):
    rows = [(text,) for text in ["the dog plays", "a cat sees the city", "the dog plays", "night", "The dog  plays"]]
    file = write_pairs(tmp_path / "tickets.csv", rows, ("text",))
    shown = run_inside(link.main, tiny_folder, file, "-o", tmp_path / "same.csv", "--threshold", 0.9999)
    assert shown.returncode == 0, shown.stderr
    linked = [(row["line1"], row["line2"]) for row in read(tmp_path / "same.csv") if row["connected"] == "yes"]
    assert sorted(linked) == [("2", "4"), ("2", "6"), ("4", "6")]
    assert len(read(tmp_path / "same.csv")) == 10
    assert "3 of 5 rows of tickets.csv are linked to another one; 2 have none." in shown.stdout
    assert not (tmp_path / "uncovered.csv").exists()


def test_one_to_one_and_mutual_links(tiny_folder, lists, tmp_path):
    for rule in ("one-to-one", "mutual"):
        shown = run_inside(link.main, tiny_folder, *lists, "-o", tmp_path / f"{rule}.csv", f"--{rule}")
        assert shown.returncode == 0, shown.stderr
        linked = [(row["id1"], row["id2"]) for row in read(tmp_path / f"{rule}.csv") if row["connected"] == "yes"]
        assert len({one for one, _ in linked}) == len({two for _, two in linked}) == len(linked)
    assert len(read(tmp_path / "one-to-one.csv")) >= 50
    assert len(linked) < 10


def test_known_links_are_marked_left_out_or_measured(tiny_folder, lists, tmp_path):
    known = write_pairs(tmp_path / "known.csv", [("R0", "T9", 1), ("R1", "T0", 0), ("R7", "T77", 1)], ("a", "b", "label"))
    words = (tiny_folder, *lists, "-o", tmp_path / "links.csv", "--top", 10, "--known", known)
    shown = run_inside(link.main, *words)
    assert "1 links, 1 pairs that are none; 1 rows not used" in shown.stdout
    assert "known.csv, line 4: 'R7' and 'T77': not in the lists" in shown.stdout
    marks = {(row["id1"], row["id2"]): row["known"] for row in read(tmp_path / "links.csv") if row["known"]}
    assert marks == {("R0", "T9"): "yes", ("R1", "T0"): "no"}
    run_inside(link.main, *words, "--threshold", 1)  # nothing is found; a known link is one all the same
    assert len(read(tmp_path / "uncovered.csv")) == 18
    assert not {"R0", "T9"} & {row["id"] for row in read(tmp_path / "uncovered.csv")}
    run_inside(link.main, *words, "--threshold", 1, "--known-as", "evaluate")
    assert len(read(tmp_path / "uncovered.csv")) == 20
    assert run_inside(link.main, *words, "--known-as", "exclude").returncode == 0
    assert len(read(tmp_path / "links.csv")) == 98
    shown = run_inside(link.main, *words, "--known-as", "evaluate", "--json", tmp_path / "links.json")
    figures = json.loads((tmp_path / "links.json").read_text())["figures"]
    cosines = cosines_of(tiny_folder, [row[1] for row in A], [row[1] for row in B])
    assert figures["mrr@10"] == pytest.approx(1 / (1 + (cosines[0] > cosines[0, 9]).sum()))
    assert figures["rows"] == 2
    assert "Against 1 known links of 2 rows" in shown.stdout


PARTNER = dict(zip(NOUNS[:5], NOUNS[5:], strict=True))  # no shared word: only training can tell


@pytest.fixture
def partners(tmp_path):
    """Two lists, and the decisions on all their pairs as the page saves them."""
    lists = [
        write_pairs(tmp_path / "one.csv", [(f"the {noun} plays",) for noun in PARTNER], ("text",)),
        write_pairs(tmp_path / "two.csv", [(f"a {noun} is red",) for noun in PARTNER.values()], ("text",)),
    ]

    def decisions(folder):
        words = [*lists, "-o", tmp_path / "links.csv", "--html", tmp_path / "review.html", "--top", 5]
        assert f"{tmp_path / 'review.html'}: a page" in run_inside(link.main, folder, *words).stdout
        return [(row["sentence1"], row["sentence2"], int(PARTNER[row["sentence1"].split()[1]] == row["sentence2"].split()[1]),
                 row["line1"], row["line2"]) for row in read(tmp_path / "links.csv")]  # fmt: skip

    return lists, decisions


def test_in_chromium_decisions_are_saved_as_the_training_takes_them(tiny_folder, partners, tmp_path, chromium):  # noqa: F811
    decisions = partners[1](tiny_folder)
    chromium.open(tmp_path / "review.html")
    chromium.press(*("a" if label else "r" for _, _, label, _, _ in decisions))
    with open(saved(chromium, tmp_path / "review.html"), encoding="utf-8-sig", newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == ["sentence1", "sentence2", "label", "id1", "id2"]
    assert [tuple(row) for row in found[1:]] == [(*row[:2], str(row[2]), *row[3:]) for row in decisions]


def test_decisions_train_a_model_that_links_better(tiny_folder, partners, tmp_path):
    """The round trip: candidates, decisions, training, links."""
    lists, decisions = partners[0], partners[1](tiny_folder)
    file = write_pairs(tmp_path / "decisions.csv", decisions, ("sentence1", "sentence2", "label", "id1", "id2"))
    shown = run_inside(driver.main, *training_words(tiny_folder, file, tmp_path / "run", "--epochs", 8))
    assert shown.returncode == 0, shown.stderr
    figures = []
    for model in (tiny_folder, tmp_path / "run"):
        more = ("--known", file, "--known-as", "evaluate", "--json", tmp_path / "links.json")
        assert run_inside(link.main, model, *lists, *more).returncode == 0
        figures.append(json.loads((tmp_path / "links.json").read_text())["figures"])
    before, after = figures
    assert before["known"] == after["known"] == 5
    assert after["mrr@10"] > before["mrr@10"] + 0.3
    assert after["best_f1"] > before["best_f1"] + 0.1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--top", 0], "--top 0: give 1 or more"),
        (["--threshold", "nan"], "a cosine is from -1 to 1"),
        (["--threshold", 2], "--threshold 2.0: a cosine is from -1 to 1"),
        (["--known-as", "evaluate"], "--known-as evaluate needs --known FILE"),
        (["-o", "missing/links.csv"], "in a folder that is there"),
        (["-o", "."], "it should be a file, not a link"),
        (["-o", "reqs.csv"], "would replace a file that is read"),
        (["--html", "reqs.csv", "--top", -1], "--html reqs.csv would replace"),
        (["-o", "links.csv", "--html", "links.csv"], "--html and --output are the same file"),
        (["-o", "links.csv", "--json", "uncovered.csv"], "are the same file"),
        (["--known", "missing.csv"], "missing.csv"),
    ],
)
def test_wrong_usage_is_refused_and_nothing_is_written(tiny_folder, lists, tmp_path, words, said):
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    shown = run_inside(link.main, tiny_folder, *lists, *words, cwd=tmp_path)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_one_to_one_without_scipy_names_the_command_that_installs_it(tiny_folder, lists, monkeypatch):
    monkeypatch.setattr(link.importlib.util, "find_spec", lambda name: None)
    shown = run_inside(link.main, tiny_folder, *lists, "--one-to-one")
    assert shown.returncode == 2
    assert shown.stderr == "--one-to-one needs scipy. Type: pip install -r requirements-search.txt\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "is empty"), ("id,text\n", "has no rows"), ("id,text\n1,\n", "line 2: column text is blank")],
)
def test_a_list_without_texts_is_refused_in_a_line(tiny_folder, lists, tmp_path, content, said):
    (tmp_path / "empty.csv").write_text(content)
    shown = run_inside(link.main, tiny_folder, lists[0], tmp_path / "empty.csv", "-o", tmp_path / "links.csv")
    assert shown.returncode == 2
    assert said in shown.stderr
    assert not (tmp_path / "links.csv").exists()


def test_a_folder_that_is_no_model_is_refused(lists, tmp_path):
    shown = run_inside(link.main, tmp_path, *lists, "-o", tmp_path / "links.csv")
    assert shown.returncode == 2
    assert "config.json" in shown.stderr
    assert not (tmp_path / "links.csv").exists()


def test_a_full_disk_leaves_no_half_file(tiny_folder, lists, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = set(tmp_path.iterdir())
    monkeypatch.setattr("os.fsync", full)
    shown = run_inside(link.main, tiny_folder, *lists, "-o", tmp_path / "links.csv", "--html", tmp_path / "page.html")
    assert shown.returncode == 1
    assert "The links could not be written" in shown.stderr
    assert "No space left" in shown.stderr
    assert set(tmp_path.iterdir()) == before


def test_single_texts_long_texts_and_ids_that_repeat(tiny_folder, tmp_path):
    one = write_pairs(tmp_path / "one.csv", [("R1", "the dog plays " * 8000), ("R1", "a cat")], ("id", "text"))
    two = write_pairs(tmp_path / "two.csv", [("the dog plays",)], ("text",))
    shown = run_inside(link.main, tiny_folder, one, two, "-o", tmp_path / "links.csv", "--html", tmp_path / "page.html")
    assert shown.returncode == 0, shown.stderr
    assert "one.csv: 2 texts in column text, 1 cut at 64 tokens" in shown.stdout
    assert [row["id1"] for row in read(tmp_path / "links.csv")] == ["R1", "R1"]
    assert "one.csv: 1 ids are there more than once (R1)" in shown.stdout
    alone = run_inside(link.main, tiny_folder, two, "-o", tmp_path / "alone.csv", "--html", tmp_path / "empty.html")
    assert alone.returncode == 0, alone.stderr
    assert read(tmp_path / "alone.csv") == []


def test_one_list_has_no_second_sides_flags(tiny_folder, lists):
    shown = run_inside(link.main, tiny_folder, lists[0], "--one-to-one", "--column-b", "text", "--id-b", "id")
    assert shown.returncode == 2
    assert shown.stderr.count("needs a second list") == 3


def test_the_bundled_lists_are_made_as_their_readme_says(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "data" / "README.md").read_text(encoding="utf-8"), flags=re.S)
    (tmp_path / "data" / "lists").mkdir(parents=True)
    for part in ("dev", "test"):
        shutil.copy(ROOT / "data" / f"requirements-{part}.csv", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    for name in ("requirements.csv", "tests.csv"):
        made, kept = ((folder / "data" / "lists" / name).read_text(encoding="utf-8") for folder in (tmp_path, ROOT))
        assert made == kept
