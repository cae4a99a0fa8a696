"""--quiet: warnings and the last lines are printed, nothing else; nothing but the printing differs."""

from __future__ import annotations

import io
import json
import sys

import bertFineTuningWithConnectionData as driver
from connection.system.quiet import aloud, quiet_output
from tests.conftest import MANY, run_inside, signal_in_step, training_words, write_pairs


def test_lines_of_warnings_pass_with_their_further_lines(monkeypatch):
    screen, errors = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", errors)
    errors.isatty = lambda: True  # type: ignore[method-assign]
    with quiet_output(True):
        print("model  a BERT", "warning cut-sentences: x", "        it matters; mend it", "device cpu", sep="\n")
        print("       note: a pooling", "        of a line that is not shown", "notes of a thing", sep="\n", end="")
        print(" go on", flush=True)
        print("the last line", file=aloud())
        print("progress", file=sys.stderr)
        assert not sys.stderr.isatty()
    print("loud again", file=aloud())
    assert screen.getvalue().splitlines() == [
        "warning cut-sentences: x",
        "        it matters; mend it",
        "       note: a pooling",
        "        of a line that is not shown",
        "the last line",
        "loud again",
    ]
    assert errors.getvalue() == "progress\n"
    assert sys.stderr.isatty()


def test_a_quiet_run_prints_its_gain_and_where_the_model_is_and_trains_the_same(tiny_folder, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.csv", MANY)
    both = {}
    for name, more in (("loud", ["--bf16"]), ("quiet", ["--bf16", "--quiet"])):
        words = training_words(tiny_folder, pairs, tmp_path / name, "--test-file", pairs, *more)
        both[name] = run_inside(driver.main, *words)
        assert both[name].returncode == 0, both[name].stderr
    lines = [line for line in both["quiet"].stdout.splitlines() if line]
    assert {line.split()[0] for line in lines[:-3]} <= {"error", "warning", "the"}
    assert lines[-3].startswith("Fine-tuning ")
    assert lines[-2].startswith(f"The fine-tuned model is in {tmp_path / 'quiet' / 'model'}")
    assert "tools.score" in lines[-1]
    assert both["quiet"].stderr == ""
    assert "epoch 2/2" in both["loud"].stderr
    results = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in both}
    assert results["loud"]["final"] == results["quiet"]["final"]


def test_an_interrupted_quiet_run_says_how_to_go_on_and_of_several_seeds_the_table_is_printed(
    tiny_folder, tmp_path, monkeypatch
):
    pairs = write_pairs(tmp_path / "pairs.csv", MANY)
    with monkeypatch.context() as patch:
        signal_in_step(patch, 3, 2)
        shown = run_inside(driver.main, *training_words(tiny_folder, pairs, tmp_path / "run", "--quiet"))
    assert shown.returncode == 130
    assert "Ended by" in shown.stdout
    assert "--resume" in shown.stdout.splitlines()[-1]
    words = training_words(tiny_folder, pairs, tmp_path / "seeds", "--quiet", "--seeds", 2, "--epochs", 1)
    shown = run_inside(driver.main, *words)
    assert shown.returncode == 0, shown.stderr
    assert "seed 43, run 2 of 2" in shown.stdout
    assert "The model is that of seed-4" in shown.stdout
    assert "epoch" not in shown.stdout
