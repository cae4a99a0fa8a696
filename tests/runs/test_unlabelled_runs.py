"""Runs on pairs without labels: trained on in-batch negatives, measured by retrieval."""

from __future__ import annotations

import json
import math
import re
import signal

import numpy as np
import pandas as pd
import pytest

import bertFineTuningWithConnectionData as driver
from ConnectionBert import ConnectionBert
from tests.conftest import NOUNS, run_inside, signal_in_step
from tools import compare, evaluate, link, report, score
from tools.learning_curve import __main__ as learning_curve
from tools.suspects import __main__ as suspects

# Ten first sentences with three right answers each in every file.
FILES = {
    split: [
        (f"the {noun} {verb}", f"a {NOUNS[(3 * i + j) % 10]} {verb} the {noun}")
        for i, noun in enumerate(NOUNS)
        for j in range(3)
    ]
    for split, verb in (("train", "sees"), ("dev", "plays"), ("test", "rides"))
}


def write(path, rows, head):
    path.write_text("\n".join([head, *(",".join(row) for row in rows)]) + "\n")
    return path


def train(folder, tmp_path, name, *flags, head="question,answer", files=FILES):
    words = ["--model-dir", folder, "--output-dir", tmp_path / name, "--max-length", 32, "--learning-rate", "1e-3"]
    for split, rows in files.items():
        words += [f"--{split}-file", write(tmp_path / f"{split}.csv", rows, head)]
    return run_inside(driver.main, *words, "--epochs", 2, "--batch-size", 10, "--cache-dir", tmp_path / "cache", *flags)


def outcome(tmp_path, name):
    folder = tmp_path / name
    return (
        json.loads((folder / "results.json").read_text()),
        pd.read_csv(folder / "predictions.csv"),
        pd.read_csv(folder / "errors.csv"),
    )


def reciprocal(table, column):
    """MRR@10 from predictions.csv."""
    best = table.groupby("query")[column].min()
    return (1 / best).where(best <= 10, 0).mean()


def test_a_run_on_connected_pairs_alone(tiny_folder, tmp_path):
    shown = train(tiny_folder, tmp_path, "run")
    assert shown.returncode == 0, shown.stderr
    assert "no labels: every pair is taken as connected" in shown.stdout
    assert "loss   multiple-negatives (" in shown.stdout
    results, table, errors = outcome(tmp_path, "run")
    assert results["measure"] == "mrr"
    test = table[table["split"] == "test"]
    for when in ("base", "final"):
        found = results[when]["test"]
        assert found["mrr"] == pytest.approx(reciprocal(test, f"{when}_rank"))
        assert found["mrr_low"] < found["mrr"] < found["mrr_high"]
        assert found["retrieval"]["recall@5"] == pytest.approx((test[f"{when}_rank"] <= 5).groupby(test["query"]).mean().mean())
        assert (found["retrieval"]["queries"], found["retrieval"]["candidates"], found["pairs"]) == (10, 30, 30)
        assert found["spearman"] is None
        assert not {"binary", "graded", "calibration", "ranking"} & set(found)
    gain = results["gain"]["test"]
    assert gain["mrr"] == pytest.approx(results["final"]["test"]["mrr"] - results["base"]["test"]["mrr"])
    assert gain["mrr_low"] <= gain["mrr"] <= gain["mrr_high"]
    of_epochs = [row["dev MRR@10"] for row in results["epoch_figures"]]
    assert results["final"]["dev"]["mrr"] == max(of_epochs)  # it chose the weights
    assert max(of_epochs) == pytest.approx(reciprocal(table[table["split"] == "dev"], "final_rank"))
    assert re.search(rf"\n +test +30 +{100 * results['base']['test']['mrr']:.2f} ", shown.stdout)
    assert "Spearman" not in shown.stdout
    assert list(errors["answer_rank"]) == sorted(table["final_rank"], reverse=True)
    text = errors[errors["split"] == "test"].iloc[0]
    assert (text["sentence1"], text["sentence2"]) == FILES["test"][text["line"] - 2]
    assert "slices" not in results


