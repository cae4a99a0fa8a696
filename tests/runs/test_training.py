"""The training step against an independent implementation, and the command from end to end as a person runs it."""

from __future__ import annotations

import csv
import functools
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import cosine_similarity

import bertFineTuningWithConnectionData as driver
from connection.data.tokenization import tokenize
from connection.model.packing import pack
from connection.system import devices
from connection.system.devices import bf16_gain, pick_precision
from connection.training.objectives import cosine_mse
from connection.training.optimizer import make_optimizer
from connection.training.schedule import make_schedule
from ConnectionBert import ConnectionBert
from tests.conftest import DRIVER, PAIRS, ROOT, run_command, run_inside, training_words, write_pairs

RESULT_KEYS = (
    "base final best_step epochs steps seconds pairs_per_second tokens_per_second peak_memory_bytes device precision seed"
).split()


IN_THIS_PROCESS = functools.partial(run_inside, driver.main)


def train(tiny_folder, pair_file, output, *flags, run=IN_THIS_PROCESS):
    words = ["--model-dir", tiny_folder, "--train-file", pair_file, "--output-dir", output, "--batch-size", 4]
    words += ["--max-length", 32, "--label-min", 0, "--label-max", 5]
    words += ["--allow", "leaked-pair"]  # the few pairs of these tests stand in several files
    return run(*words, *flags)


def as_a_person(cwd):
    """The command in a process of its own, started from any folder."""
    return functools.partial(run_command, DRIVER, cwd=cwd)


# --- one step ----------------------------------------------------------------------------------------------------------


