"""--seeds: several runs that differ in data order and dropout, their table, and the model of the best."""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import signal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file
from scipy.stats import spearmanr

import bertFineTuningWithConnectionData as driver
from connection.reports.plots import shown_of, training
from connection.reports.run_files import read_run
from connection.runs.seeds import best_seed, over_seeds
from connection.runs.training_run import TrainingRun
from connection.system.errors import RunError
from ConnectionBert import ConnectionBert
from tests.conftest import PAIRS, run_inside, signal_in_step, write_pairs

MANY = [(f"the {a} dog sees {n}", f"the {b} cat sees {n}", score) for n, (a, b, score) in enumerate(PAIRS * 12)]
FIGURES = ("predictions.csv", "metrics.jsonl")


@pytest.fixture
def run(tiny_folder, tmp_path):
    """The training command on pairs of which no two share a sentence."""
    words = ["--model-dir", tiny_folder, "--train-file", write_pairs(tmp_path / "many.csv", MANY), "--label-max", 5]
    words += ["--label-min", 0, "--epochs", 2, "--learning-rate", "3e-3", "--precision", "fp32", "--max-length", 32]
    return functools.partial(run_inside, driver.main, *words)


def read(folder, name="results.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_the_folder_holds_the_run_that_is_best_on_dev_and_all_seeds_figures(run, tmp_path):
    output = tmp_path / "out"
    shown = run("--output-dir", output, "--seeds", 3, "--seed", 7)
    assert shown.returncode == 0, shown.stderr
    runs = {seed: read(output / f"seed-{seed}") for seed in (7, 8, 9)}
    dev = {seed: results["final"]["dev"]["spearman"] for seed, results in runs.items()}
    best = max(dev, key=lambda seed: dev[seed])
    results = read(output)
    assert results["seed"] == best
    assert results["final"] == runs[best]["final"]
    assert [row["seed"] for row in results["seeds"]] == [7, 8, 9]
    test = [runs[seed]["final"]["test"]["spearman"] for seed in (7, 8, 9)]
    assert results["over_seeds"]["test"]["mean"] == pytest.approx(np.mean(test))
    assert results["over_seeds"]["test"]["deviation"] == pytest.approx(np.std(test, ddof=1))
    for name in FIGURES:
        assert (output / name).read_bytes() == (output / f"seed-{best}" / name).read_bytes()
    models = {path.parent: path.read_bytes() for path in output.rglob("model.safetensors")}
    assert models.keys() == {output / "model", output / f"seed-{best}" / "model"}
    assert len(set(models.values())) == 1
    assert f"{100 * np.mean(test):.2f}" in shown.stdout
    assert f"{100 * np.std(test, ddof=1):.2f}" in (output / "report.html").read_text(encoding="utf-8")


def test_seeds_share_the_split_and_each_can_be_run_alone(run, tmp_path):
    assert run("--output-dir", tmp_path / "out", "--seeds", 2, "--seed", 7).returncode == 0
    rows = [pd.read_csv(tmp_path / "out" / f"seed-{seed}" / "predictions.csv") for seed in (7, 8)]
    assert rows[0]["line"].tolist() == rows[1]["line"].tolist()
    assert rows[0]["final"].tolist() != rows[1]["final"].tolist()
    assert run("--output-dir", tmp_path / "alone", "--seed", 8, "--split-seed", 7).returncode == 0
    assert pd.read_csv(tmp_path / "alone" / "predictions.csv").equals(rows[1])
    assert run("--output-dir", tmp_path / "other", "--seed", 8).returncode == 0
    assert pd.read_csv(tmp_path / "other" / "predictions.csv")["line"].tolist() != rows[1]["line"].tolist()


def test_an_earlier_run_is_kept_until_the_first_seed_is_done(run, tmp_path):
    output = tmp_path / "out"
    assert run("--output-dir", output, "--seeds", 2).returncode == 0
    before = read(output)
    refused = run("--output-dir", output, "--seeds", 2)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert run("--output-dir", output, "--seeds", 2, "--overwrite", "--dev-file", tmp_path / "no.csv").returncode == 2
    assert read(output) == before
    assert (output / "model" / "model.safetensors").is_file()
    assert run("--output-dir", output, "--seeds", 2, "--seed", 50, "--overwrite").returncode == 0
    assert sorted(path.name for path in output.glob("seed-*")) == ["seed-50", "seed-51"]


def test_ctrl_c_in_a_later_seed_keeps_the_earlier_ones(run, tmp_path, monkeypatch):
    train, asked = driver.fine_tune, []

    def stopped_in_the_second(settings):
        asked.append(settings.seed)
        return 130 if len(asked) == 2 else train(settings)

    monkeypatch.setattr(driver, "fine_tune", stopped_in_the_second)
    assert run("--output-dir", tmp_path / "out", "--seeds", 3, "--seed", 7).returncode == 130
    assert asked == [7, 8]
    results = read(tmp_path / "out")
    assert results["interrupted"] is True
    assert [row["seed"] for row in results["seeds"]] == [7]
    assert results["over_seeds"]["test"]["deviation"] is None
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


def test_a_failure_in_a_later_seed_keeps_the_earlier_ones_and_the_folder_usable(run, tmp_path, monkeypatch):
    train, asked = driver.fine_tune, []

    def fails_in_the_second(settings):
        asked.append(settings.seed)
        if len(asked) == 2:
            raise RunError("the loss is not a finite number")
        return train(settings)

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(driver, "fine_tune", fails_in_the_second)
        shown = run("--output-dir", output, "--seeds", 3, "--seed", 7)
    assert shown.returncode == 1
    assert "standard deviation" in shown.stdout
    assert read(output)["interrupted"] is True
    assert read(output)["final"] == read(output / "seed-7")["final"]
    assert (output / "model" / "model.safetensors").is_file()
    assert run("--output-dir", output, "--seeds", 2, "--overwrite").returncode == 0


@pytest.mark.parametrize("moment", ["before it", "in it", "at its end"])
def test_resumed_at_any_seed_the_run_is_as_one_that_was_not_stopped(run, tmp_path, monkeypatch, moment):
    assert run("--output-dir", tmp_path / "whole", "--seeds", 3, "--seed", 7, "--eval-steps", 5).returncode == 0
    train, output = driver.fine_tune, tmp_path / "out"

    def stopped(settings):
        if settings.seed == 8 and moment == "before it":
            raise KeyboardInterrupt
        if settings.seed == 8 and moment == "in it":
            signal_in_step(patch, 9, signal.SIGTERM)
        status = train(settings)
        if settings.seed == 8 and moment == "at its end":
            raise KeyboardInterrupt
        return status

    with monkeypatch.context() as patch:
        patch.setattr(driver, "fine_tune", stopped)
        assert run("--output-dir", output, "--seeds", 3, "--seed", 7, "--eval-steps", 5).returncode in (130, 143)
    trained = []

    def noted(settings):
        trained.append(settings.seed)
        return train(settings)

    monkeypatch.setattr(driver, "fine_tune", noted)
    shown = run_inside(driver.main, "--output-dir", output, "--seeds", 3, "--resume")
    assert shown.returncode == 0, shown.stderr
    assert ("done: 7, 8\n" if moment == "at its end" else "done: 7\n") in shown.stdout
    assert trained == ([9] if moment == "at its end" else [8, 9])
    assert read(output)["seeds"] == read(tmp_path / "whole")["seeds"]
    assert read(output)["interrupted"] is False
    for name in ("predictions.csv", "model/model.safetensors"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_seeds_are_resumed_with_their_own_settings_or_not_at_all(run, tmp_path):
    output = tmp_path / "out"
    again = functools.partial(run_inside, driver.main, "--output-dir", output, "--resume")
    refused = again("--seeds", 2)
    assert refused.returncode == 2
    assert "holds no run of several seeds" in refused.stderr
    assert run("--output-dir", output, "--seeds", 1, "--seed", 7).returncode == 0
    assert again("--seeds", 2).returncode == 2
    output = tmp_path / "several"
    again = functools.partial(run_inside, driver.main, "--output-dir", output, "--resume")
    assert run("--output-dir", output, "--seeds", 2, "--seed", 7).returncode == 0
    refused = again("--seeds", 3, "--learning-rate", "1e-4", "--seed", 5)
    assert refused.returncode == 2
    assert "--learning-rate: 0.0001 now, 0.003 in the run so far" in refused.stderr
    assert "--seed: 5 now, 7 in the run so far" in refused.stderr
    story = read(output / "seed-8", "settings.json")
    (output / "seed-8" / "settings.json").write_text(json.dumps(story | {"parts_sha256": {}}))
    mixed = again("--seeds", 2)
    assert mixed.returncode == 1
    assert "seed-8 can't be compared with seed-7: parts_sha256" in mixed.stderr
    alone = again()
    assert alone.returncode == 2
    assert "give --seeds too" in alone.stderr


def test_of_fewer_seeds_the_best_ones_model_is_not_another_ones(run, tmp_path):
    output = tmp_path / "out"
    assert run("--output-dir", output, "--seeds", 3, "--seed", 7).returncode == 0
    best, model = read(output)["seed"], (output / "model" / "model.safetensors").read_bytes()
    again = functools.partial(run_inside, driver.main, "--output-dir", output, "--resume")
    for seeds in (2, 3):
        fewer = again("--seeds", seeds)
        had = best in range(7, 7 + seeds)
        assert (fewer.returncode, "has no model any more" in fewer.stderr) == ((0, False) if had else (2, True))
    shutil.rmtree(output / f"seed-{best}")  # the first one too is trained again
    assert again("--seeds", 3).returncode == 0
    assert (output / "model" / "model.safetensors").read_bytes() == model
    assert read(output)["seed"] == best


def test_an_older_runs_seeds_are_not_taken_for_those_of_one_that_was_to_replace_it(run, tmp_path, monkeypatch):
    output = tmp_path / "out"
    assert run("--output-dir", output, "--seeds", 2, "--seed", 7).returncode == 0
    with monkeypatch.context() as patch:
        patch.setattr(driver, "fine_tune", lambda settings: 143)
        begun = run("--output-dir", output, "--seeds", 2, "--seed", 8, "--learning-rate", "1e-4", "--overwrite")
        assert begun.returncode == 143
    assert run_inside(driver.main, "--output-dir", output, "--seeds", 2, "--resume").returncode == 0
    assert run("--output-dir", tmp_path / "new", "--seeds", 2, "--seed", 8, "--learning-rate", "1e-4").returncode == 0
    assert read(output)["seeds"] == read(tmp_path / "new")["seeds"]
    assert sorted(path.name for path in output.glob("seed-*")) == ["seed-8", "seed-9"]


def test_the_best_seed_is_the_first_of_equal_ones_and_never_an_undefined_one():
    def best(*values):
        rows: list[Any] = [{"seed": n, "dev": {"spearman": value}} for n, value in enumerate(values)]
        return best_seed(rows)

    assert (best(math.nan, 0.1, 0.1), best(0.2, math.nan, None), best(None, math.nan), best(0.1, 0.3)) == (1, 0, 0, 1)


def test_overwrite_removes_earlier_seeds_and_nothing_else_of_such_a_name(run, tmp_path):
    output = tmp_path / "out"
    assert run("--output-dir", output, "--seeds", 2).returncode == 0
    (output / "seed-bank").mkdir()
    (output / "seed-99").mkdir()
    for file in ("seed-bank/thesis.txt", "seed-99/thesis.txt", "seed-notes"):
        (output / file).write_text("mine")
    shown = run("--output-dir", output, "--seeds", 2, "--seed", 50, "--overwrite")
    assert shown.returncode == 0, shown.stderr
    assert sorted(path.name for path in output.glob("seed-*")) == ["seed-50", "seed-51", "seed-99", "seed-bank", "seed-notes"]
    assert (output / "seed-bank" / "thesis.txt").read_text() == "mine"


def test_the_one_next_command_is_of_the_model_that_is_kept(run, tmp_path):
    shown = run("--output-dir", tmp_path / "out", "--seeds", 2)
    (line,) = (line for line in shown.stdout.splitlines() if "tools.score" in line)
    assert str(tmp_path / "out" / "model") in line
    assert "Every epoch" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_model_that_all_seeds_begin_with_is_not_replaced_by_the_first(run, tmp_path):
    output = tmp_path / "out"
    assert run("--output-dir", output).returncode == 0
    shown = run("--output-dir", output, "--model-dir", output / "model", "--seeds", 2, "--overwrite")
    assert shown.returncode == 2
    assert "--model-dir lies in --output-dir" in shown.stderr


def test_undefined_figures_are_left_out_of_the_mean():
    values = (0.5, None, math.nan, 0.7)
    rows: list[Any] = [{"seed": n, "dev": None, "test": {"spearman": value}} for n, value in enumerate(values)]
    found = over_seeds(rows)
    assert found == {"test": {"mean": pytest.approx(0.6), "deviation": pytest.approx(0.1414, abs=1e-4), "seeds": 2}}


def weights_of(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_soup_is_the_greedy_average_of_the_seeds_models(run, tmp_path):
    output = tmp_path / "out"
    shown = run("--output-dir", output, "--seeds", 3, "--seed", 7, "--soup")
    assert shown.returncode == 0, shown.stderr
    results = read(output)
    seeds = {row["seed"]: row["dev"]["spearman"] for row in results["seeds"]}
    order = sorted(seeds, key=lambda seed: -seeds[seed])
    data = pd.read_csv(output / "predictions.csv").query("split == 'dev'")
    texts = pd.read_csv(tmp_path / "many.csv")
    one, two = (texts.iloc[data["line"] - 2, side].tolist() for side in (0, 1))
    model = ConnectionBert.load(output / "model")
    chosen, best = list[int](), -math.inf
    for seed in order:  # each seed's weights are kept in the average if it is better on dev
        folders = [output / f"seed-{number}" for number in [*chosen, seed]]
        mean = {name: sum(weights_of(folder)[name] for folder in folders) / len(folders) for name in weights_of(folders[0])}
        model.encoder.load_state_dict(mean)
        u, v = model.encode(one), model.encode(two)
        found = spearmanr((u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1), data["label"]).statistic
        if found > best:
            chosen, best, kept = [*chosen, seed], found, mean
    assert results["soup"] == read(output / "soup")["soup"] == chosen
    assert results["final"]["dev"]["spearman"] == pytest.approx(best, abs=1e-6)
    assert results["final"]["dev"]["spearman"] >= max(seeds.values())
    for name, weights in weights_of(output).items():
        torch.testing.assert_close(weights, kept[name], rtol=1e-6, atol=1e-7)
    named = f"average of the weights of {', '.join(map(str, chosen))}" if len(chosen) > 1 else "no average was better on dev"
    assert named in shown.stdout
    page = (output / "report.html").read_text(encoding="utf-8")
    assert named in page
    card = (output / "model" / "README.md").read_text(encoding="utf-8")
    assert ("model of one of 3 seeds, the best on" in card) == ("the best on dev of 3 seeds" in page) == (len(chosen) == 1)
    assert (f"average of the weights of {len(chosen)} of 3 models" in card) == (len(chosen) > 1)
    assert (f"the average of {len(chosen)} of 3 seeds" in page) == (len(chosen) > 1)
    assert f"of the seed{'s' * (len(chosen) > 1)} {', '.join(map(str, chosen))}; batch size" in card
    assert "\n- weights: " in card
    assert (
        run("--output-dir", output, "--seeds", 4, "--seed", 7, "--resume").returncode == 0
    )  # one more seed; it is a soup still
    assert len(read(output)["seeds"]) == 4
    assert set(read(output)["soup"]) <= {7, 8, 9, 10}


def test_plots_of_a_soup_show_each_seed_and_no_training_of_its_own(run, tmp_path):
    output = tmp_path / "out"
    assert run("--output-dir", output, "--seeds", 2, "--soup", "--log-steps", 1).returncode == 0
    shown = shown_of([read_run(output)])
    assert [(one.run.name, one.faint) for one in shown] == [("seed-42", True), ("seed-43", True), ("out", False)]
    figure = Figure()
    assert training(figure, shown) == "2 seeds, a thin line each."
    assert [len(panel.lines) for panel in figure.axes] == [2, 2]
    assert not figure.axes[1].texts  # no step of the average is named


def test_soup_without_a_dev_figure_is_the_first_seeds_model(run, tmp_path):
    """All dev labels are equal, so that no average is better than another."""
    dev = write_pairs(tmp_path / "dev.csv", [(one, two, 3) for one, two, _ in PAIRS])
    output = tmp_path / "out"
    shown = run("--dev-file", dev, "--allow", "few-labels", "--output-dir", output, "--seeds", 2, "--soup")
    assert shown.returncode == 0, shown.stderr
    assert read(output)["soup"] == [42]
    for name, weights in weights_of(output).items():
        assert torch.equal(weights, weights_of(output / "seed-42")[name])


@pytest.mark.parametrize("number", [1, 2])
def test_ctrl_c_while_models_are_averaged_keeps_the_seeds_and_can_be_resumed(run, tmp_path, monkeypatch, number):
    output = tmp_path / "out"
    real = TrainingRun.improves

    def improves(self, at):
        if at == number:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, at)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "improves", improves)
        stopped = run("--output-dir", output, "--seeds", 2, "--soup")
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stderr
    assert len(read(output)["seeds"]) == 2
    assert "soup" not in read(output)
    assert run("--output-dir", output, "--seeds", 2, "--resume").returncode == 0
    assert read(output)["soup"]


def test_soup_needs_several_seeds_with_their_models_and_dev_pairs(run, tmp_path):
    output = tmp_path / "out"
    assert "--seeds" in run("--output-dir", output, "--soup").stderr
    without = run("--output-dir", output, "--soup", "--seeds", 2, "--dev-fraction", 0)
    assert without.returncode == 2
    assert "--dev-file" in without.stderr
    assert run("--output-dir", output, "--overwrite", "--seeds", 2).returncode == 0
    later = run("--output-dir", output, "--seeds", 2, "--soup", "--resume")
    assert later.returncode == 2
    assert "Remove their folders" in later.stderr
    (lost,) = [folder for folder in output.glob("seed-*") if not (folder / "model").is_dir()]
    shutil.rmtree(lost)
    assert run("--output-dir", output, "--seeds", 2, "--soup", "--resume").returncode == 0
    assert read(output)["soup"]
    assert run("--output-dir", output, "--seeds", 2, "--overwrite").returncode == 0
    assert "soup" not in read(output)
    assert not (output / "soup").exists()
