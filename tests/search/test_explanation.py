"""The sum over pairs of words is the cosine: against transformers' states, summed in plain loops, and bert.encode's vectors."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from transformers import BertModel, BertTokenizer

from connection.model.dense import Dense
from connection.model.encoding_settings import EncodingSettings
from connection.model.pooling import POOLING, pool
from connection.search.explanation import Explanation, explain, token_parts
from connection.system.errors import InputError
from ConnectionBert import ConnectionBert
from tests.conftest import run_inside
from tools import explain as command

FIRST, SECOND = "The mans dog plays, not big.", "a WOMAN rides the dogs in zyx park"
POOLED = ("mean", "max", "mean-sqrt-len", "weighted-mean", "mean+max", "cls+mean")


def cosine_of_vectors(model: ConnectionBert, first: str, second: str) -> float:
    u, v = model.encode([first, second], progress=False, precision="fp32").astype(float)
    return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


@pytest.fixture
def tiny(tiny_folder) -> ConnectionBert:
    return ConnectionBert.load(tiny_folder)


def test_the_formula_under_mean_pooling_in_plain_torch(tiny, tiny_folder):
    """cos = sum_ij s_i . t_j / (n m |u| |v|), with the library's tokenizer and model, piece by piece."""
    encoder, tokenizer = BertModel.from_pretrained(tiny_folder).eval(), BertTokenizer.from_pretrained(tiny_folder)
    with torch.no_grad():
        s, t = (encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double() for text in (FIRST, SECOND))
    n, m = len(s), len(t)
    u, v = s.mean(dim=0), t.mean(dim=0)
    pieces = [[float(s[i] @ t[j] / (n * m * u.norm() * v.norm())) for j in range(m)] for i in range(n)]
    found = explain(tiny, FIRST, SECOND)
    assert found.first == ("[CLS]", "The", "mans", "dog", "plays", ",", "not", "big", ".", "[SEP]")
    assert found.second == ("[CLS]", "a", "WOMAN", "rides", "the", "dogs", "in", "zyx", "park", "[SEP]")
    assert tokenizer.tokenize(FIRST)[1:3] == ["man", "##s"]  # "mans" is tokens 2 and 3, "dogs" is tokens 5 and 6
    assert found.contributions[3, 1] == pytest.approx(pieces[4][1], abs=1e-6)
    assert found.contributions[2, 5] == pytest.approx(sum(pieces[i][j] for i in (2, 3) for j in (5, 6)), abs=1e-6)
    assert found.shares[0][2] == pytest.approx(sum(pieces[2]) + sum(pieces[3]), abs=1e-6)
    assert found.cosine == pytest.approx(sum(map(sum, pieces)), abs=1e-6)


@pytest.mark.parametrize("pooling", POOLED)
def test_the_sum_is_the_cosine_of_the_vectors(tiny_folder, pooling):
    model = ConnectionBert.load(tiny_folder, pooling)
    found = explain(model, FIRST, SECOND)
    assert found.cosine == pytest.approx(cosine_of_vectors(model, FIRST, SECOND), abs=1e-6)
    assert found.contributions.shape == (len(found.first), len(found.second))
    assert found.shares[0].sum() == pytest.approx(found.shares[1].sum(), abs=1e-12)


def test_max_pooling_gives_each_number_to_the_token_that_has_the_largest(tiny_folder):
    model = ConnectionBert.load(tiny_folder, "max")
    states = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    mask = torch.tensor([[1, 1, 1, 0]])
    parts = token_parts("max", states, mask)[0]
    for number in range(3):
        largest = int(states[0, :3, number].argmax())
        expected = [float(states[0, largest, number]) if place == largest else 0.0 for place in range(4)]
        assert parts[:, number].tolist() == expected
    assert explain(model, FIRST, FIRST).cosine == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("pooling", POOLING)
def test_parts_of_tokens_sum_to_the_pooled_vector(pooling):
    states = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).double()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert torch.allclose(token_parts(pooling, states, mask).sum(dim=1), pool(pooling, states, mask), atol=1e-12)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompt_and_cut_vectors_of_a_folder_are_obeyed(tiny, include_prompt):
    settings = EncodingSettings(prompts={"x": "the man: "}, default_prompt_name="x", truncate_dim=7)
    model = ConnectionBert(tiny.encoder, tiny.tokenizer, encoding=settings, include_prompt=include_prompt, max_length=32,
                           normalized=True).eval()  # fmt: skip
    found = explain(model, FIRST, SECOND)
    assert found.cosine == pytest.approx(cosine_of_vectors(model, FIRST, SECOND), abs=1e-6)
    shown = ("[CLS]", "the", "man", ":", "The") if include_prompt else ("The", "mans")
    assert found.first[: len(shown)] == shown