def test_what_the_reports_and_commands_make_of_it(tiny_folder, tmp_path):
    """A model without a threshold; no plot of labels; the same ranks by another command."""
    assert train(tiny_folder, tmp_path, "run").returncode == 0
    results, table, _ = outcome(tmp_path, "run")
    folder, file = tmp_path / "run", tmp_path / "test.csv"
    model = ConnectionBert.load(folder / "model")
    assert (model.calibration.threshold, model.calibration.knots) == (None, None)
    card = (folder / "model" / "README.md").read_text()
    assert "From which cosine on two texts are\nconnected is not known" in card
    assert "cosine_mrr@10" in card
    page = (folder / "report.html").read_text()
    worst = int(table[table["split"] == "test"]["final_rank"].max())
    assert f"Rank <b>{worst}</b>" in page
    assert "searches among all" in page
    assert "mean absolute error" not in page
    again = run_inside(report.main, folder, "-o", tmp_path / "r.html")
    assert again.returncode == 0, again.stderr
    measured = run_inside(evaluate.main, folder, file, "--base", tiny_folder, "--json", tmp_path / "out.json")
    assert measured.returncode == 0, measured.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["files"]
    for key in ("mrr", "mrr_low", "mrr_high", "retrieval"):
        assert row["model"]["cosine"][key] == results["final"]["test"][key]
    assert row["gain"]["cosine"]["mrr_p"] == results["gain"]["test"]["mrr_p"]
    assert "against the base on test.csv" in measured.stdout
    write(tmp_path / "labels.csv", [("a dog", "a cat", "0"), ("a man", "a book", "1")], "question,answer,label")
    for words, said in ((["--similarity", "dot"], "searched by cosine alone"), (["--label-max", 5], "has no labels"),
                        (["--format", "sentence-transformers"], "have none"),
                        ([tmp_path / "labels.csv"], "one after the other")):  # fmt: skip
        refused = run_inside(evaluate.main, folder, file, *words)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    two = run_inside(score.main, folder, "a dog", "a cat")
    assert (two.returncode, two.stdout.count("\n")) == (0, 1), two.stderr
    lists = [write(tmp_path / f"{name}.csv", [(row[side],) for row in FILES["test"]], "text") for side, name in enumerate("ab")]
    linked = run_inside(link.main, folder, *lists, "-o", tmp_path / "links.csv")
    assert linked.returncode == 0, linked.stderr
    assert "the model has no threshold: give --threshold" in linked.stderr + linked.stdout


def test_two_runs_are_compared_by_their_ranks(tiny_folder, tmp_path):
    assert train(tiny_folder, tmp_path, "a").returncode == 0
    assert train(tiny_folder, tmp_path, "b", "--loss", "multiple-negatives-symmetric", "--seeds", 2).returncode == 0
    a, b = (outcome(tmp_path, name)[0] for name in "ab")
    shown = run_inside(compare.main, tmp_path / "a", tmp_path / "b")
    points = 100 * (b["final"]["test"]["mrr"] - a["final"]["test"]["mrr"])
    assert f"B {'gained' if points >= 0 else 'lost'} {abs(points):.1f} +- " in shown.stdout, shown.stderr
    assert b["over_seeds"]["test"]["mean"] == pytest.approx(np.mean([seed["test"]["mrr"] for seed in b["seeds"]]))
    both = run_inside(report.main, tmp_path / "a", tmp_path / "b", "-o", tmp_path / "both.html")
    assert both.returncode == 0, both.stderr
    assert "points of MRR@10 x 100 against a on the 30 test pairs of both" in (tmp_path / "both.html").read_text()
    for column, value in (("final_rank", "inf"), ("final_rank", "x"), ("query", "x"), ("query", "")):  # of a stranger's folder
        table = pd.read_csv(tmp_path / "a" / "predictions.csv", dtype=str).assign(**{column: value})
        table.to_csv(tmp_path / "b" / "predictions.csv", index=False)
        for command, words in (
            (compare.main, [tmp_path / "a", tmp_path / "b"]),
            (report.main, [tmp_path / "b", "-o", tmp_path / "h"]),
        ):
            shown = run_inside(command, *words)
            assert shown.returncode in (0, 2), shown.stderr
            assert "Traceback" not in shown.stderr


def test_a_resumed_run_ends_as_if_uninterrupted(tiny_folder, tmp_path, monkeypatch):
    """Ended after the first epoch, whose dev results are in the checkpoint."""
    assert train(tiny_folder, tmp_path, "whole", "--learning-rate", "1e-9").returncode == 0  # the first epoch stays the best
    with monkeypatch.context() as patch:
        signal_in_step(patch, 5, signal.SIGINT)
        assert train(tiny_folder, tmp_path, "ended", "--learning-rate", "1e-9").returncode == 130
    assert run_inside(driver.main, "--output-dir", tmp_path / "ended", "--resume").returncode == 0
    whole, ended = (outcome(tmp_path, name) for name in ("whole", "ended"))
    assert whole[0]["best_step"] == ended[0]["best_step"] == 3
    assert whole[1].equals(ended[1])
    assert whole[0]["final"] == ended[0]["final"]


def test_labels_that_are_all_connected_are_such_pairs_and_are_split_by_sentence(tiny_folder, tmp_path):
    rows = [
        (f"the {a} {verb}", f"a {b} {verb}", "yes") for verb in ("sees", "plays", "rides") for a in NOUNS for b in NOUNS[:3]
    ]
    rows = [(f"{one} {row}", f"{two} {row}", label) for row, (one, two, label) in enumerate(rows)]
    shown = train(tiny_folder, tmp_path, "run", files={"train": rows}, head="question,answer,label")
    assert shown.returncode == 0, shown.stderr
    assert "all labels are 1: every pair is taken as connected" in shown.stdout
    results, *_ = outcome(tmp_path, "run")
    assert results["measure"] == "mrr"
    assert results["final"]["test"]["retrieval"]["queries"] >= 9


