"""Run folders of strangers: links, pipes and crafted files in them harm nothing outside, and give no traceback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel

import bertFineTuningWithConnectionData as driver
from connection.reports.html_report import write_report
from connection.reports.results import read_results
from connection.runs.checkpoints import _write_manifest
from connection.system.errors import InputError
from tests.conftest import PAIRS, make_pipe, run_inside, tiny_config, training_words, write_bert, write_pairs
from tools import compare

UNIX = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows; pipes are Unix's")
NAMES = ("settings.json", "audit.json", "skipped_rows.csv", "metrics.jsonl", "results.json", "predictions.csv", "errors.csv",
         "report.html", "model", "checkpoints", "seed-42")  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder with a model, its pairs and a finished run of 20 steps."""
    there = tmp_path_factory.mktemp("finished")
    torch.manual_seed(0)
    folder = write_bert(there / "tiny", BertModel(tiny_config()).eval())
    pairs = write_pairs(there / "pairs.csv", PAIRS * 5)
    shown = run_inside(driver.main, *training_words(folder, pairs, there / "run", "--cache-dir", there / "cache"))
    assert shown.returncode == 0, shown.stderr
    return there


@pytest.fixture
def there(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path


def begin(finished, output, *flags):
    words = training_words(finished / "tiny", finished / "pairs.csv", output, "--cache-dir", finished / "cache", *flags)
    return run_inside(driver.main, *words)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@UNIX
@pytest.mark.parametrize("name", NAMES)
def test_a_run_folder_with_a_link_is_refused_before_anything_is_done(finished, there, name):
    link, mine = there / "run" / name, there / "mine"
    if link.is_dir():
        shutil.move(link, mine)
    elif link.exists():
        link.rename(mine)
    else:
        mine.write_text("mine")
    link.symlink_to(mine)
    before = content(there)
    for flags in (["--overwrite"], ["--resume"], ["--overwrite", "--seeds", 2], ["--resume", "--seeds", 2]):
        again = "--resume" in flags and "--seeds" not in flags
        shown = (
            run_inside(driver.main, "--output-dir", there / "run", "--resume")
            if again
            else begin(finished, there / "run", *flags)
        )
        assert shown.returncode == 2, flags
        assert f"holds the link {name} -> {mine}" in shown.stderr or "no run of several seeds" in shown.stderr
        assert "measuring" not in shown.stdout
    assert content(there) == before


@UNIX
def test_links_that_appear_during_a_run_are_replaced_and_never_followed(finished, tmp_path, monkeypatch):
    mine, output, real, steps = tmp_path / "mine", tmp_path / "run", driver.training_step, []
    mine.write_text("mine")

    def step(*words):
        steps.append(1)
        if len(steps) == 5:
            for name in ("results.json", "predictions.csv", "errors.csv", "report.html"):
                (output / name).symlink_to(mine)
        return real(*words)

    monkeypatch.setattr(driver, "training_step", step)
    assert begin(finished, output, "--epochs", 1).returncode == 0
    assert mine.read_text() == "mine"
    assert not [path for path in output.iterdir() if path.is_symlink()]
    assert "residual" in (output / "errors.csv").read_text(encoding="utf-8-sig")

    def link_metrics(*words):
        (output / "metrics.jsonl").unlink()
        (output / "metrics.jsonl").symlink_to(mine)
        return real(*words)

    monkeypatch.setattr(driver, "training_step", link_metrics)
    shown = begin(finished, output, "--epochs", 1, "--overwrite", "--log-steps", 1)
    assert shown.returncode == 1
    assert "The run stopped: " in shown.stderr
    assert "it is a link" in shown.stderr
    assert mine.read_text() == "mine"


@UNIX
def test_another_name_of_the_metrics_keeps_what_it_has(there):
    metrics = there / "run" / "metrics.jsonl"
    with open(metrics, "a") as stream:
        stream.write("written after the checkpoint\n")
    os.link(metrics, there / "mine")
    before = metrics.read_bytes()
    assert run_inside(driver.main, "--output-dir", there / "run", "--resume").returncode == 0
    assert (there / "mine").read_bytes() == before
    assert b"written after" not in metrics.read_bytes()


@pytest.mark.parametrize("flag", ["--train-file", "--dev-file", "--test-file"])
@pytest.mark.parametrize("name", ["errors.csv", "seed-1/errors.csv"])
def test_a_pair_file_that_the_run_would_replace_is_refused(finished, there, flag, name):
    mine = there / "run" / name
    mine.parent.mkdir(exist_ok=True)
    write_pairs(mine, PAIRS * 5)
    before = mine.read_bytes()
    for how in (["--overwrite"], ["--overwrite", "--seeds", 2]):
        shown = begin(finished, there / "run", *how, "--allow", "leaked-pair,dev-test-pair", flag, mine)
        assert shown.returncode == 2
        assert f"{flag} {mine} is one of the files that this run would replace: copy it out of --output-dir" in shown.stderr
        assert mine.read_bytes() == before
    outside = write_pairs(there / "run" / "my-pairs.csv", PAIRS * 5)
    shown = begin(finished, there / "run", "--overwrite", "--epochs", 1, "--allow", "leaked-pair,dev-test-pair", flag, outside)
    assert shown.returncode == 0, shown.stderr
    assert outside.is_file()


@UNIX
@pytest.mark.parametrize("name", ["settings.json", "results.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(finished, there, name):
    (there / "run" / name).unlink()
    make_pipe(there / "run" / name)
    shown = begin(finished, there / "run", "--overwrite")
    assert (shown.returncode, f"holds {name}, but not of a run" in shown.stderr) == (2, True)
    shown = run_inside(compare.main, there / "run", finished / "run")
    assert (shown.returncode, f"{name} can't be read" in shown.stderr) == (2, True)


def test_the_cache_of_a_strangers_checkpoint_is_not_used(there, monkeypatch):
    folder = there / "run" / "checkpoints" / "step-000020"
    values = json.loads((folder / "state.json").read_text())
    values["settings"]["asked"]["cache_dir"] = values["settings"]["cache_dir"] = str(there / "of the stranger")
    (folder / "state.json").write_text(json.dumps(values))
    (folder / "manifest.json").unlink()
    _write_manifest(folder, 20)
    monkeypatch.setattr(driver, "CACHE_DIR", str(there / "mine"))
    shown = run_inside(driver.main, "--output-dir", there / "run", "--resume")
    assert shown.returncode == 0, shown.stderr
    assert list((there / "mine").iterdir())
    assert not (there / "of the stranger").exists()


CRAFTED: list[tuple[str, Any]] = [
    ("epochs", [5]), ("epochs", [{}]), ("best", {"spearman": "x"}), ("best", {"a": 1}), ("_loss", ["x", 1]), ("_loss", [1]),
    ("_seconds_before", [None, 1]), ("step", -1), ("pairs", -5),
]  # fmt: skip


def test_crafted_progress_is_refused_in_words(there):
    folder = there / "run" / "checkpoints" / "step-000020"
    shutil.rmtree(folder.with_name("step-000010"))
    values = json.loads((folder / "state.json").read_text())
    row = values["progress"]["epochs"][0]
    wrong: list[Any] = ["\x1b[31m", [], {}, True]
    rows = [("epochs", [row | {"dev Spearman": value}]) for value in wrong]
    for name, value in [*CRAFTED, *rows]:
        (folder / "state.json").write_text(json.dumps(values | {"progress": values["progress"] | {name: value}}))
        (folder / "manifest.json").unlink()
        _write_manifest(folder, 20)
        shown = run_inside(driver.main, "--output-dir", there / "run", "--resume")
        assert (shown.returncode, "not of this model and these settings" in shown.stderr) == (2, True), (name, value)
        assert "\x1b" not in shown.stderr + shown.stdout
    (folder / "state.json").write_text("5")
    (folder / "manifest.json").unlink()
    _write_manifest(folder, 20)
    shown = run_inside(driver.main, "--output-dir", there / "run", "--resume")
    assert (shown.returncode, "state.json holds no JSON object" in shown.stderr) == (2, True)


def test_the_digest_in_settings_json_is_of_the_pairs_that_were_trained_on(finished, tmp_path, monkeypatch):
    pairs = write_pairs(tmp_path / "pairs.csv", PAIRS * 5)
    digest = hashlib.sha256(pairs.read_bytes()).hexdigest()
    from connection.runs import training_run

    real = training_run.model_digest

    def replace_file(model):
        write_pairs(pairs, [(one, two, 5 - score) for one, two, score in PAIRS * 5])
        return real(model)

    words = training_words(finished / "tiny", pairs, tmp_path / "run", "--epochs", 1, "--cache-dir", tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "model_digest", replace_file)
        shown = run_inside(driver.main, *words)
    assert shown.returncode == 0, shown.stderr
    told = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert set(told["parts_sha256"].values()) == {digest}
    assert told["data_sha256"] == {str(pairs): digest}
    assert "errors.csv has no text" in shown.stdout
    shown = run_inside(driver.main, "--output-dir", tmp_path / "run", "--resume", "--extend", "--epochs", 2)
    assert shown.returncode == 2
    assert "are not those of the run so far" in shown.stderr


def test_markup_in_results_reaches_no_page(there):
    results = json.loads((there / "run" / "results.json").read_text())
    crafted = {
        "seeds": [{"seed": "<b>", "dev": None, "test": None}],
        "epoch_figures": [{"epoch": "<b>"}],
        "over_seeds": {"dev": "<b>"},
    }
    for key, value in crafted.items():
        (there / "run" / "results.json").write_text(json.dumps(results | {key: value}))
        with pytest.raises(InputError, match="damaged"):
            read_results(there / "run")
    results["slices"] = {"<script>": results["slices"]["dev"]}
    (there / "run" / "results.json").write_text(json.dumps(results))
    (there / "run" / "settings.json").write_text(json.dumps({"<script>": 1, "given": ["<script>"]}))
    write_report(there / "run")
    assert "<script>" not in (there / "run" / "report.html").read_text()


def test_a_finished_seed_of_any_content_gives_no_traceback(finished, tmp_path):
    rows = [(f"{one} {n}", f"{two} {n}", score) for n, (one, two, score) in enumerate(PAIRS * 5)]
    pairs = write_pairs(tmp_path / "pairs.csv", rows)
    words = training_words(finished / "tiny", pairs, tmp_path / "run", "--epochs", 1, "--cache-dir", tmp_path / "cache")
    assert run_inside(driver.main, *words, "--seeds", 2).returncode == 0
    results = json.loads((tmp_path / "run" / "seed-43" / "results.json").read_text())
    crafted: list[Any] = [{"final": {"dev": 5}}, {"final": {"dev": {"spearman": []}}}, {"epoch_figures": 5}]
    for wrong in [*crafted, {"base": {"dev": []}}, {"slices": 5}]:
        (tmp_path / "run" / "seed-43" / "results.json").write_text(json.dumps(results | wrong))
        shown = run_inside(driver.main, *words, "--seeds", 2, "--resume")
        assert shown.returncode in (0, 2), wrong
        assert "Traceback" not in shown.stderr


@UNIX
def test_a_folder_whose_name_is_not_utf_8(finished, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    pairs = shutil.copy(finished / "pairs.csv", odd / "pairs.csv")
    words = training_words(finished / "tiny", pairs, tmp_path / "run", "--epochs", 1, "--cache-dir", odd / "cache")
    shown = run_inside(driver.main, *words)
    assert shown.returncode == 0, shown.stderr
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["train_file"] == str(pairs)
    assert run_inside(driver.main, "--output-dir", tmp_path / "run", "--resume").returncode == 0
    shutil.copytree(finished / "tiny", odd / "tiny")
    for flags in (["--output-dir", odd / "run"], ["--output-dir", odd / "run", "--seeds", 2], ["--model-dir", odd / "tiny"]):
        shown = run_inside(driver.main, *words, "--overwrite", *flags)
        assert shown.returncode == 2
        assert r"caf\udce9" in shown.stderr
        assert "this name is not UTF-8" in shown.stderr
    assert not (odd / "run").exists()
