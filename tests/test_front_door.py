"""The first minute: help, misspelt flags, flags of habit, early refusals, the screen at 80 columns, training from Python."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import subprocess
import sys
import threading

import pytest
import torch
from torch.utils.data import DataLoader

import bertFineTuningWithConnectionData as driver
from connection.settings import GROUPS, setting_fields
from connection.settings_reader import read_settings
from connection.system.errors import InputError
from connection.system.escapes import printable_output
from connection.training.flag_habits import translate
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset
from tests.conftest import (
    DRIVER,
    MANY,
    PAIRS,
    ROOT,
    binary,
    run_command,
    run_inside,
    signal_in_step,
    tools_commands,
    training_words,
    write_pairs,
)
from tools import check, evaluate

CONSTANTS = vars(driver)
COMMANDS = [
    pytest.param(driver.main, id="training"),
    *(pytest.param(importlib.import_module(module).main, id=name) for name, module in tools_commands().items()),
]


def settings_of(*words):
    return read_settings([str(word) for word in words], CONSTANTS, "")


# --- help and flags ----------------------------------------------------------------------------------------------------


def test_help_begins_with_examples_and_the_everyday_flags_and_has_every_setting_once():
    shown = run_inside(driver.main, "--help", COLUMNS="80").stdout
    lines = shown.splitlines()
    assert lines[0] == "usage: python bertFineTuningWithConnectionData.py [flags]"
    assert lines[2] == "examples:"
    groups = re.findall(r"^(\w+):$", shown, re.MULTILINE)
    assert groups == ["examples", *GROUPS, "help"]
    assert len(re.findall(r"^  --", shown.split("everyday:")[1].split("\n\n")[0], re.MULTILINE)) == 6
    assert sorted(name for names in GROUPS.values() for name in names.split()) == sorted(f.name for f in setting_fields())
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("words", [["--help"], ["--epochs", "none"], ["--train-file", "absent.csv"], ["--version"]])
def test_neither_help_nor_a_refusal_waits_for_the_libraries(words):
    code = (
        "import sys; import bertFineTuningWithConnectionData as driver\n"
        "try: driver.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    assert run_command("-c", code, *words).stdout.splitlines()[-1] == "[]"


def test_every_unknown_flag_gets_the_nearest_one_and_keeps_its_value():
    with pytest.raises(InputError) as caught:
        settings_of("--train-fil", "x.csv", "--lr", 3, "--epochs", "many", "--zzz=1", "stray")
    said = str(caught.value)
    assert "--train-fil: no such flag; did you mean --train-file?" in said
    assert "--lr: no such flag; did you mean --learning-rate?" in said
    assert "--zzz: no such flag\n" in said
    assert "--epochs: 'many'" in said
    assert "stray: belongs to no flag" in said
    assert len(said.splitlines()) == 6


@pytest.mark.parametrize(
    ("main", "wrong", "meant"), [(check.main, "--jsno", "--json"), (evaluate.main, "--dev_fil", "--dev-file")]
)
def test_the_tools_answer_likewise(main, wrong, meant):
    shown = run_inside(main, "a", "b", wrong, "x", "--labl-map", "y")
    assert shown.returncode == 2
    assert f"{wrong.replace('_', '-')}: no such flag; did you mean {meant}?" in shown.stderr
    assert "--labl-map: no such flag; did you mean --label-map?" in shown.stderr
    assert "usage:" not in shown.stderr


@pytest.mark.parametrize("main", COMMANDS)
def test_every_command_has_its_version_and_answers_a_wrong_flag_alike(main):
    shown = run_inside(main, "--version")
    assert shown.returncode == 0
    assert f"torch {torch.__version__}" in shown.stdout
    wrong = run_inside(main, "--versio")
    assert wrong.returncode == 2
    assert "--versio: no such flag; did you mean --version?" in wrong.stderr
    assert "usage:" not in wrong.stderr


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        ("--per_device_train_batch_size=8", "batch_size", 8),
        ("--num_train_epochs=2", "epochs", 2),
        ("--max_seq_length=64", "max_length", 64),
        ("--lr_scheduler_type=cosine", "schedule", "cosine"),
        ("--warmup_steps=0.2", "warmup_ratio", 0.2),
        ("--bf16", "precision", "bf16"),
        ("--fp32", "precision", "fp32"),
        ("--gradient_accumulation_steps=4", "batch_size", 64),
    ],
)
def test_each_flag_of_habit_is_said_once_and_not_in_a_quiet_run(typed, name, value, capsys):
    assert getattr(settings_of(typed), name) == value
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert getattr(settings_of(typed, "--quiet"), name) == value
    assert capsys.readouterr().out == ""


def test_flags_of_habit_are_taken_and_said(capsys):
    settings = settings_of(
        "--per_device_train_batch_size", 8, "--num_train_epochs=2", "--max_seq_length", 64, "--lr_scheduler_type",
        "constant_with_warmup", "--bf16", "--gradient_accumulation_steps", 4, "--warmup_steps", 0.2,
    )  # fmt: skip
    assert (settings.batch_size, settings.part_size, settings.epochs, settings.max_length) == (32, 8, 2, 64)
    assert (settings.schedule, settings.precision, settings.warmup_ratio) == ("constant", "bf16", 0.2)
    said = capsys.readouterr().out
    assert "--num-train-epochs is --epochs here" in said
    assert "--gradient-accumulation-steps 4: a batch of 32 pairs, 8 at a time" in said
    assert len(said.splitlines()) == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--do_lower_case"], "tokenizer_config.json"),
        (["--fp16"], "--precision bf16"),
        (["--warmup_steps", "500"], "500 / (epochs x pairs / batch size)"),
        (["--gradient_accumulation_steps", "x"], "'x' is no number of steps"),
        (["--gradient_accumulation_steps", "0"], "'0' is no number of steps"),
    ],
)
def test_habits_that_mean_nothing_here_are_refused_with_the_reason(words, said):
    with pytest.raises(InputError, match=re.escape(said)):
        settings_of(*words)
    found, remarks, problems = translate(["--epochs", "3"], CONSTANTS)
    assert (found, remarks, problems) == (["--epochs", "3"], [], [])


def words_at_tab(typed, tmp_path):
    """What a shell shows at the tab key after these words, asked as argcomplete's function for bash asks."""
    command = typed.split()
    asked = command[1:3] if command[1] == "-m" else command[1:2]
    answer = tmp_path / "answer"
    environment = {"COMP_LINE": typed, "COMP_POINT": str(len(typed)), "COMP_TYPE": "9", "_ARGCOMPLETE_SHELL": "bash"}
    run_command(*asked, _ARGCOMPLETE=str(len(asked) + 1), _ARGCOMPLETE_STDOUT_FILENAME=str(answer), IFS="\v", **environment)
    return {word.strip() for word in answer.read_text().split("\v")}


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("python bertFineTuningWithConnectionData.py --epo", {"--epochs"}),
        ("python bertFineTuningWithConnectionData.py --epochs 3 --schedule co", {"cosine", "constant"}),
        ("python -m tools.evaluate --d", {"--dev-file", "--device"}),
    ],
)
def test_the_tab_key_shows_what_may_follow(typed, words, tmp_path):
    assert words_at_tab(typed, tmp_path) == words