def test_loss_and_gradient_equal_sentence_transformers(tiny_folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    model = ConnectionBert.load(tiny_folder)  # dropout off: load() leaves it in evaluation mode
    model.save(tmp_path / "saved")
    target = torch.tensor([pair[2] / 5 for pair in PAIRS])
    sides = [[pair[side] for pair in PAIRS] for side in (0, 1)]

    tokens = tokenize([str(text) for text in sides[0] + sides[1]], model.tokenizer, model.max_length)
    u, v = model(pack([tokens[row] for row in range(len(tokens))], model.tokenizer.pad_token_id))
    loss = cosine_mse(u, v, target, torch.arange(2 * len(PAIRS)).reshape(2, -1))
    loss.backward()

    peer = SentenceTransformer(str(tmp_path / "saved"), device="cpu").eval()
    features = [dict(model.tokenizer(side, padding=True, return_tensors="pt")) for side in sides]
    peer_loss = CosineSimilarityLoss(peer)(features, target)
    peer_loss.backward()

    assert loss.item() == pytest.approx(peer_loss.item(), abs=1e-5)
    peer_gradients = {name.split("model.", 1)[-1]: weight.grad for name, weight in peer.named_parameters()}
    compared = 0
    for name, weight in model.encoder.named_parameters():
        if weight.grad is not None:
            assert torch.allclose(weight.grad, peer_gradients[name], atol=1e-5), name
            compared += 1
    assert compared == sum(1 for name, _ in model.encoder.named_parameters() if not name.startswith("pooler"))


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_schedule_equals_transformers(name):
    from transformers import get_scheduler

    for steps, ratio in ((100, 0.1), (7, 0.5), (10, 0.0), (3, 1.0), (1, 0.1)):
        share = make_schedule(name, steps, ratio)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        warmup = min(math.ceil(steps * ratio), steps - 1)
        peer = get_scheduler("constant_with_warmup" if name == "constant" else name, optimizer, warmup, steps)
        for step in range(steps):
            assert share(step) == pytest.approx(peer.get_last_lr()[0])
            optimizer.step()
            peer.step()


def test_biases_and_layernorm_are_not_decayed(tiny_folder):
    model = ConnectionBert.load(tiny_folder)
    optimizer = make_optimizer(model, None, 0.3).adamw
    names = {id(weight): name for name, weight in model.named_parameters()}
    for group in optimizer.param_groups:
        assert group["params"]
        for weight in group["params"]:
            exempt = "bias" in names[id(weight)] or "LayerNorm" in names[id(weight)]
            assert group["weight_decay"] == (0 if exempt else 0.3)
    trained = {names[id(weight)] for group in optimizer.param_groups for weight in group["params"]}
    assert trained == {name for name in names.values() if "pooler" not in name}


# --- the command -------------------------------------------------------------------------------------------------------


def test_one_epoch_from_the_command_line(tiny_folder, tmp_path):
    """All promises of the run folder, with every figure of results.json computed again from model/ by other means."""
    train_file, dev, test = (write_pairs(tmp_path / f"{name}.csv", rows) for name, rows in
                             (("train", PAIRS * 2), ("dev", PAIRS[:5]), ("test", PAIRS[2:])))  # fmt: skip
    output = tmp_path / "run"
    shown = train(tiny_folder, train_file, output, "--dev-file", dev, "--test-file", test, "--epochs", 2, "--log-steps", 1,
                  "--learning-rate", "1e-3", run=as_a_person(tmp_path))  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    for part in ("measuring the base model", "training loss", "dev Spearman", "95% interval", "tools.score"):
        assert part in shown.stdout

    results = json.loads((output / "results.json").read_text())
    assert set(RESULT_KEYS) <= set(results)
    assert (results["steps"], results["epochs"], results["seed"]) == (8, 2, 42)
    assert results["pairs_per_second"] > 0
    assert results["peak_memory_bytes"] > 1e6

    from sentence_transformers import SentenceTransformer

    label = [pair[2] for pair in PAIRS[2:]]
    ConnectionBert.load(tiny_folder).save(tmp_path / "base")
    for part, folder in (("base", tmp_path / "base"), ("final", output / "model")):
        peer = SentenceTransformer(str(folder), device="cpu")
        u, v = (torch.as_tensor(peer.encode([pair[side] for pair in PAIRS[2:]])) for side in (0, 1))
        expected = stats.spearmanr(cosine_similarity(u, v), label).statistic
        assert results[part]["test"]["spearman"] == pytest.approx(expected, abs=1e-6)
        assert results[part]["test"]["pairs"] == 6
        assert results[part]["dev"]["pairs"] == 5

    settings = json.loads((output / "settings.json").read_text())
    assert settings["learning_rate"] == 1e-3
    assert set(settings["versions"]) >= {"torch", "transformers", "numpy"}
    assert list(settings["data_sha256"]) == [str(train_file), str(dev), str(test)]
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line and "split" not in line] == list(range(1, 9))
    dev_figures = {line["step"]: line["spearman"] for line in lines if line.get("split") == "dev"}
    assert list(dev_figures) == [0, 4, 8]
    trained = {step: figure for step, figure in dev_figures.items() if step}
    assert results["best_step"] == max(trained, key=trained.__getitem__)
    assert results["final"]["dev"]["spearman"] == max(trained.values())
    assert '<section class="tile' in (output / "report.html").read_text()
    own = json.loads((output / "model" / "connection.json").read_text())
    assert (own["label_min"], own["label_max"]) == (0, 5)
    assert {path.name for path in output.iterdir()} == {
        "settings.json",
        "audit.json",
        "errors.csv",
        "metrics.jsonl",
        "results.json",
        "predictions.csv",
        "report.html",
        "model",
        "checkpoints",
    }


def test_two_steps_with_a_training_file_alone_and_reload(tiny_folder, pair_file, tmp_path):
    shown = train(tiny_folder, pair_file, tmp_path / "run", "--epochs", 1, "--learning-rate", "1e-2")
    assert shown.returncode == 0, shown.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["base"], results["final"], results["steps"], results["best_step"]) == ({}, {}, 2, 2)
    before, after = ConnectionBert.load(tiny_folder), ConnectionBert.load(tmp_path / "run" / "model")
    moved = [
        name
        for name, weight in after.encoder.named_parameters()
        if not torch.equal(weight, before.get_parameter(f"encoder.{name}"))
    ]
    assert any("layer.0" in name for name in moved)
    assert not any("pooler" in name for name in moved)