def test_long_texts_are_cut_as_the_model_cuts_them_and_counted(tiny_folder):
    model = ConnectionBert.load(tiny_folder, max_length=6)
    found = explain(model, "the dogs " * 11_112, "a man")  # 100,000 characters
    assert found.first == ("[CLS]", "the", "dogs", "the", "[SEP]")  # four pieces: the dog ##s the
    assert found.cut == 1
    assert found.cosine == pytest.approx(cosine_of_vectors(model, "the dogs " * 11_112, "a man"), abs=1e-6)


def test_a_mode_of_training_is_left_as_it_was(tiny):
    tiny.train()
    once, again = explain(tiny, FIRST, SECOND), explain(tiny, FIRST, SECOND)
    assert tiny.training
    assert np.array_equal(once.contributions, again.contributions)  # no dropout
    assert all(weight.grad is None for weight in tiny.parameters())


def test_strongest_pairs_come_first_whatever_their_sign():
    found = Explanation(("a", "b"), ("c", "d"), np.array([[0.1, -0.5], [0.3, 0.0]]), 0)
    assert found.strongest(3) == [(0, 1), (1, 0), (0, 0)]


@pytest.mark.parametrize("pooling", ["cls", "last", "cls+last", "pooler"])
def test_a_pooling_of_one_token_is_refused_with_the_reason(tiny_folder, pooling):
    shown = run_inside(command.main, tiny_folder, FIRST, SECOND)
    assert shown.returncode == 0, shown.stderr  # mean pooling
    with pytest.raises(InputError, match=re.escape(f"{pooling} pooling: the sentence's vector is made of the state")):
        explain(ConnectionBert.load(tiny_folder, pooling), FIRST, SECOND)


def test_a_dense_module_is_refused(tiny):
    dense = Dense(32, 32, True, "torch.nn.modules.activation.Tanh")
    with pytest.raises(InputError, match="has a Dense module after its pooling"):
        explain(ConnectionBert(tiny.encoder, tiny.tokenizer, max_length=32, dense=[dense]), FIRST, SECOND)


def test_what_the_command_prints(tiny_folder, tiny):
    shown = run_inside(command.main, tiny_folder, FIRST, SECOND, "--top", 3)
    assert shown.returncode == 0, shown.stderr
    found = explain(tiny, FIRST, SECOND)
    assert f"\ncosine {found.cosine:.4f}\n" in shown.stdout
    place = found.strongest(1)[0]
    assert f"{found.contributions[place]:+.4f}  {found.first[place[0]]} | {found.second[place[1]]}\n" in shown.stdout
    assert f"  mans {found.shares[0][2]:+.3f}" in shown.stdout
    assert "mean pooling" in shown.stderr


def test_json_holds_all_of_it_and_the_base(tiny_folder, tiny, tmp_path):
    shown = run_inside(command.main, tiny_folder, FIRST, SECOND, "--json", "--base", tiny_folder)
    content = json.loads(shown.stdout)
    found = explain(tiny, FIRST, SECOND)
    assert content["cosine"] == pytest.approx(found.cosine, abs=1e-9)
    assert np.allclose(content["contributions"], found.contributions, atol=1e-9)
    assert content["first"][2] == {"word": "mans", "share": pytest.approx(found.shares[0][2], abs=1e-9)}
    assert content["base"]["cosine"] == pytest.approx(found.cosine, abs=1e-9)


def test_a_word_of_100_000_characters(tiny_folder, tmp_path):
    shown = run_inside(command.main, tiny_folder, "dog " + "z" * 99_996, "a dog", "-o", tmp_path / "why.html")
    assert shown.returncode == 0, shown.stderr
    assert f"  {'z' * 37}... +0." in shown.stdout.replace("... -0.", "... +0.")
    assert max(map(len, shown.stdout.splitlines())) < 400
    assert len((tmp_path / "why.html").read_text()) < 120_000  # the text once, its beginning as the word


class Cells(HTMLParser):
    """The words and numbers of a page's tables, row by row, and the addresses that it would load."""

    def __init__(self, page: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self.loads: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "data")] + [tag] * (
            tag == "script"
        )
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_the_page_holds_every_pair_and_escapes_what_it_shows(tiny_folder, tiny, tmp_path):
    hostile = 'the <img src=x onerror=alert(1)> "dog" & \u202ecat {{ 7 * 7 }} </blockquote>'
    shown = run_inside(command.main, tiny_folder, hostile, SECOND, "--base", tiny_folder, "-o", tmp_path / "why.html")
    assert shown.returncode == 0, shown.stderr
    page = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "\u202e" not in page
    assert "{{ 7 * 7 }}" in page
    cells = Cells(page)
    assert cells.loads == []
    found = explain(tiny, hostile, SECOND)
    table = cells.rows[: len(found.first) + 2]
    assert table[0][1:] == [*found.second, "sum"]
    assert [row[0] for row in table[1:-1]] == [word.replace("\u202e", r"\u202e") for word in found.first]
    numbers = np.array([[float(cell) for cell in row[1:-1]] for row in table[1:-1]])
    assert np.allclose(numbers, 100 * found.contributions, atol=0.00501)
    assert float(table[-1][-1]) == pytest.approx(100 * found.cosine, abs=0.00501)
    change = cells.rows[len(table) : 2 * len(table)]
    assert {float(cell) for row in change[1:] for cell in row[1:]} == {0.0}  # the base is the model itself