def test_every_command_has_the_line_that_shells_look_for():
    folders = [name for name in tools_commands() if (ROOT / "tools" / name).is_dir()]
    files = [ROOT / "tools" / (f"{name}/__main__.py" if name in folders else f"{name}.py") for name in tools_commands()]
    for file in (DRIVER, *files):
        assert file.read_text(encoding="utf-8").startswith("# PYTHON_ARGCOMPLETE_OK\n"), file


# --- before the libraries are loaded -----------------------------------------------------------------------------------


def test_all_that_is_wrong_with_paths_is_said_at_once(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    shown = run_inside(
        driver.main, "--model-dir", tmp_path / "no model", "--train-file", tmp_path / "a.csv", "--dev-file", tmp_path / "b.csv",
        "--output-dir", tmp_path / "full",
    )  # fmt: skip
    assert shown.returncode == 2
    for part in ("no model", "a.csv does not exist (--train-file)", "b.csv does not exist (--dev-file)", "full is not empty"):
        assert part in shown.stderr
    assert "loading" not in shown.stdout


def test_a_command_starts_from_any_folder(tmp_path):
    file = write_pairs(tmp_path / "pairs.csv", MANY)
    model = "--model-dir", ROOT / "transformers" / "bert" / "all-MiniLM-L6-v2"
    shown = run_command(ROOT / "tools", "check", file.name, *model, cwd=tmp_path)
    assert "errors that block" in shown.stdout, shown.stderr
    listed = run_command(ROOT / "tools", cwd=tmp_path)
    assert listed.returncode == 2
    assert "check, compare, download" in listed.stderr


# --- the screen --------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("labels", ["graded", "binary"])
def test_no_line_of_a_training_is_wider_than_80_columns(tiny_folder, tmp_path, monkeypatch, labels):
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", screen)
    pairs = write_pairs(tmp_path / "pairs.csv", MANY if labels == "graded" else binary(MANY))
    assert driver.main([*map(str, training_words(tiny_folder, pairs, tmp_path / "run", "--test-file", pairs))]) == 0
    lines = screen.getvalue().splitlines()
    assert len(lines) > 30
    wide = [line for line in lines if len(line) > 80 and not line.lstrip().startswith((sys.executable, "cd "))]
    assert not [line for line in wide if str(tmp_path) not in line]  # a path is one word


def test_colours_are_for_terminals_without_no_color(monkeypatch):
    text = "Fine-tuning gained 4.0 +- 1.0 points (95% interval +3 to +5, p < 0.001).\nwarning cut-sentences: x\nplain\n"
    monkeypatch.setenv("TERM", "xterm")
    for variable, terminal, coloured in (("", True, 2), ("1", True, 0), ("", False, 0)):
        monkeypatch.setenv("NO_COLOR", variable)
        screen = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr(sys, "stdout", screen)
        with printable_output():
            print(text)
        assert screen.getvalue().count("\x1b[0m") == coloured
        assert "plain\n" in screen.getvalue()


def test_long_lines_break_between_words_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    line = "note: " + "word " * 20 + "end"
    command = f"  {sys.executable} -m tools.check " + "x" * 60
    for screen in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setenv("NO_COLOR", "1")
        with printable_output():
            print(line)
            print(command)
        lines = screen.getvalue().splitlines()
        assert lines[-1] == command
        if isinstance(screen, Terminal):
            assert max(map(len, lines[:-1])) <= 40
            assert " ".join(" ".join(lines[:-1]).split()) == line
        else:
            assert lines[0] == line


def test_after_ctrl_c_the_whole_command_that_goes_on_is_printed_and_works(tiny_folder, tmp_path, monkeypatch):
    pairs = write_pairs(tmp_path / "pairs.csv", PAIRS * 5)
    with monkeypatch.context() as patch:
        signal_in_step(patch, 3, 2)
        shown = run_inside(driver.main, *training_words(tiny_folder, pairs, tmp_path / "my run"))
    assert shown.returncode == 130
    assert "tools.score" not in shown.stdout
    command = shown.stdout.split("To go on from there:\n")[1].strip()
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "my run" / "results.json").read_text())["interrupted"] is False


