"""Text of strangers in files and on the terminal: formulas, escapes, faked lines and characters that CSV has not."""

from __future__ import annotations

import csv
import io
import json

import pytest

import bertFineTuningWithConnectionData as driver
from connection.system.csv_output import from_cell
from tests.conftest import MANY, PAIRS, run_inside, train_and_test, training_words, write_pairs
from tools import check, compare, evaluate

LIVE = ("=", "+", "-", "@")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_skipped_rows_hold_no_formula_and_no_nul(tiny_folder, tmp_path, delimiter):
    bad = [("=1+1", "a;=HYPERLINK(1)", "?"), ('x;"=1"', "two\n-lines", "@"), ("tab\t+x", "+49", "")]
    file = tmp_path / "pairs.jsonl"
    rows = [{"sentence1": one, "sentence2": two, "score": score} for one, two, score in [*PAIRS * 5, *bad]]
    rows.append({"sentence1": "a\0b", "sentence2": ["nested", "list"], "score": 1})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = training_words(tiny_folder, write_pairs(tmp_path / "dev.csv"), tmp_path / "run", "--train-file", file)
    shown = run_inside(driver.main, *words, "--on-bad-rows", "skip", "--epochs", 1, "--cache-dir", tmp_path / "cache")
    assert shown.returncode == 0, shown.stderr
    content = (tmp_path / "run" / "skipped_rows.csv").read_bytes()
    assert b"\0" not in content
    found = list(csv.reader(io.StringIO(content.decode(), newline=""), delimiter=delimiter))
    assert not [cell for row in found for cell in row if cell.startswith(LIVE)]
    if delimiter == ",":
        assert [tuple(map(from_cell, row[3:])) for row in found[1:4]] == bad
        assert found[4][3:] == ["text with a NUL character", "nested or binary (list); write it as text", "1"]


@pytest.mark.parametrize("name", ["x\n0 errors that block training.csv", "x\r0 errors.csv"])
def test_a_file_name_with_a_line_break_fakes_no_line(tiny_folder, tmp_path, name):
    (tmp_path / "folder").mkdir()
    file = write_pairs(tmp_path / "folder" / name)
    for main, words in ((check.main, (file, "--model-dir", tiny_folder)), (evaluate.main, (tiny_folder, file)),
                        (evaluate.main, (tiny_folder, file.parent)),
                        (driver.main, training_words(tiny_folder, file, tmp_path / "run"))):  # fmt: skip
        shown = run_inside(main, *words)
        assert shown.returncode == 2
        assert name not in shown.stderr + shown.stdout
        assert "a line break in its name can't be used here" in shown.stderr


def test_escapes_in_names_texts_and_folders_stay_letters(tiny_folder, tmp_path):
    odd = "\x1b[31m\x1b]0;title\x07"
    rows = [(one, two, score) for one, two, score in PAIRS * 3] + [("", f"text {odd}", 1), ("a", "b", odd)]
    file = write_pairs(tmp_path / f"{odd}.csv", rows, header=(f"sentence1{odd}", f"sentence2{odd}", f"score{odd}"))
    columns = f"sentence1=sentence1{odd},sentence2=sentence2{odd},label=score{odd}"
    for flags in ([], ["--columns", columns], ["--columns", columns, "--on-bad-rows", "skip"]):
        shown = run_inside(check.main, file, "--model-dir", tiny_folder, *flags)
        assert "\x1b" not in shown.stdout + shown.stderr
        assert "\x07" not in shown.stdout + shown.stderr
        assert r"\x1b[31m" in shown.stdout + shown.stderr
    (tiny_folder / f"model{odd}").symlink_to("/etc/passwd")
    shown = run_inside(check.main, file, "--model-dir", tiny_folder)
    assert "\x1b" not in shown.stdout + shown.stderr
    assert r"model\x1b[31m" in shown.stderr


def test_escapes_in_settings_of_two_runs_stay_letters(tiny_folder, tmp_path):
    train_and_test(tiny_folder, tmp_path / "a", MANY, "--cache-dir", tmp_path / "cache")
    settings = json.loads((tmp_path / "a" / "settings.json").read_text())
    (tmp_path / "b").mkdir()
    for name in ("results.json", "predictions.csv"):
        (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    odd = {"git_commit": "\x1b[2J\nno setting differs", "new \x1b[1m": 1, "versions": {"\x1b": "x" * 10_000}}
    (tmp_path / "b" / "settings.json").write_text(json.dumps(settings | odd))
    shown = run_inside(compare.main, tmp_path / "a", tmp_path / "b")
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert r"\x1b[2J\nno setting differs" in shown.stdout
    assert "x" * 1000 not in shown.stdout