def write_errors(run, rows):
    run.mkdir(exist_ok=True)
    with open(run / "errors.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("rank", "split", "line", "sentence1", "sentence2", "label", "predicted"), *rows])
    return run


def test_a_row_of_a_runs_errors(tiny_folder, tiny, tmp_path):
    """The model of a run folder, and the text of a cell without the apostrophe that keeps spreadsheets from running it."""
    run = write_errors(tmp_path / "run", [(1, "test", 7, "'=the man", "a dog", 5, 1.5), (2, "dev", 3, FIRST, SECOND, 0, 4)])
    tiny.save(run / "model")
    (run / "settings.json").write_text("{}")
    for folder in (run, run / "model"):
        shown = run_inside(command.main, folder, "--row", 1)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith("row 1: split test, line 7, label 5, predicted 1.5\n=the man\na dog\n")
    content = json.loads(run_inside(command.main, run, "--row", 2, "--json").stdout)
    assert content["texts"] == [FIRST, SECOND]
    assert content["row"] == {"rank": "2", "split": "dev", "line": "3", "label": "0", "predicted": "4"}


def test_bad_usage_is_one_line_each_and_writes_nothing(tiny_folder, tiny, tmp_path):
    run = write_errors(tmp_path / "run", [(1, "test", 7, "", "", 5, 1.5)])
    tiny.save(run / "model")
    (run / "settings.json").write_text("{}")
    other = write_errors(tmp_path / "other", [(1, "a")])
    (other / "errors.csv").write_bytes(b"\xff\x00,\n1\n")
    page = tmp_path / "why.html"
    for words, said in (
        ((tiny_folder, "one text"), "1 texts were given: give two"),
        ((tiny_folder, " \u200b", "a dog"), "The first text can't be explained, it is nothing but invisible characters"),
        ((tiny_folder, "a dog", ""), "The second text can't be explained, it is blank"),
        ((tiny_folder, "a dog", "\udcff"), "The second text can't be explained, it is not UTF-8"),
        ((tmp_path / "none", "a", "b"), "none"),
        ((tiny_folder, "--row", 1), "errors.csv is not there"),
        ((run, "--row", 0), "--row 0: ranks in errors.csv begin at 1"),
        ((run, "--row", 2), "errors.csv has 1 rows"),
        ((run, "--row", 1), "errors.csv has no texts of that rank"),
        ((other, "--row", 1), "errors.csv is not as a run writes it"),
        ((run, "--row", 1, "a"), "give two texts, or --row N, not both"),
        ((tiny_folder, "a", "b", "--top", 0), "--top 0: give 1 or more"),
        ((tiny_folder, "a", "b", "-o", tmp_path), "it should be a file, not a link or a device, in a folder"),
        ((tiny_folder, "a", "b", "-o", tmp_path / "why.csv"), "a page is written; end its name in .html"),
    ):
        shown = run_inside(command.main, *words, *(() if "-o" in words else ("-o", page)))
        assert (shown.returncode, shown.stdout) == (2, ""), (words, shown.stdout)
        lines = [line for line in shown.stderr.splitlines() if not line.startswith(("model  ", "       note: "))]
        assert len(lines) == 1, (words, shown.stderr)
        assert said in lines[0], (words, shown.stderr)
        assert not page.exists()


def test_a_full_disk_leaves_no_page(tiny_folder, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "pages").mkdir()
    shown = run_inside(command.main, tiny_folder, FIRST, SECOND, "-o", tmp_path / "pages" / "why.html")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.splitlines()[-1] == "The page could not be written: [Errno 28] No space left on device"
    assert not list((tmp_path / "pages").iterdir())


def test_a_base_with_another_tokenizer_is_no_base(tiny_folder, tmp_path, tiny_encoder):
    short = ConnectionBert.load(tiny_folder, max_length=5)
    short.save(tmp_path / "short")
    shown = run_inside(command.main, tiny_folder, FIRST, SECOND, "--base", tmp_path / "short")
    assert shown.returncode == 2
    assert "make other words of these texts" in shown.stderr


def test_help_has_two_examples():
    shown = run_inside(command.main, "--help")
    assert shown.stdout.count("  python -m tools.explain ") == 2


def test_a_real_models_explanation(minilm):
    model = ConnectionBert.load(minilm)
    one, two = "The wall thermostat's hygrometer is off.", "Check: hygrometers aren't on in the thermostat."
    found = explain(model, one, two)
    assert found.cosine == pytest.approx(float(model.similarity([one], [two])[0]), abs=1e-6)
    assert {found.first[i] for i, _ in found.strongest(3)} <= {"thermostat", "hygrometer"}
