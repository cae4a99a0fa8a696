"""tools.learning_curve: its law against scipy, its sentences, and the command with the real training command on tiny pairs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import curve_fit

import bertFineTuningWithConnectionData as driver
from connection.data.labels import LabelScale
from connection.runs.training_command import as_flags, driver_constants, read_figures
from connection.settings_reader import read_settings
from ConnectionBert import ConnectionBert
from tests.conftest import ROOT, run_inside, write_pairs
from tools.learning_curve import __main__ as learning_curve
from tools.learning_curve.pairs import CurvePairs
from tools.learning_curve.power_law import fit_power_law, forecast
from tools.learning_curve.runs import _random_weights
from tools.learning_curve.summary import PRE_TRAINED, RANDOM, mean_points, sentences

LABELS = np.array([575, 1437, 2874, 5749])
WORDS = "man woman dog cat horse book city night park guitar".split()
# 240 pairs whose sentences stand in no other pair, so that dev and test pairs can be split off.
ROWS = [(f"the {a} sees a {b} {n}", f"a {b} is not the {a} {n}", (i + j) % 6)
        for n in "bcd" for i, a in enumerate(WORDS) for j, b in enumerate(WORDS[:8])]  # fmt: skip
FLAGS = ("--max-length", 32, "--epochs", 1, "--batch-size", 16, "--label-min", 0, "--label-max", 5, "--device", "cpu")


# --- the law -----------------------------------------------------------------------------------------------------------


def test_the_law_is_the_least_squares_one_of_scipy():
    random = np.random.default_rng(1)
    for a, b, c in ((0.1, 2.0, 0.4), (0.0, 1.5, 0.25), (0.2, 5.0, 0.9)):
        n = np.repeat(LABELS, 3).astype(float)
        error = a + b * n**-c + random.normal(0, 0.004, len(n))
        ours = [value[0] for value in fit_power_law(n, error[None, :])]
        start, bounds = (a + 0.01, b, c), ([0, 0, 0.05], [np.inf, np.inf, 2])
        theirs, _ = curve_fit(lambda n, a, b, c: a + b * n**-c, n, error, start, bounds=bounds, max_nfev=20_000)
        squares = [((error - x - y * n**-z) ** 2).sum() for x, y, z in (ours, theirs)]
        assert squares[0] <= 1.001 * squares[1]
        expected = theirs[0] + theirs[1] * (2 * 5749.0) ** -theirs[2]
        assert ours[0] + ours[1] * (2 * 5749.0) ** -ours[2] == pytest.approx(expected, abs=1e-3)


def test_a_law_without_noise_is_found_again():
    law = forecast(LABELS, 1 - (0.1 + 2 * LABELS**-0.4), 11_498)
    assert law
    assert law["value"] == pytest.approx(1 - (0.1 + 2 * 11_498**-0.4), abs=5e-4)
    assert law["low"] == pytest.approx(law["high"], abs=1e-2)
    assert law["runs"] == 4


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_holds_a_new_run_about_as_often_as_it_says(seeds):
    random = np.random.default_rng(2)
    n = np.repeat(LABELS, seeds)
    inside = 0
    for _ in range(80):
        spearman = 1 - (0.1 + 2 * n**-0.4) + random.normal(0, 0.01, len(n))
        law = forecast(n, spearman, 11_498)
        assert law
        inside += law["low"] <= 1 - (0.1 + 2 * 11_498**-0.4) + random.normal(0, 0.01) <= law["high"]
    assert inside >= 0.88 * 80  # 95% of 80 is 76, with a standard deviation of 2


def test_no_forecast_is_above_1_and_more_labels_never_take_away():
    steep = forecast(LABELS, np.array([0.2, 0.6, 0.9, 0.999]), 11_498)
    falling = forecast(LABELS, np.array([0.8, 0.7, 0.6, 0.5]), 11_498)
    assert steep
    assert falling
    assert steep["high"] <= 1
    assert 0.9 < steep["value"] <= 1
    assert (falling["value"], falling["b"]) == (pytest.approx(0.65), 0)


def test_too_few_runs_give_no_forecast_or_no_interval():
    assert forecast(LABELS[:2], np.array([0.5, 0.6]), 11_498) is None
    assert forecast(np.repeat(LABELS[:2], 5), np.linspace(0.5, 0.6, 10), 11_498) is None
    law = forecast(LABELS[:3], np.array([0.5, 0.6, 0.65]), 11_498)
    assert law
    assert math.isnan(law["low"])
    assert law["resamples"] == 0


# --- the sentences -----------------------------------------------------------------------------------------------------


def runs_of(pre_trained, random, seconds=(10, 40)):
    return [
        {"weights": weights, "share": share, "labels": labels, "seed": seed, "value": value, "training_seconds": time}
        for weights, values in ((PRE_TRAINED, pre_trained), (RANDOM, random))
        for share, labels, time, of_seeds in zip((10, 100), (100, 1000), seconds, values, strict=True)
        for seed, value in enumerate(of_seeds)
    ]


def say(runs, base=math.nan, law=None):
    return " ".join(sentences(mean_points(runs), base, {PRE_TRAINED: law, RANDOM: None}))


def test_sentences_say_what_is_true():
    said = say(runs_of([[0.7], [0.8]], [[0.2], [0.5]]), base=0.6)
    assert "on 1,000 labels the pre-trained weights give 80.00: 20.00 more than without fine-tuning (60.00)" in said
    assert "Without a single label they already give more than random weights with 1,000 (50.00)" in said
    assert (
        "From pre-trained weights 10% of the labels (100) give 70.00: more than random weights reach with 100% (50.00)" in said
    )
    assert "after 0:00:10 of training instead of 0:00:40" in said
    assert "One seed" in said


def test_sentences_claim_nothing_that_is_not_true():
    said = say(runs_of([[0.3, 0.4], [0.5, 0.6]], [[0.2, 0.2], [0.58, 0.6]]), base=0.58)
    assert "3.00 less than without fine-tuning" in said
    assert "55.00 +- 7.07" in said
    assert "Random weights do no worse: 59.00" in said
    for claim in ("Without a single label", "From pre-trained weights", "instead of", "Twice", "One seed"):
        assert claim not in said
    slower = say(runs_of([[0.3], [0.8]], [[0.2], [0.5]], seconds=(40, 40)), base=0.1)
    assert "100% of the labels (1,000) give 80.00: more than" in slower
    assert "instead of" not in slower


def test_a_forecast_is_said_with_its_interval_and_weakness():
    law = {"labels": 2000, "value": 0.85, "low": 0.8, "high": 0.9, "runs": 4}
    said = say(runs_of([[0.7], [0.8]], [[], []]), law=law)
    assert "Twice the labels (2,000) would give some 85.0 (95% interval of one run: 80.0 to 90.0), +5.0 to what 1,000" in said
    assert "weak" in said
    assert "interval" not in say(runs_of([[0.7], [0.8]], [[], []]), law=law | {"low": math.nan, "runs": 12})


def test_undefined_figures_are_left_out():
    means = mean_points(runs_of([[math.nan], [0.8, math.nan]], [[], []]))
    assert [(point["share"], point["value"], point["seeds"]) for point in means] == [(100, 0.8, 1)]
    assert mean_points(runs_of([[math.nan], []], [[], []])) == []


# --- the training command ----------------------------------------------------------------------------------------------


def test_constants_are_those_of_the_training_command():
    assert driver_constants() == {
        name: value for name, value in vars(driver).items() if name.isupper() and name != "TYPE_CHECKING"
    }


def test_flags_give_the_same_settings_again(tmp_path):
    words = [
        "--train-file",
        "a b.csv",
        "--label-min",
        "-1e3",
        "--no-packing",
        "--loss",
        "cosent+cosine-mse:0.5",
        "--pooling",
        "cls",
    ]
    settings = read_settings(words, vars(driver), "")
    again = read_settings(as_flags(settings), vars(driver), "")
    assert dataclasses.replace(again, given=settings.given) == settings


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"final": {}}', '{"base": {"test": {}}, "final": {"test": 3}}'])
def test_damaged_results_are_no_figures(tmp_path, content):
    assert read_figures(tmp_path, 10) is None
    (tmp_path / "results.json").write_text(content)
    assert read_figures(tmp_path, 10) is None


def test_the_figure_of_binary_labels_is_average_precision(tmp_path):
    test = {"spearman": 0.5, "average_precision": 0.7}
    results = {"base": {"test": test}, "final": {"test": test | {"average_precision": 0.9}}, "pairs_per_second": 8}
    (tmp_path / "results.json").write_text(json.dumps(results | {"interrupted": False, "epoch_figures": [{}, {}]}))
    assert read_figures(tmp_path, 40) == {"measure": "average_precision", "base": 0.7, "final": 0.9, "training_seconds": 10.0}


def test_an_undefined_spearman_is_a_figure_and_an_interrupted_run_is_none(tmp_path):
    results = {"base": {"test": {"spearman": 0.5}}, "final": {"test": {"spearman": None}}, "pairs_per_second": 8}
    results |= {"epochs": 9, "epoch_figures": [{"epoch": number} for number in range(1, 5)]}  # ended early by --patience
    for interrupted in (False, True):
        (tmp_path / "results.json").write_text(json.dumps(results | {"interrupted": interrupted}))
        found = read_figures(tmp_path, 10)
        assert interrupted == (found is None)
        if found:
            assert math.isnan(found["final"])
            assert (found["base"], found["training_seconds"]) == (0.5, 5)


def test_random_weights_are_of_the_same_shape_and_of_their_seed(tiny_folder, tmp_path):
    model = ConnectionBert.load(tiny_folder, "cls", 32)
    drawn = {
        name: ConnectionBert.load(_random_weights(model, tmp_path / name, seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    }
    weights = {name: part.encoder.state_dict() for name, part in (drawn | {"given": model}).items()}
    dense = "encoder.layer.0.attention.self.query.weight"
    assert all(torch.equal(weights["a"][key], weights["b"][key]) for key in weights["given"])
    for other in ("c", "given"):
        assert not torch.equal(weights["a"][dense], weights[other][dense])
    assert weights["a"][dense].std().item() == pytest.approx(model.encoder.config.initializer_range, rel=0.1)
    assert (drawn["a"].pooling, drawn["a"].max_length) == ("cls", 32)


# --- the whole command -------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch):
    """The training command runs in this process, which is fast; the runs that were started, and what to do in place of one."""
    seen = SimpleNamespace(names=[], instead={})

    def run(command, stdout, stderr, check):
        name = next(word for word in command if word.startswith("--output-dir=")).rsplit("/", 1)[1]
        seen.names.append(name)
        if name in seen.instead:
            return SimpleNamespace(returncode=seen.instead[name](stdout))
        shown = run_inside(driver.main, *command[2:])
        stdout.write(shown.stdout + shown.stderr)
        return SimpleNamespace(returncode=shown.returncode)

    monkeypatch.setattr("connection.runs.training_command.subprocess", SimpleNamespace(run=run, STDOUT=-2))
    return seen


def curve(tiny_folder, file, output, *flags):
    words = ["--model-dir", tiny_folder, "--train-file", file, "--output-dir", output, "--cache-dir", output.parent / "cache"]
    return run_inside(learning_curve.main, *words, *FLAGS, *flags)


def fails(stream):
    stream.write("epoch 1\nThe run stopped: the loss is not a finite number\n")
    return 1


def test_a_curve_from_a_training_file_alone(tiny_folder, tmp_path, started):
    file, output = write_pairs(tmp_path / "mine.tsv", ROWS, delimiter="\t"), tmp_path / "curve"
    shown = curve(tiny_folder, file, output)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert len(started.names) == 8
    found = json.loads((output / "learning_curve.json").read_text())
    assert [(run["weights"], run["labels"]) for run in found["runs"]] == [
        (weights, labels) for labels in (19, 48, 96, 192) for weights in (PRE_TRAINED, RANDOM)
    ]
    tested = []
    for run in found["runs"]:
        results = json.loads((output / run["run"] / "results.json").read_text())
        assert run["value"] == results["final"]["test"]["spearman"]
        assert (results["base"]["test"]["spearman"] == found["base"]) == (run["weights"] == PRE_TRAINED)
        table = pd.read_csv(output / run["run"] / "predictions.csv")
        tested.append(table[["split", "pair", "label"]].values.tolist())
        assert not (output / run["run"] / "model").exists()
    assert tested == [tested[0]] * 8
    assert {pair[0] for pair in tested[0]} == {"dev", "test"}

    parts = [(output / "pairs" / f"train-{share:03}-seed-42.jsonl").read_text().splitlines() for share in (10, 25, 50, 100)]
    held_out = [(output / "pairs" / f"{name}.jsonl").read_text().splitlines() for name in ("dev", "test")]
    assert all(set(small) < set(large) for small, large in itertools.pairwise(parts))
    rows = [json.loads(line) for line in [*parts[-1], *held_out[0], *held_out[1]]]
    assert sorted((row["sentence1"], row["sentence2"], row["label"]) for row in rows) == sorted(ROWS)
    assert [found["forecast"][weights]["labels"] for weights in (PRE_TRAINED, RANDOM)] == [384, 384]
    assert (output / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert found["sentences"][0] in shown.stdout


def test_a_curve_goes_on_where_it_stopped_and_more_seeds_add_to_it(tiny_folder, tmp_path, started):
    file, output = write_pairs(tmp_path / "mine.csv", ROWS), tmp_path / "curve"
    started.instead = {"pre-trained-025-seed-42": lambda stream: 130}
    shown = curve(tiny_folder, file, output)
    assert shown.returncode == 130
    assert "goes on from here" in shown.stdout
    assert len(json.loads((output / "learning_curve.json").read_text())["runs"]) == 2
    (output / "runs" / "random-010-seed-42" / "results.json").write_text('{"final": ')
    started.instead, started.names = {}, []
    assert curve(tiny_folder, file, output).returncode == 0
    assert started.names[0] == "random-010-seed-42"
    assert len(started.names) == 7
    before, started.names = json.loads((output / "learning_curve.json").read_text()), []
    assert curve(tiny_folder, file, output).returncode == 0
    assert (started.names, json.loads((output / "learning_curve.json").read_text())) == ([], before)
    assert curve(tiny_folder, file, output, "--seeds", 2).returncode == 0
    assert [name[-2:] for name in started.names] == ["43"] * 8
    after = json.loads((output / "learning_curve.json").read_text())
    assert after["runs"][:8] == before["runs"]
    assert {point["seeds"] for point in after["means"]} == {2}
    small = [(output / "pairs" / f"train-010-seed-{seed}.jsonl").read_text() for seed in (42, 43)]
    assert small[0] != small[1]


def test_other_settings_or_data_are_not_mixed_in(tiny_folder, tmp_path, started):
    file, output = write_pairs(tmp_path / "mine.csv", ROWS), tmp_path / "curve"
    started.instead = dict.fromkeys(["pre-trained-010-seed-42"], lambda stream: 130)
    curve(tiny_folder, file, output)
    for flags in (("--learning-rate", "1e-3"), ("--epochs", 2), ("--seed", 7), ("--loss", "angle")):
        shown = curve(tiny_folder, file, output, *flags)
        assert shown.returncode == 2
        assert f"{flags[0].strip('-').replace('-', '_')}" in shown.stderr or "seed of the split" in shown.stderr
    write_pairs(file, ROWS[:-1])
    shown = curve(tiny_folder, file, output)
    assert shown.returncode == 2
    assert "train file (SHA-256)" in shown.stderr
    assert started.names == ["pre-trained-010-seed-42"]


def test_a_run_that_fails_is_said_with_its_log_and_the_others_go_on(tiny_folder, tmp_path, started):
    file, output = write_pairs(tmp_path / "mine.csv", ROWS), tmp_path / "curve"
    started.instead = {"random-050-seed-42": fails}
    shown = curve(tiny_folder, file, output)
    assert shown.returncode == 1
    log = output / "runs" / "random-050-seed-42.log"
    assert f"exit status 1, The run stopped: the loss is not a finite number (all of it: {log})" in shown.stdout
    assert len(json.loads((output / "learning_curve.json").read_text())["runs"]) == 7
    started.instead, started.names = {}, []
    assert curve(tiny_folder, file, output).returncode == 0
    assert started.names == ["random-050-seed-42"]


def test_parts_that_nothing_can_be_trained_on_are_left_out(tiny_folder, tmp_path, started):
    rows = [(one, two, 5 if n == 40 else 0) for n, (one, two, _) in enumerate(ROWS[:70])]
    test = write_pairs(tmp_path / "test.csv", ROWS[100:120])
    shown = curve(tiny_folder, write_pairs(tmp_path / "mine.csv", rows), tmp_path / "curve", "--test-file", test)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "10% of the labels (7), seed 42: left out, 7 of 70 training pairs, fewer than 10" in shown.stdout
    assert "pairs have the label 0" in shown.stdout
    found = json.loads((tmp_path / "curve" / "learning_curve.json").read_text())
    assert len(found["runs"]) + len(found["left_out"]) == 8
    assert found["forecast"] == {PRE_TRAINED: None, RANDOM: None}


def test_without_matplotlib_the_figures_are_written(tiny_folder, tmp_path, started, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("tools.learning_curve.runs.SHARES", (100,))
    shown = curve(tiny_folder, write_pairs(tmp_path / "mine.csv", ROWS), tmp_path / "curve")
    assert shown.returncode == 0, shown.stderr
    assert "pip install -r requirements.txt" in shown.stdout
    assert not (tmp_path / "curve" / "learning_curve.png").exists()
    assert len(json.loads((tmp_path / "curve" / "learning_curve.json").read_text())["runs"]) == 2


def test_what_can_not_be_used_is_refused_before_anything_starts(tiny_folder, tmp_path, started):
    file, output = write_pairs(tmp_path / "mine.csv", ROWS), tmp_path / "curve"
    shown = curve(tiny_folder, file, output, "--epoch", 3, "--batch-size", "x")
    assert shown.returncode == 2
    assert "--epoch: no such flag" in shown.stderr
    assert "--batch-size: 'x'" in shown.stderr
    refused = {"--overwrite": "--overwrite: of the training", "--seeds=0": "--seeds 0", "--test-fraction=0": "no test pairs",
               "--loss=contrastive": "contrastive needs binary"}  # fmt: skip
    for flag, why in refused.items():
        shown = curve(tiny_folder, file, output, flag)
        assert (shown.returncode, why in shown.stderr) == (2, True), shown.stderr
    assert not output.exists()
    assert started.names == []


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("notes.txt", "mine", "holds no learning curve"),
        ("learning_curve.json", "{", "damaged"),
        ("learning_curve.json", "[]", "damaged"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(tiny_folder, tmp_path, started, name, content, why):
    file, output = write_pairs(tmp_path / "mine.csv", ROWS), tmp_path / "curve"
    output.mkdir()
    (output / name).write_text(content)
    shown = curve(tiny_folder, file, output)
    assert (shown.returncode, why in shown.stderr) == (2, True), shown.stderr
    assert [(path.name, path.read_text()) for path in output.iterdir()] == [(name, content)]
    assert "is a file" in curve(tiny_folder, file, output / name).stderr


def test_the_command_as_a_person_types_it(tiny_folder, tmp_path):
    """Trained in processes of their own, with files named from the working directory, and labels and columns of the person's
    own."""
    rows = [(score, one, two) for one, two, score in ROWS[:24]]
    for name, part in (("train", rows[:12]), ("test", rows[12:])):
        write_pairs(tmp_path / f"{name}.csv", part, header=("how strong", "eins", "zwei"))
    shown = run_inside(learning_curve.main, "--model-dir", tiny_folder, "--train-file", "train.csv", "--test-file", "test.csv",
                       "--columns", "sentence1=eins,sentence2=zwei,label=how strong", *FLAGS, "--threads", 1,
                       cwd=tmp_path)  # fmt: skip
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "10% of the labels (1), seed 42: left out" in shown.stdout
    assert "pre-trained weights, 100% of the labels (12), seed 42: Spearman x 100" in shown.stdout
    assert (tmp_path / "output" / "learning-curve" / "learning_curve.png").is_file()


def test_sigterm_leaves_no_training_running(tmp_path):
    trains = tmp_path / "trains.py"
    trains.write_text("import os, sys, time; print(os.getpid(), flush=True); time.sleep(99)")
    code = "import sys, pathlib; from connection.system.signals import run_to_the_end\n"
    code += "from connection.runs import training_command as t\n"
    code += f"t.DRIVER = pathlib.Path({str(trains)!r}); run_to_the_end(lambda: t.start_training([]))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout
        training = int(command.stdout.readline())
        command.terminate()
        assert command.wait(60) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(training, 0)


@pytest.mark.parametrize(("kind", "said"), [("positives", ""), ("binary", "all 20 pairs have the label 1")])
def test_a_part_with_one_label_is_fit_where_all_pairs_are_connected(kind, said):
    prepared: Any = SimpleNamespace(scale=LabelScale(0, 1, kind, ""))
    assert CurvePairs(prepared, {}, np.ones(40), "multiple-negatives").unfit(50, 1) == said