def test_training_lowers_the_loss_and_the_seed_decides_all(tiny_folder, pair_file, tmp_path):
    losses = {}
    for name, seed, workers in (("a", 1, 0), ("b", 1, 2), ("c", 2, 0)):
        flags = ("--seed", seed, "--num-workers", workers, "--epochs", 8, "--learning-rate", "3e-3", "--log-steps", 1)
        shown = train(tiny_folder, pair_file, tmp_path / name, *flags, "--precision", "fp32")
        assert shown.returncode == 0, shown.stderr
        losses[name] = [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    assert losses["a"] == losses["b"]
    assert losses["a"] != losses["c"]
    assert np.mean(losses["a"][-2:]) < 0.7 * np.mean(losses["a"][:2])
    saved = [ConnectionBert.load(tmp_path / name / "model").encoder.state_dict() for name in ("a", "b")]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])


@pytest.mark.parametrize(("native", "gain", "taken"), [(True, 3.9, "bf16"), (True, 0.6, "fp32"), (False, 3.9, "fp32")])
def test_auto_takes_bf16_where_it_was_measured_to_pay(monkeypatch, native, gain, taken):
    """Some processors have bf16 instructions that are no faster than fp32's."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    monkeypatch.setattr(devices, "bf16_gain", lambda threads: gain)
    precision, why = pick_precision("auto", torch.device("cpu"))
    assert precision == taken
    assert (f"measured {gain} times" in why) == native
    assert pick_precision("bf16", torch.device("cpu")) == ("bf16", "as asked")


def test_the_gain_is_the_ratio_of_two_clocks(monkeypatch):
    """With a clock in which a product in fp32 takes 3 s and one in bf16 2 s."""
    now = 0.0

    def product(a, b):
        nonlocal now
        now += 3.0 if a.dtype == torch.float32 else 2.0

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(torch, "mm", product)
    assert bf16_gain.__wrapped__(1) == pytest.approx(1.5)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told to keep pages")
def test_freed_blocks_keep_their_pages():
    """Blocks of 40 MiB one after the other: in the end they take pages that are there. Without it each has 10,000 faults."""
    code = """
import resource, torch
from connection.system.devices import keep_pages
keep_pages()
for turn in range(60):
    if turn == 50:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(10 << 20).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    assert int(run_command("-c", code).stdout) < 1000


def test_bf16_trains_the_same_direction(tiny_folder, pair_file, tmp_path):
    for precision in ("bf16", "fp32"):
        flags = ("--precision", precision, "--epochs", 8, "--learning-rate", "3e-3", "--dev-file", pair_file)
        shown = train(tiny_folder, pair_file, tmp_path / precision, *flags)
        assert shown.returncode == 0, shown.stderr
        assert f"cpu, {precision} (as asked)" in shown.stdout
    figures = [json.loads((tmp_path / p / "results.json").read_text())["final"]["dev"]["loss"] for p in ("bf16", "fp32")]
    assert figures[0] == pytest.approx(figures[1], rel=0.25)


def test_eval_steps_adds_evaluations(tiny_folder, pair_file, tmp_path):
    shown = train(
        tiny_folder, pair_file, tmp_path / "run", "--epochs", 1, "--batch-size", 2, "--eval-steps", 2, "--dev-file", pair_file
    )
    assert shown.returncode == 0, shown.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("split") == "dev"] == [0, 2, 4]


