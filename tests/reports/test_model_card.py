"""The card of model/: read back by the hub's library, its figures the run's, its code run, hostile names harmless."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from huggingface_hub import ModelCard

import bertFineTuningWithConnectionData as driver
from connection.reports.model_card import inline_code
from ConnectionBert import ConnectionBert
from tests.conftest import MANY, binary, run_inside, signal_in_step, train_and_test, training_words, write_pairs


def card_of(output) -> ModelCard:
    return ModelCard.load(output / "model" / "README.md")


def metrics_of(card: ModelCard) -> dict[str, float]:
    return {result.metric_type: result.metric_value for result in card.data.eval_results or ()}


@pytest.mark.parametrize("labels", ["graded", "binary"])
def test_the_hubs_library_reads_the_card_and_finds_the_runs_figures(tiny_folder, tmp_path, labels):
    flags = ["--matryoshka-dims", "8", "--loss", "cosent+cosine-mse:0.5"] if labels == "graded" else []
    output = tmp_path / "my doors"
    _, results, _ = train_and_test(tiny_folder, output, MANY if labels == "graded" else binary(MANY), *flags)
    card = card_of(output)
    data = card.data.to_dict()
    assert (data["base_model"], data["library_name"]) == (tiny_folder.name, "sentence-transformers")
    assert data["pipeline_tag"] == "sentence-similarity"
    assert "dataset_size:40" in data["tags"]
    losses = [tag for tag in data["tags"] if tag.startswith("loss:")]
    test, found = results["final"]["test"], metrics_of(card)
    assert found["spearman_cosine"] == test["spearman"]
    if labels == "graded":
        assert losses == ["loss:MatryoshkaLoss", "loss:CoSENTLoss", "loss:CosineSimilarityLoss"]
        assert not any(metric.startswith("cosine_") for metric in found)
    else:
        assert losses == ["loss:CoSENTLoss"]
        assert found["cosine_ap"] == test["binary"]["average_precision"]
        assert found["cosine_accuracy"] == test["binary"]["accuracy"]
        threshold = ConnectionBert.load(output / "model").calibration.threshold
        assert f"a cosine of {threshold:.4f} or more are connected" in card.text
    assert {part: told["pairs"] for part, told in results["splits"].items()} == {"train": 40, "dev": 30, "test": 30}
    assert "`my doors-train.csv`" in card.text
    assert str(tmp_path) not in card.content
    assert not any(sentence in card.text for row in MANY for sentence in row[:2])


def test_its_code_gives_the_same_cosine_in_three_libraries(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(".")
    pairs, output = write_pairs(tmp_path / "pairs.csv", MANY), tmp_path / "run"
    assert run_inside(driver.main, *training_words(tiny_folder, pairs, output)).returncode == 0
    blocks = re.findall(r"```python\n(.*?)```", card_of(output).text, re.DOTALL)
    shown = []
    for block in blocks:
        capsys.readouterr()
        exec(block.replace("path/to/this/folder", str(output / "model")), {})
        numbers = map(float, re.findall(r"-?\d\.\d+", capsys.readouterr().out))
        shown.append(max(number for number in numbers if number < 0.99999))  # not a text's with itself
    assert len(shown) == 3
    torch.testing.assert_close(torch.tensor(shown), torch.tensor(shown[:1] * 3), rtol=0, atol=1e-4)


def test_it_says_what_was_frozen_how_pairs_counted_and_which_side_has_no_prompt(tiny_folder, tmp_path):
    rows = [(*row, 1 + place % 2) for place, row in enumerate(MANY)]
    pairs = write_pairs(tmp_path / "pairs.csv", rows, ("sentence1", "sentence2", "score", "weight"))
    flags = ("--balance", "--freeze-layers", 1, "--prompt2", "a dog: ", "--epochs", 1)
    shown = run_inside(driver.main, *training_words(tiny_folder, pairs, tmp_path / "run", *flags))
    assert shown.returncode == 0, shown.stderr
    recipe = card_of(tmp_path / "run").text.partition("## What it was trained on")[2]
    assert "- prompts: none before each first sentence, `a dog: ` before each second one\n- how" in recipe
    assert "as its file says (`weight`), and pairs of rare labels more often (--balance)\n- frozen" in recipe
    assert "- frozen: the embeddings and the 1 lowest layers are those of the base model\n- steps" in recipe
    plain = tmp_path / "plain"
    assert run_inside(driver.main, *training_words(tiny_folder, write_pairs(tmp_path / "p.csv"), plain)).returncode == 0
    assert not re.search("^- (prompt|how|frozen)", card_of(plain).text, re.MULTILINE)


def test_test_pairs_that_were_trained_on_are_said(tiny_folder, tmp_path):
    """The dev pairs are the training pairs too, and those are not counted."""
    test = [MANY[3], (MANY[5][1], MANY[5][0], 2), ("a red book", "a blue book", 4), ("the park", "the city", 1)]
    words = training_words(tiny_folder, write_pairs(tmp_path / "pairs.csv", MANY), tmp_path / "run", "--epochs", 1)
    words += ["--test-file", write_pairs(tmp_path / "test.csv", test), "--allow", "leaked-pair"]
    shown = run_inside(driver.main, *words)
    assert shown.returncode == 0, shown.stderr
    assert "4 test pairs, of which 2 trained the model too, so that they are too high" in card_of(tmp_path / "run").text
    words[words.index("--test-file") + 1] = write_pairs(tmp_path / "clean.csv", test[2:])
    assert run_inside(driver.main, *words, "--overwrite").returncode == 0
    assert "2 test pairs, which neither trained the model nor chose its weights" in card_of(tmp_path / "run").text


def test_hostile_names_are_no_markup(tiny_folder, tmp_path):
    name = "a`|<b>_x_ ---"
    folder = shutil.copytree(tiny_folder, tmp_path / "base\x1b[31m ``` : # [x](y)")
    pairs, output = write_pairs(tmp_path / f"{name}.csv", MANY), tmp_path / "<img src=x>: - run"
    assert run_inside(driver.main, *training_words(folder, pairs, output)).returncode == 0
    card = card_of(output)
    assert card.data.base_model == folder.name
    assert "\x1b" not in card.content
    assert "<img" not in card.text
    assert f"| ``{name.replace('|', chr(92) + '|')}.csv`` |" in card.text


@pytest.mark.parametrize(
    ("text", "code"),
    [("a.csv", "`a.csv`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("a\nb|c", r"`a\nb\|c`"), (" ", "`   `")],
)
def test_inline_code(text, code):
    assert inline_code(text) == code


def test_without_test_pairs_and_when_interrupted_it_says_so(tiny_folder, tmp_path, monkeypatch):
    pairs = write_pairs(tmp_path / "pairs.csv", MANY)
    flags = ["--dev-file", "", "--dev-fraction", 0, "--test-fraction", 0]
    assert run_inside(driver.main, *training_words(tiny_folder, pairs, tmp_path / "all", *flags)).returncode == 0
    card = card_of(tmp_path / "all")
    assert not metrics_of(card)
    assert "It was not measured" in card.text
    assert "No curve from cosines to labels" in card.text
    signal_in_step(monkeypatch, 2, 2)
    words = training_words(tiny_folder, pairs, tmp_path / "cut", "--test-file", pairs)
    assert run_inside(driver.main, *words).returncode == 130
    assert "**The training was interrupted** after step 2" in card_of(tmp_path / "cut").text
    assert "It was not measured" in card_of(tmp_path / "cut").text


def test_examples_are_shown_if_asked_for_from_the_lowest_label_to_the_highest(tiny_folder, tmp_path):
    rows = [*MANY[:39], ("a | `man`\nreads", "<b>a dog</b>", 5)]
    pairs, output = write_pairs(tmp_path / "pairs.csv", rows), tmp_path / "run"
    words = training_words(tiny_folder, pairs, output, "--card-examples", 3)
    assert run_inside(driver.main, *words).returncode == 0
    shown = card_of(output).text.split("Some of the pairs:")[1].split("\n\n")[1].splitlines()[2:]
    labels = sorted(score for *_, score in rows)
    assert [float(line.split(" | ")[-1].strip(" |")) for line in shown] == [labels[0], labels[20], labels[-1]]
    known = {f"| {inline_code(one)} | {inline_code(two)} | {score:g} |" for one, two, score in rows}
    assert set(shown) <= known
    assert run_inside(driver.main, *words, "--overwrite", "--card-examples", 1000).returncode == 0
    text = card_of(output).text
    assert all(line in text for line in known)
    assert "<b>" not in text.replace("`<b>a dog</b>`", "")


def test_examples_of_a_file_that_was_replaced_are_left_out_with_a_note(tiny_folder, tmp_path, monkeypatch):
    pairs, output = write_pairs(tmp_path / "pairs.csv", MANY), tmp_path / "run"
    real = driver.training_step

    def step(*words):
        write_pairs(pairs, MANY[:50])
        return real(*words)

    monkeypatch.setattr(driver, "training_step", step)
    shown = run_inside(driver.main, *training_words(tiny_folder, pairs, output, "--card-examples", 3))
    assert shown.returncode == 0, shown.stderr
    assert "README.md of the model has no examples" in shown.stdout
    assert "Some of the pairs" not in card_of(output).text