# --- from Python -------------------------------------------------------------------------------------------------------


def test_training_from_python_and_from_a_thread_returns_the_results(tiny_folder, tmp_path):
    pairs, returned = write_pairs(tmp_path / "pairs.csv", MANY), {}
    same = {"train_file": pairs, "model_dir": tiny_folder, "epochs": 1, "max_length": 32, "learning_rate": 1e-3}

    def work():
        returned["thread"] = driver.train(**same, output_dir=str(tmp_path / "thread"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    results = driver.train(**same, output_dir=tmp_path / "here")
    assert results == json.loads((tmp_path / "here" / "results.json").read_text())
    assert results["final"]["test"]["spearman"] == returned["thread"]["final"]["test"]["spearman"]
    with pytest.raises(InputError) as caught:
        driver.train(train_fil="x", epochs=0)
    assert "train_fil: no such setting; did you mean train_file?" in str(caught.value)
    assert "--epochs: 0 is below" in str(caught.value)


def test_a_dataset_from_a_file_feeds_a_plain_loader(tiny_folder, tmp_path):
    model = ConnectionBert.load(tiny_folder)
    dataset = ConnectionDataset.from_file(write_pairs(tmp_path / "pairs.csv", PAIRS), model.tokenizer, max_length=32)
    assert len(dataset) == len(PAIRS)
    batches = list(DataLoader(dataset, batch_size=3, collate_fn=dataset.collate))
    assert [len(batch.target) for batch in batches] == [3, 3, 2]
    assert torch.cat([batch.target for batch in batches]).tolist() == pytest.approx([label / 5 for *_, label in PAIRS])
    u, v = model(batches[0].tokens)
    assert u.shape == v.shape == (3, 32)
    bad = write_pairs(tmp_path / "bad.csv", [*PAIRS, ("a dog", "", 1)])
    with pytest.raises(InputError, match="line 10"):
        ConnectionDataset.from_file(bad, model.tokenizer)