def test_the_real_small_model_learns_the_bundled_data(minilm, tmp_path):
    """One short epoch over a part of the bundled pairs, read back by this project."""
    rows = (ROOT / "data" / "requirements-train.csv").read_text(encoding="utf-8").splitlines(keepends=True)[:97]
    (tmp_path / "part.csv").write_text("".join(rows), encoding="utf-8")
    words = ["--model-dir", minilm, "--train-file", tmp_path / "part.csv", "--output-dir", tmp_path / "run", "--epochs", 1]
    shown = run_inside(driver.main, *words, "--learning-rate", "1e-4", "--log-steps", 1)
    assert shown.returncode == 0, shown.stderr
    assert ConnectionBert.load(tmp_path / "run" / "model").normalized
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) >= 4
    assert np.isfinite(losses).all()


# --- what goes wrong ---------------------------------------------------------------------------------------------------


def test_bad_data_is_refused_before_the_output_folder_is_touched(tiny_folder, pair_file, tmp_path):
    bad = write_pairs(tmp_path / "bad.csv", [("a", "b", "nan"), ("", "b", 3), ("a", "b", 7), ("a dog", "a cat", 2)])
    shown = train(tiny_folder, bad, tmp_path / "run", "--dev-file", pair_file)
    assert shown.returncode == 2
    for part in ("line 2: column score: 'nan'", "line 3: column sentence1: blank", "line 4: column score: 7 is outside"):
        assert f"{bad}, {part}" in shown.stderr
    for part in ("bad-label: " + str(bad) + ": 2 rows (lines 2, 4)", "blank-text: " + str(bad) + ": 1 rows (lines 3)"):
        assert part in shown.stdout
    shown = train(tiny_folder, bad, tmp_path / "run", "--dev-file", tmp_path / "absent.csv", "--test-file", tmp_path)
    assert shown.returncode == 2
    assert "absent.csv does not exist (--dev-file)" in shown.stderr
    shown = train(tiny_folder, bad, tmp_path / "run", "--dev-file", pair_file, "--test-file", tmp_path)
    assert shown.returncode == 2
    assert "is a folder" in shown.stderr
    assert not (tmp_path / "run").exists()


