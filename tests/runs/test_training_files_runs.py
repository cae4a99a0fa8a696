"""Runs on several training files: steps, resume, several seeds, what the run's folder says of them."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

import bertFineTuningWithConnectionData as driver
from connection.training.objectives import make_objective
from tests.conftest import MANY, NOUNS, run_inside, signal_in_step, training_words, write_pairs
from tools import compare

LINKS = [(f"the {noun} plays", f"a {noun} in the {other}") for noun in NOUNS[:6] for other in NOUNS[:2]]
DEV = MANY[80:]


@pytest.fixture
def words(tmp_path, tiny_folder):
    """The flags of a run of 2 epochs of 5 + 2 steps, with softmax for the first file and negatives for the other."""
    own, dev = write_pairs(tmp_path / "own.csv", MANY[:20]), write_pairs(tmp_path / "dev.csv", DEV)
    links = write_pairs(tmp_path / "links.csv", LINKS, ("question", "answer"))
    files = ["--train-file", f"{links}:0.5:multiple-negatives", "--dev-file", dev, "--test-file", dev]
    words = training_words(tiny_folder, f"{own}:1:softmax", tmp_path / "run", *files)
    return [*words, "--allow", "leaked-pair,contradiction", "--precision", "fp32", "--dropout", 0.1, "--log-steps", 1]


def weights_of(run):
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / "state.safetensors")


def assert_equal(one, two):
    one, two = weights_of(one), weights_of(two)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_the_loss_of_each_step_is_the_files_own(words, tmp_path, monkeypatch):
    real, checked = driver.training_step, []

    def step(model, objective, optimizer, rate, norm, batch):
        (pairs,) = batch
        links = pairs.rows.min() >= 20
        assert links or pairs.rows.max() < 20
        with torch.no_grad():
            u, v = model(pairs.tokens)
        loss = real(model, objective, optimizer, rate, norm, batch)
        if links:
            by_hand = make_objective("multiple-negatives", 20.0, (), 32, [1])(u, v, pairs.target, pairs.sentences)
            assert float(loss) == pytest.approx(float(by_hand), abs=1e-5)
        checked.append(bool(links))
        return loss

    monkeypatch.setattr(driver, "training_step", step)
    shown = run_inside(driver.main, *words, "--dropout", 0, "--loss", "cosent")
    assert shown.returncode == 0, shown.stderr
    assert (len(checked), sum(checked)) == (14, 4)
    assert "own.csv: softmax, as asked; links.csv: multiple-negatives, as asked" in shown.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    parts = {split: (part["file"], part["pairs"], part.get("ratio")) for split, part in results["splits"].items()}
    assert parts["train"] == ("own.csv", 20, 1)
    assert parts["train-2"] == ("links.csv", 12, 0.5)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "`links.csv` `multiple-negatives`, each pair 0.5 times an epoch" in card
    assert "dataset_size:32" in card
    assert "loss:MultipleNegativesRankingLoss" in card
    page = (tmp_path / "run" / "report.html").read_text()
    assert "links.csv" in page


def test_a_resumed_run_equals_an_uninterrupted_one(words, tmp_path, monkeypatch):
    words += ["--part-size", 2]
    assert run_inside(driver.main, *words, "--output-dir", tmp_path / "whole").returncode == 0
    with monkeypatch.context() as patch:
        signal_in_step(patch, 9, signal.SIGTERM)
        assert run_inside(driver.main, *words).returncode == 143
    resumed = run_inside(driver.main, "--output-dir", tmp_path / "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_changed_files_and_ratios_are_refused_on_resume(words, tmp_path, monkeypatch):
    signal_in_step(monkeypatch, 9, signal.SIGTERM)
    assert run_inside(driver.main, *words).returncode == 143
    again = ["--output-dir", tmp_path / "run", "--resume"]
    files = ["--train-file", f"{tmp_path / 'own.csv'}:softmax", "--train-file"]
    other = run_inside(driver.main, *again, *files, f"{tmp_path / 'links.csv'}:2:multiple-negatives")
    assert (other.returncode, "ratios of the training files: [1.0, 2.0] now, [1.0, 0.5]" in other.stderr) == (2, True)
    other = run_inside(driver.main, *again, *files, f"{tmp_path / 'links.csv'}:0.5:multiple-negatives-symmetric")
    assert "objective: softmax, multiple-negatives-symmetric now" in other.stderr
    one = run_inside(driver.main, *again, *files[:2])
    assert "the train-2 pairs (none) are not those of the run so far" in one.stderr
    write_pairs(tmp_path / "links.csv", LINKS[1:], ("question", "answer"))
    changed = run_inside(driver.main, *again)
    assert changed.returncode == 2
    assert f"the train-2 pairs ({tmp_path / 'links.csv'}) are not those of the run so far" in changed.stderr
    (tmp_path / "links.csv").unlink()
    missing = run_inside(driver.main, *again)
    assert f"--train-file: {tmp_path / 'links.csv'} is not there" in missing.stderr


def test_two_seeds_and_what_two_runs_differ_in(words, tmp_path):
    assert run_inside(driver.main, *words, "--seeds", 2, "--epochs", 1).returncode == 0
    one = [word for word in words if "links.csv" not in str(word)]
    del one[one.index("--train-file", 4)]  # the flag of the value that is gone
    shown = run_inside(driver.main, *one, "--output-dir", tmp_path / "one", "--epochs", 1)
    assert shown.returncode == 0, shown.stderr
    compared = run_inside(compare.main, tmp_path / "run", tmp_path / "one")
    assert compared.returncode == 0, compared.stderr
    assert "links.csv:0.5:multiple-negatives" in compared.stdout
    assert "softmax, multiple-negatives" in compared.stdout


def test_a_file_that_does_not_fit_its_objective_is_named(words, tmp_path):
    words = [str(word).replace(":1:softmax", ":1:contrastive") for word in words]
    shown = run_inside(driver.main, *words)
    assert shown.returncode == 2
    assert f"{tmp_path / 'own.csv'}: --loss contrastive needs binary labels" in shown.stderr
    missing = run_inside(driver.main, *[word.replace("links.csv", "gone.csv") for word in words])
    assert f"{tmp_path / 'gone.csv'} does not exist (--train-file)" in missing.stderr
