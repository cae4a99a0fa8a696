"""python -m tools.adapt: an encoder trained on texts without labels."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from connection.training import masked_words
from ConnectionBert import ConnectionBert
from tests.conftest import PAIRS, ROOT, run_inside, write_pairs
from tools import adapt

TEXTS = sorted({text for pair in PAIRS for text in pair[:2]})


def test_list_and_pairs_are_the_same_texts(tiny_folder, tmp_path):
    """Twice the same text counts once; the folder opens, and has other vectors than the one that it began with."""
    pairs, texts = write_pairs(tmp_path / "pairs.csv"), tmp_path / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text in [*TEXTS, *TEXTS]), encoding="utf-8")
    words = ["--model-dir", tiny_folder, "--epochs", 2, "--learning-rate", "1e-3"]
    one = run_inside(adapt.main, texts, *words, "-o", tmp_path / "one")
    two = run_inside(adapt.main, "--pairs", pairs, *words, "-o", tmp_path / "two")
    both = run_inside(adapt.main, texts, "--pairs", pairs, *words, "-o", tmp_path / "both")
    for shown in (one, two, both):
        assert shown.returncode == 0, shown.stderr
        assert f"{len(TEXTS)} distinct texts" in shown.stdout
        assert "epoch 2/2: loss of the hidden words" in shown.stdout
    base, adapted = (ConnectionBert.load(folder).encode(TEXTS) for folder in (tiny_folder, tmp_path / "one"))
    assert np.abs(adapted - base).max() > 1e-3


def test_problems_are_listed_together_and_nothing_is_written(tiny_folder, tmp_path):
    target = tmp_path / "adapted"
    shown = run_inside(adapt.main, "-o", target, "--model-dir", tiny_folder, "--epochs", 0, "--learning-rate", "nan")
    assert shown.returncode == 2
    for said in ("--epochs 0", "--learning-rate nan", "FILE: give a list of texts"):
        assert said in shown.stderr
    blank = tmp_path / "blank.csv"
    blank.write_text("id,text\n1,fine\n2, \n", encoding="utf-8")
    shown = run_inside(adapt.main, tmp_path / "none.csv", blank, "-o", target, "--model-dir", tiny_folder)
    assert shown.returncode == 2
    assert "none.csv" in shown.stderr
    assert "blank.csv" in shown.stderr
    assert "line 3" in shown.stderr
    assert not target.exists()


def test_files_stand_anywhere_and_each_is_said(tiny_folder, tmp_path):
    texts, more = tmp_path / "texts.txt", write_pairs(tmp_path / "more.csv", [("R1", "a red horse")], ("id", "Requirement"))
    texts.write_text("the man plays, and sees\na dog\n")
    pairs = write_pairs(tmp_path / "pairs.csv")
    words = [texts, "--pairs", pairs, "-o", tmp_path / "my out", more, "--model-dir", tiny_folder, "--epochs", 1]
    shown = run_inside(adapt.main, *words)
    assert shown.returncode == 0, shown.stderr
    for said in (
        "texts.txt: 2 texts in column 1",
        "more.csv: 1 texts in column Requirement",
        f"{len(TEXTS)} distinct texts of",
    ):
        assert said in shown.stdout
    next_words = shlex.split(shown.stdout.splitlines()[-1])
    assert next_words[-2:] == ["--model-dir", str(tmp_path / "my out")]


def test_texts_of_pairs_need_no_labels(tiny_folder, tmp_path):
    """A file that is labelled in part: what has no label yet has texts. A row that lacks one of its two is said."""
    half = [(one, two, score if row < 4 else "" if row < 6 else "who knows") for row, (one, two, score) in enumerate(PAIRS)]
    path = write_pairs(tmp_path / "half.csv", [*half, ("alone", "", "3"), ("the, park", "the city", "1")])
    shown = run_inside(adapt.main, "--pairs", path, "-o", tmp_path / "out", "--model-dir", tiny_folder, "--epochs", 1)
    assert shown.returncode == 0, shown.stderr
    assert f"half.csv: {len(TEXTS) + 2} distinct texts of both sides" in shown.stdout
    assert "1 rows do not have two texts for certain and are left out: 10" in shown.stdout


def test_a_column_of_what_is_not_given_is_refused(tiny_folder, tmp_path):
    pairs, texts = write_pairs(tmp_path / "p.csv"), write_pairs(tmp_path / "t.csv", [("a dog",), ("a cat",)], ("text",))
    words = ["-o", tmp_path / "out", "--model-dir", tiny_folder]
    shown = run_inside(adapt.main, "--pairs", pairs, "--column", "sentence1", *words)
    assert shown.returncode == 2
    assert "--column sentence1 is of lists (FILE), and none is given" in shown.stderr
    shown = run_inside(adapt.main, texts, "--columns", "sentence1=1,sentence2=2", *words)
    assert shown.returncode == 2
    assert "is of --pairs FILE, and none is given" in shown.stderr
    shown = run_inside(adapt.main, pairs, *words)  # pairs, given as a list
    assert shown.returncode == 2
    assert f"Give --column NAME or NUMBER; of a file of pairs --pairs {pairs}" in shown.stderr


def test_a_model_that_has_learned_nothing_is_not_written(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(masked_words, "HIDDEN", 0.0)
    words = ["--pairs", write_pairs(tmp_path / "p.csv"), "-o", tmp_path / "out", "--model-dir", tiny_folder, "--epochs", 2]
    shown = run_inside(adapt.main, *words)
    assert shown.returncode == 2
    assert "epoch 2/2: no word was hidden" in shown.stdout
    assert "nothing learned" in shown.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals of this kind")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_leaves_nothing(number, status, tiny_folder, tmp_path):
    pairs = write_pairs(tmp_path / "p.csv")
    words = ["-m", "tools.adapt", "--pairs", pairs, "-o", tmp_path / "out", "--model-dir", tiny_folder, "--epochs", 1_000_000]
    before = sorted(tmp_path.iterdir())
    with subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(line.startswith("epoch 2/") for line in process.stdout)
        process.send_signal(number)
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == status
    assert "Traceback" not in said
    assert ("no model was written" in said) == (number == signal.SIGINT)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["file", "other folder", "the model itself", "a run's model", "a program"])
def test_what_is_there_is_not_replaced(kind, tiny_folder, tmp_path):
    target = tmp_path / "there"
    if kind == "file":
        target.write_text("mine")
    elif kind == "other folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    elif kind == "a run's model":
        target = shutil.copytree(tiny_folder, tmp_path / "run" / "model")
        (tmp_path / "run" / "settings.json").write_text("{}")
    elif kind == "a program":
        target.mkdir()
        (target / "config.json").write_text("{}")
        (target / "mine.txt").write_text("mine")
    else:
        target = tiny_folder
    before = sorted(target.iterdir()) if target.is_dir() else target.read_text()
    shown = run_inside(adapt.main, "--pairs", write_pairs(tmp_path / "p.csv"), "-o", target, "--model-dir", tiny_folder)
    assert shown.returncode == 2, shown.stderr
    assert "-o " in shown.stderr
    assert (sorted(target.iterdir()) if target.is_dir() else target.read_text()) == before


def test_one_text_is_too_few(tiny_folder, tmp_path):
    (tmp_path / "one.txt").write_text("alone\n")
    shown = run_inside(adapt.main, tmp_path / "one.txt", "-o", tmp_path / "out", "--model-dir", tiny_folder)
    assert shown.returncode == 2
    assert "fewer than 2 distinct texts" in shown.stderr


@pytest.mark.parametrize("kind", ["model", "model of a run", "list", "pairs"])
def test_what_is_read_is_not_replaced(kind, tiny_folder, tmp_path):
    """A folder that is there is replaced as a whole: not one with the model or the texts in it."""
    target, model, read = tmp_path / "there", tiny_folder, write_pairs(tmp_path / "p.csv")
    shutil.copytree(tiny_folder, target)
    if kind == "model":
        model = shutil.copytree(tiny_folder, target / "base")
    elif kind == "model of a run":
        model = tmp_path / "run"
        model.mkdir()
        target = target.rename(model / "model")
        (model / "settings.json").write_text("{}")
    else:
        read = read.rename(target / read.name)
    before = sorted(target.rglob("*"))
    words = [read, "--column", "sentence1"] if kind == "list" else ["--pairs", read]
    shown = run_inside(adapt.main, *words, "-o", target, "--model-dir", model, "--epochs", 1)
    assert shown.returncode == 2, shown.stderr
    assert "-o " in shown.stderr
    assert sorted(target.rglob("*")) == before


@pytest.mark.parametrize("name", ["p.csv/below", "n" * 300, "a\0b"])
def test_what_can_not_be_written_is_said_before_the_training(name, tiny_folder, tmp_path):
    pairs = write_pairs(tmp_path / "p.csv")
    shown = run_inside(adapt.main, "--pairs", pairs, "-o", f"{tmp_path}/{name}", "--model-dir", tiny_folder, "--epochs", 1)
    assert shown.returncode == 2, shown.stderr
    assert "can't be written" in shown.stderr
    assert "epoch" not in shown.stdout


def test_torchrun_is_refused(tiny_folder, tmp_path, monkeypatch):
    """Each of its processes would train, and replace the folder that another one wrote."""
    monkeypatch.setattr(adapt, "started_together", lambda: True)
    shown = run_inside(
        adapt.main, "--pairs", write_pairs(tmp_path / "p.csv"), "-o", tmp_path / "out", "--model-dir", tiny_folder
    )
    assert shown.returncode == 2, shown.stderr
    assert "without torchrun" in shown.stderr
    assert not (tmp_path / "out").exists()