def test_bad_rows_can_be_skipped_and_are_all_listed(tiny_folder, tmp_path):
    bad = write_pairs(tmp_path / "bad.csv", [("a", "b", "nan"), *PAIRS, ("", "b", 3), ("a", "b", 7)])
    shown = train(tiny_folder, bad, tmp_path / "run", "--on-bad-rows", "skip", "--epochs", 1)
    assert shown.returncode == 0, shown.stderr
    assert "3 rows are skipped" in shown.stdout
    with open(tmp_path / "run" / "skipped_rows.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [(row[1], row[2].split(":")[0]) for row in rows] == [("2", "bad-label"), ("11", "blank-text"), ("12", "bad-label")]
    assert rows[0][3:] == ["a", "b", "nan"]
    findings = json.loads((tmp_path / "run" / "audit.json").read_text())["findings"]
    assert {(finding["name"], finding["count"]) for finding in findings if finding["severity"] == "error"} == {
        ("bad-label", 2), ("blank-text", 1)
    }  # fmt: skip


def test_a_training_file_alone_is_split_by_sentence_and_its_scale_is_found(tiny_folder, tmp_path):
    rows = [(f"the man {word} {n}", f"a dog {word} {n}", 1 + n % 5) for n in range(40) for word in ("sees", "rides", "reads")]
    file = write_pairs(tmp_path / "mine.csv", rows, header=("text_a", "text_b", "label"))
    words = [
        "--model-dir",
        tiny_folder,
        "--train-file",
        file,
        "--output-dir",
        tmp_path / "run",
        "--max-length",
        32,
        "--epochs",
        1,
    ]
    shown = IN_THIS_PROCESS(*words)
    assert shown.returncode == 0, shown.stderr
    assert "graded, 1 (no connection) to 5 (full connection), taken from the training file" in shown.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["final"]["dev"]["pairs"] == results["final"]["test"]["pairs"] == 12
    assert "low" in results["gain"]["test"]
    assert ConnectionBert.load(tmp_path / "run" / "model").labels == (1.0, 5.0)
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (settings["label_min"], settings["label_max"]) == (1.0, 5.0)


def test_constant_dev_labels_are_refused(tiny_folder, pair_file, tmp_path):
    same = write_pairs(tmp_path / "same.csv", [("a dog", "a cat", 2), ("a horse", "a book", 2)])
    shown = train(tiny_folder, pair_file, tmp_path / "run", "--dev-file", same)
    assert shown.returncode == 2
    assert "few-labels" in shown.stderr
    assert "all labels are 2" in shown.stdout


def test_an_output_folder_in_use_is_refused_unless_overwritten(tiny_folder, pair_file, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    shown = train(tiny_folder, pair_file, output)
    assert shown.returncode == 2
    assert "--overwrite" in shown.stderr
    assert [path.name for path in output.iterdir()] == ["notes.txt"]
    assert train(tiny_folder, pair_file, output, "--overwrite", "--epochs", 1).returncode == 0
    assert (output / "notes.txt").read_text() == "mine"
    (output / "metrics.jsonl").write_text("old")
    assert train(tiny_folder, pair_file, output, "--overwrite", "--epochs", 1).returncode == 0
    assert "old" not in (output / "metrics.jsonl").read_text()


def test_overwrite_removes_nothing_that_is_not_of_a_run(tiny_folder, pair_file, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "thesis.txt").write_text("years of work")
    (tmp_path / "mine" / "settings.json").write_text('{"theme": "dark"}')
    shown = train(tiny_folder, pair_file, tmp_path / "mine", "--overwrite")
    assert shown.returncode == 2
    assert "not of a run" in shown.stderr
    assert (tmp_path / "mine" / "model" / "thesis.txt").read_text() == "years of work"
    assert "dark" in (tmp_path / "mine" / "settings.json").read_text()


def test_an_earlier_model_stays_until_the_new_run_saves_its_own(tiny_folder, tmp_path, monkeypatch, capsys):
    pairs = write_pairs(tmp_path / "p.csv")
    flags = ["--model-dir", tiny_folder, "--train-file", pairs, "--output-dir", tmp_path / "run", "--max-length", "32",
             "--loss", "cosine-mse"]  # fmt: skip
    assert driver.main([str(word) for word in [*flags, "--epochs", "1"]]) == 0
    before = ConnectionBert.load(tmp_path / "run" / "model").encode(["a dog"], progress=False)
    monkeypatch.setattr("connection.training.objectives.cosine_mse", lambda u, v, *words: (u * math.nan).sum())
    assert driver.main([str(word) for word in [*flags, "--overwrite"]]) == 1
    assert "Nothing was saved" in capsys.readouterr().err
    assert np.array_equal(before, ConnectionBert.load(tmp_path / "run" / "model").encode(["a dog"], progress=False))


def test_weights_that_overflow_in_an_update_are_not_saved(tiny_folder, pair_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("connection.training.schedule.make_schedule", lambda name, steps, ratio: lambda step: math.inf)
    flags = ["--model-dir", tiny_folder, "--train-file", pair_file, "--output-dir", tmp_path / "run", "--max-length", 32]
    assert driver.main([str(word) for word in [*flags, "--epochs", 1, "--batch-size", 100]]) == 1
    assert "not saved" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()


def test_a_run_of_one_step_trains(tiny_folder, pair_file, tmp_path):
    shown = train(tiny_folder, pair_file, tmp_path / "run", "--epochs", 1, "--batch-size", 100)
    assert shown.returncode == 0, shown.stderr
    base, tuned = (
        ConnectionBert.load(folder).encode(["a dog"], progress=False) for folder in (tiny_folder, tmp_path / "run" / "model")
    )
    assert not np.array_equal(base, tuned)


def test_a_folder_that_names_its_pooling_keeps_it_unless_asked(tiny_folder, pair_file, tmp_path):
    ConnectionBert.load(tiny_folder, pooling="cls").save(tmp_path / "cls")
    for flags, pooling in (([], "cls"), (["--pooling", "mean"], "mean")):
        shown = train(tmp_path / "cls", pair_file, tmp_path / f"run-{pooling}", "--epochs", 1, *flags)
        assert f"{pooling} pooling" in shown.stdout, shown.stderr
        assert json.loads((tmp_path / f"run-{pooling}" / "settings.json").read_text())["pooling"] == pooling
        assert ConnectionBert.load(tmp_path / f"run-{pooling}" / "model").pooling == pooling


def test_equal_cosines_have_no_rank_order(tiny_folder, tmp_path):
    same = write_pairs(tmp_path / "same.csv", [(text, text, score) for text, _, score in PAIRS])
    shown = train(tiny_folder, write_pairs(tmp_path / "p.csv"), tmp_path / "run", "--epochs", 1, "--test-file", same)
    assert shown.returncode == 0, shown.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["final"]["test"]["spearman"] is None


def test_the_model_that_is_trained_from_is_never_replaced(tiny_folder, pair_file, tmp_path):
    assert train(tiny_folder, pair_file, tmp_path / "run", "--epochs", 1).returncode == 0
    shown = train(tmp_path / "run" / "model", pair_file, tmp_path / "run", "--overwrite")
    assert shown.returncode == 2
    assert "another --output-dir" in shown.stderr
    ConnectionBert.load(tmp_path / "run" / "model")


def test_a_gpu_that_is_not_there_is_refused(tiny_folder, pair_file, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU; the refusal is for machines without")
    shown = train(tiny_folder, pair_file, tmp_path / "run", "--device", "cuda")
    assert shown.returncode == 2
    assert "--device cpu" in shown.stderr


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_non_finite_step_stops_the_run_and_saves_nothing_of_it(tiny_folder, tmp_path, monkeypatch, capsys, what):
    """Step 3, in the second epoch, is broken: model/ keeps the first epoch's finite weights, and the rows are named."""
    calls = []

    def broken(u, v, target, sentences, weight=None):
        calls.append(1)
        loss = cosine_mse(u, v, target, sentences)
        if len(calls) < 3:
            return loss
        return loss * math.inf if what == "loss" else loss + (u * 0).sum().abs().sqrt()  # sqrt at 0: infinite slope

    monkeypatch.setattr("connection.training.objectives.cosine_mse", broken)
    pairs = write_pairs(tmp_path / "p.csv")
    flags = ["--model-dir", tiny_folder, "--train-file", pairs, "--output-dir", tmp_path / "run", "--batch-size", "4"]
    assert driver.main([str(word) for word in [*flags, "--epochs", "2", "--max-length", "32"]]) == 1
    message = capsys.readouterr().err
    assert "step 3" in message
    assert f"{pairs}, lines " in message
    assert len(message.split("lines ")[1].split(")")[0].split(", ")) == 4
    weights = ConnectionBert.load(tmp_path / "run" / "model").parameters()
    assert all(torch.isfinite(weight).all() for weight in weights)


@pytest.mark.parametrize("evaluated", [False, True])
def test_interrupt_ends_cleanly_with_what_was_best_so_far(tiny_folder, tmp_path, evaluated):
    pairs, output = write_pairs(tmp_path / "p.csv", PAIRS * 20), tmp_path / "run"
    flags = ["--log-steps", 1, "--num-workers", 2 * evaluated]
    flags += ["--epochs", 5000, "--eval-steps", 3] if evaluated else ["--epochs", 1, "--batch-size", 1]
    command = [sys.executable, DRIVER, *training_words(tiny_folder, pairs, output, *flags)]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # until it trains, and has evaluated where that is the case
        text = (output / "metrics.jsonl").read_text() if (output / "metrics.jsonl").exists() else ""
        if '"step": 5' in text and (not evaluated or (output / "model").exists()):
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "Ended by Ctrl-C" in stdout
    results = json.loads((output / "results.json").read_text())
    assert results["interrupted"]
    assert 0 < results["best_step"] <= results["steps"]
    assert ("dev" in results["final"]) == evaluated
    assert ConnectionBert.load(output / "model").encode(["a dog"], progress=False).shape == (1, 32)


def test_without_packing_and_in_fp32_a_run_comes_to_nearly_the_same(tiny_folder, pair_file, tmp_path):
    """Two ways to compute one training: dropout differs, so it is switched off."""
    config = json.loads((tiny_folder / "config.json").read_text())
    (tiny_folder / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}))
    vectors = []
    for name, flags in (("packed", []), ("padded", ["--no-packing"])):
        shown = train(tiny_folder, pair_file, tmp_path / name, "--epochs", 3, "--precision", "fp32", "--batch-size", 3, *flags)
        assert shown.returncode == 0, shown.stderr
        assert f"{name} rows" in shown.stdout
        vectors.append(ConnectionBert.load(tmp_path / name / "model").encode(["a dog sees the cat"], precision="fp32"))
    base = ConnectionBert.load(tiny_folder).encode(["a dog sees the cat"], precision="fp32")
    assert np.allclose(vectors[0], vectors[1], atol=1e-4)
    assert not np.allclose(base, vectors[0], atol=1e-3)


def test_two_runs_of_one_seed_are_equal_to_the_last_bit(tiny_folder, pair_file, tmp_path):
    for precision in ("bf16", "fp32"):
        saved = []
        for name in ("one", "two"):
            output = tmp_path / f"{name}-{precision}"
            assert train(tiny_folder, pair_file, output, "--epochs", 2, "--precision", precision).returncode == 0
            saved.append((output / "model" / "model.safetensors").read_bytes())
        assert saved[0] == saved[1]


# --- training practice -------------------------------------------------------------------------------------------------


def weights_of(folder):
    return ConnectionBert.load(folder).encoder.state_dict()


@pytest.mark.parametrize("packing", ["--packing", "--no-packing"])
def test_frozen_embeddings_stay_as_they_are(tiny_folder, pair_file, tmp_path, packing):
    shown = train(tiny_folder, pair_file, tmp_path / "run", packing, "--freeze-embeddings", "--learning-rate", "1e-3",
                  "--ema", 0.5, "--epochs", 1, "--dev-file", pair_file)  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    before, after = weights_of(tiny_folder), weights_of(tmp_path / "run" / "model")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("embeddings" in name for name in changed)
    assert all("embeddings" in name or "pooler" in name or "key.bias" in name for name in before.keys() - changed)


@pytest.mark.parametrize("packing", ["--packing", "--no-packing"])
def test_less_memory_changes_no_result(tiny_folder, pair_file, tmp_path, packing):
    """Parts of a batch, and layers computed twice: the same weights come out. Dropout is off, as each part draws its own."""
    found = {}
    for name, flags in {"plain": (), "parts": ("--part-size", 3), "twice": ("--gradient-checkpointing",)}.items():
        shown = train(tiny_folder, pair_file, tmp_path / name, packing, "--precision", "fp32", "--epochs", 2, "--dropout", 0,
                      "--dev-file", pair_file, "--learning-rate", "1e-3", *flags)  # fmt: skip
        assert shown.returncode == 0, shown.stderr
        figures = json.loads((tmp_path / name / "results.json").read_text())
        found[name] = [row["training loss"] for row in figures["epoch_figures"]]
    assert found["twice"] == found["plain"]
    assert found["parts"] == pytest.approx(found["plain"], rel=1e-4)


def test_layers_computed_twice_have_the_same_dropout(tiny_folder, pair_file, tmp_path):
    for name, flags in {"once": (), "twice": ("--gradient-checkpointing",)}.items():
        shown = train(tiny_folder, pair_file, tmp_path / name, "--epochs", 2, "--dev-file", pair_file, *flags)
        assert shown.returncode == 0, shown.stderr
    once, twice = (weights_of(tmp_path / name / "model") for name in ("once", "twice"))
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_patience_ends_a_run_that_gets_no_better(tiny_folder, pair_file, tmp_path):
    flags = ["--patience", 2, "--epochs", 9, "--learning-rate", "1e-12"]
    shown = train(tiny_folder, pair_file, tmp_path / "run", "--dev-file", pair_file, *flags)
    assert shown.returncode == 0, shown.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(results["epoch_figures"]) == 3  # the first is the best so far; the next two are no better
    assert not results["interrupted"]
    assert "No better on the dev pairs since epoch 1" in shown.stdout
    slow = train(tiny_folder, pair_file, tmp_path / "slow", "--dev-file", pair_file, *flags, "--warmup-ratio", 0.5)
    assert slow.returncode == 0, slow.stderr
    results = json.loads((tmp_path / "slow" / "results.json").read_text())
    assert len(results["epoch_figures"]) == 7  # the two are counted from the end of the warm-up on, after epoch 5
    shown = train(tiny_folder, pair_file, tmp_path / "other", *flags, "--dev-fraction", 0, "--test-fraction", 0)
    assert (shown.returncode, (tmp_path / "other").exists()) == (2, False)
    assert "--patience" in shown.stderr


def test_the_average_is_what_is_measured_and_saved(tiny_folder, pair_file, tmp_path):
    """20 steps: the average after steps 10 and 20, computed again from runs of the same seed that end there."""
    flags = ["--learning-rate", "1e-3", "--schedule", "constant", "--dev-fraction", 0, "--test-fraction", 0]
    rows = [(*pair[:2], pair[2]) for pair in PAIRS] * 5  # 10 steps of 4 pairs an epoch
    file = write_pairs(tmp_path / "rows.csv", rows)
    for name, more in {"one": ("--epochs", 1), "two": ("--epochs", 2), "ema": ("--epochs", 2, "--ema", 0.9)}.items():
        shown = train(tiny_folder, file, tmp_path / name, *flags, "--warmup-ratio", 0, *more)
        assert shown.returncode == 0, shown.stderr
    start, one, two, averaged = (
        weights_of(folder) for folder in (tiny_folder, *(tmp_path / name / "model" for name in ("one", "two", "ema")))
    )
    for name in start:
        first, second = min(0.9**10, 2 / 11), min(0.9**10, 3 / 12)
        expected = second * (first * start[name] + (1 - first) * one[name]) + (1 - second) * two[name]
        assert torch.allclose(averaged[name], expected, atol=1e-5), name


@pytest.mark.parametrize("packing", [True, False])
def test_dropout_is_as_asked_and_the_saved_config_is_the_models(tiny_folder, tmp_path, packing):
    """Without it the passes repeat themselves; with the config's own 0.1 they do not."""
    words = pack([np.array([5, 9, 6, 7, 8]), np.array([5, 9, 6])], 0)
    for dropout, same in ((0.0, True), (None, False), (0.5, False)):
        model = ConnectionBert.load(tiny_folder).train()
        model.prepare_training("fp32", packing, 0, dropout=dropout)
        assert torch.equal(model(words)[0], model(words)[0]) is same
    model.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (0.1, 0.1)


def test_a_stop_before_the_first_update_of_the_average_saves_what_was_trained(tiny_folder, pair_file, tmp_path, monkeypatch):
    def step(*words):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*words)

    real = driver.training_step
    monkeypatch.setattr(driver, "training_step", step)
    flags = ["--ema", 0.9, "--learning-rate", "1e-2", "--warmup-ratio", 0, "--dev-fraction", 0, "--test-fraction", 0]
    assert train(tiny_folder, pair_file, tmp_path / "run", *flags).returncode == 130  # ends after its first step
    name = "encoder.layer.1.output.dense.weight"
    assert not torch.equal(weights_of(tiny_folder)[name], weights_of(tmp_path / "run" / "model")[name])
