"""What the tools write: one process at a time in a folder, nothing through a link, and no input replaced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from connection.system.folder_lock import lock_folder
from tests.conftest import PAIRS, run_inside, write_pairs
from tests.tools.test_learning_curve import FLAGS, ROWS
from tests.tools.test_suspects import APART, look
from tools import evaluate
from tools.learning_curve import __main__ as learning_curve
from tools.suspects import __main__ as suspects
from tools.suspects import folds

UNIX = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


@pytest.fixture
def no_training(monkeypatch):
    """Anything that would be trained is a failure."""

    def never(*words, **flags):
        raise AssertionError("a training was begun")

    monkeypatch.setattr(suspects, "train", never)
    monkeypatch.setattr("tools.learning_curve.runs.run_training", never)


def curve(folder, file, output, *flags):
    return run_inside(learning_curve.main, "--train-file", file, "--model-dir", folder, "--output-dir", output, *FLAGS, *flags)


TOOLS = pytest.mark.parametrize(("tool", "rows"), [(look, APART), (curve, ROWS)])


@TOOLS
def test_a_second_start_in_one_folder_is_refused(tiny_folder, tmp_path, no_training, tool, rows):
    file = write_pairs(tmp_path / "pairs.csv", rows)
    with lock_folder(tmp_path / "out"):
        shown = tool(tiny_folder, file, tmp_path / "out")
    assert (shown.returncode, "is in use by another" in shown.stderr) == (2, True)
    assert list((tmp_path / "out").iterdir()) == []


@TOOLS
def test_the_pair_file_of_a_tool_is_not_among_what_it_writes(tiny_folder, tmp_path, no_training, tool, rows):
    (tmp_path / "out").mkdir()
    file = write_pairs(tmp_path / "out" / "suspects.csv", rows)
    before = file.read_bytes()
    shown = tool(tiny_folder, file, tmp_path / "out")
    assert shown.returncode == 2
    assert "copy it out first" in shown.stderr or "holds no learning curve" in shown.stderr
    assert file.read_bytes() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["suspects.csv"]


@UNIX
@pytest.mark.parametrize("name", ["suspects.csv", "suspects.json", "train.jsonl", "fold-1", "fold-1/model"])
def test_suspects_in_a_folder_with_a_link_are_refused(tiny_folder, tmp_path, no_training, name):
    file, out, mine = write_pairs(tmp_path / "pairs.csv", APART), tmp_path / "out", tmp_path / "mine"
    mine.mkdir()
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(mine)
    shown = look(tiny_folder, file, out)
    assert (shown.returncode, f"holds the link {name} -> {mine}" in shown.stderr) == (2, True)
    assert list(mine.iterdir()) == []


@UNIX
@pytest.mark.parametrize("name", ["learning_curve.png", "pairs", "runs", "runs/pre-trained-010-seed-42.log", "random-weights"])
def test_a_curve_in_a_folder_with_a_link_is_refused(tiny_folder, tmp_path, monkeypatch, name):
    file, out, mine = write_pairs(tmp_path / "pairs.csv", ROWS), tmp_path / "out", tmp_path / "mine"
    monkeypatch.setattr("tools.learning_curve.runs.run_training", lambda *words: (None, "not trained"))
    assert curve(tiny_folder, file, out).returncode == 1
    assert (out / "learning_curve.json").is_file()
    mine.mkdir()
    shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).symlink_to(mine)
    shown = curve(tiny_folder, file, out)
    assert (shown.returncode, f"holds the link {name} -> {mine}" in shown.stderr) == (2, True)
    assert list(mine.iterdir()) == []


@pytest.mark.parametrize("way", ["a pair file", "a model", "a link"])
def test_the_figures_replace_no_input_and_go_through_no_link(tiny_folder, tmp_path, way):
    pairs, mine = write_pairs(tmp_path / "pairs.csv", PAIRS), tmp_path / "mine"
    mine.write_text("mine")
    target = {"a pair file": pairs, "a model": tiny_folder / "config.json"}.get(way, tmp_path / "figures.json")
    if way == "a link":
        target.symlink_to(mine)
    before = {path: path.read_bytes() for path in (pairs, mine, tiny_folder / "config.json")}
    shown = run_inside(evaluate.main, tiny_folder, pairs, "--json", target)
    assert (shown.returncode, f"--json {target}" in shown.stderr) == (2, True)
    assert {path: path.read_bytes() for path in before} == before
    assert run_inside(evaluate.main, tiny_folder, pairs, "--json", tmp_path / "new.json").returncode == 0
    assert (tmp_path / "new.json").is_file()


def test_a_second_lock_waits_for_nobody_and_is_gone_after_an_error(tiny_folder, tmp_path, monkeypatch):
    def fail(*words, **flags):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folds, "start_training", fail)
    file = write_pairs(tmp_path / "pairs.csv", APART)
    assert look(tiny_folder, file, tmp_path / "out").returncode == 1
    assert not Path(tmp_path / "out" / ".lock").exists()