def test_labelled_test_pairs_are_measured_by_their_labels(tiny_folder, tmp_path):
    labelled = write(
        tmp_path / "labelled.csv", [(*row, str(place % 2)) for place, row in enumerate(FILES["test"])], "question,answer,label"
    )
    shown = train(tiny_folder, tmp_path, "run", "--test-file", labelled, files={"train": FILES["train"]})
    assert shown.returncode == 0, shown.stderr
    results, table, _ = outcome(tmp_path, "run")
    assert results["measure"] == "average_precision"
    assert math.isfinite(results["gain"]["test"]["average_precision_low"])
    assert "query" not in table


TRIPLETS = {split: [(*row, f"a {NOUNS[place % 7]} is red") for place, row in enumerate(rows)] for split, rows in FILES.items()}


@pytest.mark.parametrize("flags", [[], ["--loss", "triplet"], ["--loss", "online-contrastive"], ["--part-size", 3]], ids=str)
def test_a_run_on_triplets(tiny_folder, tmp_path, flags):
    shown = train(tiny_folder, tmp_path, "run", *flags, head="anchor,positive,negative", files=TRIPLETS)
    assert shown.returncode == 0, shown.stderr
    assert "triplets: anchor and positive are connected" in shown.stdout
    assert "60 pairs, of 30 triplets" in shown.stdout
    assert f"loss   {flags[1] if '--loss' in flags else 'multiple-negatives'} (" in shown.stdout
    assert "triplet accuracy x 100" in shown.stdout
    results, table, errors = outcome(tmp_path, "run")
    assert results["steps"] == 6  # 30 triplets in batches of ten, twice
    test = table[table["split"] == "test"]
    for when in ("base", "final"):
        found = results[when]["test"]
        assert found["mrr"] == pytest.approx(reciprocal(test, f"{when}_rank"))
        cosines = test.pivot(index="line", columns="label", values=when)
        assert found["retrieval"]["triplet_accuracy"] == pytest.approx((cosines[1] > cosines[0]).mean())
        assert found["retrieval"]["triplets"] == 30
    assert test[test["label"] == 0][["base_rank", "final_rank"]].isna().all(axis=None)
    assert len(errors) == 60  # of dev and test, each triplet once
    row = errors[errors["split"] == "test"].iloc[-1]
    assert (row["sentence1"], row["sentence2"]) == TRIPLETS["test"][row["line"] - 2][:2]
    assert f"Rank <b>{int(test['final_rank'].max())}</b>" in (tmp_path / "run" / "report.html").read_text()


def test_triplets_are_not_taken_apart_by_other_commands(tiny_folder, tmp_path):
    file = write(tmp_path / "t.csv", TRIPLETS["train"], "anchor,positive,negative")
    words = ["--train-file", file, "--model-dir", tiny_folder, "--output-dir", tmp_path / "out", "--max-length", 32]
    curve = ["--test-file", file, "--allow", "leaked-pair"]
    for command, more, said in ((suspects.main, [], "no labels to doubt"), (learning_curve.main, curve, "A curve of triplets")):
        shown = run_inside(command, *words, *more)
        assert (shown.returncode, said in shown.stderr) == (2, True), shown.stderr


def test_examples_of_the_card_are_anchors_and_positives(tiny_folder, tmp_path):
    files = {"train": TRIPLETS["train"]}
    assert train(tiny_folder, tmp_path, "run", "--card-examples", 2, "--test-fraction", 0, "--dev-fraction", 0, files=files,
                 head="anchor,positive,negative").returncode == 0  # fmt: skip
    rows = re.findall(r"\| `(.*)` \| `(.*)` \| (\d) \|", (tmp_path / "run" / "model" / "README.md").read_text())
    assert rows == [(*TRIPLETS["train"][0][:2], "1"), (*TRIPLETS["train"][-1][:2], "1")]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--loss", "cosent"], "cosent needs labels of unconnected pairs too; all training pairs are connected. These fit: "
                               "multiple-negatives, multiple-negatives-symmetric; or leave the choice to --loss auto."),
        (["--loss", "multiple-negatives+contrastive"], "contrastive needs labels of unconnected pairs too"),
        (["--batch-size", 1], "with connected pairs alone, the other pairs of a batch are what each is told from"),
        (["--label-max", 1], "has no labels"),
    ],
)  # fmt: skip
def test_what_needs_other_labels_is_refused_with_the_way_out(tiny_folder, tmp_path, flags, said):
    shown = train(tiny_folder, tmp_path, "run", *flags)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert not (tmp_path / "run").exists()
