"""--group-by: batches keep the pairs of a sentence together, and encode each distinct one once, with the same gradients."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bertFineTuningWithConnectionData as driver
from connection.data.permutation import BLOCK, Shuffle
from connection.training.frozen_states import keep_states
from connection.training.loss_choice import FITS
from connection.training.mixed_files import MixedDataset
from connection.training.objectives import make_objective
from connection.training.optimizer import FlatAdamW, make_optimizer
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset, make_loader
from tests.conftest import NOUNS, run_inside, signal_in_step, training_words, write_pairs
from tests.training.test_freeze_layers import three_layers

# 1 to 6 answers for each of ten questions; some answers are of several questions, and one is a question itself.
ANSWERS = [f"a {noun} is not in the park" for noun in NOUNS[:6]] + [f"the {NOUNS[1]} plays"]
ROWS = [(f"the {noun} plays", ANSWERS[(i + j) % 7], (i + j) % 2, 1 + j)
        for i, noun in enumerate(NOUNS) for j in range(1 + (3 * i) % 6)]  # fmt: skip
BATCH = 12


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs.csv", ROWS, ("sentence1", "sentence2", "score", "weight"))


@pytest.fixture
def folder(tmp_path):
    return three_layers(tmp_path / "three")


# --- the order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1], [5], [1, 2, 3, 40, 1], [1, 3] * BLOCK, [2000, 1, 7]])
def test_a_grouped_order_is_a_permutation_in_which_groups_stay_whole(sizes):
    keys = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    shuffle, everywhere = Shuffle(len(keys), keys), np.arange(len(keys))
    orders = [shuffle([7, epoch])[everywhere] for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(len(keys)))
        assert sorted(len(list(same)) for _, same in itertools.groupby(keys[order])) == sorted(sizes)
    assert shuffle([7, 0])[everywhere[::-3]].tolist() == orders[0][::-3].tolist()  # any places, in any order
    if len(keys) > 40:
        assert orders[0].tolist() != orders[1].tolist()


def test_groups_and_their_rows_are_in_any_order():
    """Each order of three groups, and of the three rows of one, comes about as often as the others."""
    shuffle = Shuffle(9, np.repeat([0, 1, 2], 3))
    drawn = np.stack([shuffle([seed])[np.arange(9)] for seed in range(1200)])
    for permutations in (drawn[:, ::3] // 3, drawn[:, :3] % 3, drawn[:, 6:] % 3):
        _, counts = np.unique(permutations, axis=0, return_counts=True)
        assert len(counts) == 6
        assert 140 < counts.min() <= counts.max() < 260  # 200 are expected, with a standard deviation of 13
    same = (drawn[:, :3] % 3 == drawn[:, 3:6] % 3).all(1).mean()  # two groups are shuffled independently
    assert 1 / 6 - 0.05 < same < 1 / 6 + 0.05


def test_batches_have_their_size_and_few_of_the_same_sentence(pairs, folder):
    data = ConnectionDataset.from_file(pairs, ConnectionBert.load(folder).tokenizer, 32)
    data.group_by = "sentence1"
    batches, sentence = data.shuffled(4, 7), data.store.index1
    epochs = []
    for batches.epoch in (1, 2):
        drawn = list(batches)
        assert [len(rows) for rows in drawn] == [4] * (len(ROWS) // 4) + [len(ROWS) % 4] * bool(len(ROWS) % 4)
        assert len(drawn) == len(batches)
        assert sorted(itertools.chain(*drawn)) == list(range(len(ROWS)))
        for number, size in enumerate(np.bincount(sentence)):
            among = sum(number in sentence[rows] for rows in drawn)
            assert among <= -(-size // 4) + 1
        epochs.append(drawn)
    assert epochs[0] != epochs[1]
    batches.first = 3  # a resumed run
    assert list(batches) == epochs[1][3:]
    data.group_by = "sentence2"
    (rows,) = data.shuffled(len(ROWS), 7)
    assert len(list(itertools.groupby(data.store.index2[rows]))) == len(np.unique(data.store.index2))


def test_triplets_of_an_anchor_stay_whole_and_together(tmp_path, folder):
    rows = [(f"the {NOUNS[i % 3]} plays", f"a {noun} plays", "a red city", "a blue night") for i, noun in enumerate(NOUNS)]
    path = write_pairs(tmp_path / "triplets.csv", rows, ("anchor", "positive", "negative_1", "negative_2"))
    data = ConnectionDataset.from_file(path, ConnectionBert.load(folder).tokenizer)
    data.group_by = "sentence1"
    drawn = list(itertools.chain(*data.shuffled(4, 7)))
    assert sorted(drawn) == list(range(30))
    assert all(drawn[start : start + 3] == list(range(drawn[start], drawn[start] + 3)) for start in range(0, 30, 3))
    assert len(list(itertools.groupby(data.store.index1[drawn]))) == 3


def test_files_are_grouped_each_for_itself(pairs, tmp_path, folder):
    tokenizer = ConnectionBert.load(folder).tokenizer
    parts = [ConnectionDataset.from_file(pairs, tokenizer, 32) for _ in range(2)]
    for part in parts:
        part.group_by = "sentence1"
    mixed, number = MixedDataset(parts, [1, 0.5]), len(ROWS)
    batches, seen = mixed.shuffled(4, 7), list[int]()
    for batches.epoch in (1, 2):
        drawn = list(batches)
        batches.first = 2
        assert list(batches) == drawn[2:]
        batches.first = 0
        first = [rows for rows in drawn if max(rows) < number]
        assert sorted(itertools.chain(*first)) == list(range(number))
        seen += [row - number for rows in drawn for row in rows if row >= number]
        once = mixed.collate([mixed[row] for row in drawn[0]]).tokens
        assert once.places is not None
        assert len(once.attention_mask) < len(once.places) == 2 * len(drawn[0])
        alone = sum(len({*parts[0].store.index1[rows]}) for rows in first)
        assert alone < len(first) + len({*parts[0].store.index1}) + 1  # each batch begins at most one sentence anew
    assert {*seen} == set(range(number))  # a half in each epoch, rounded up
    assert len(seen) == number + 1


# --- each distinct sentence once -------------------------------------------------------------------------------------------


def batch_of(data, count=BATCH):
    data.group_by = "sentence1"
    return next(iter(data.shuffled(count, 3)))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("second", ["dog: ", "cat: "])
def test_a_batch_holds_each_distinct_sentence_once(pairs, folder, packed, second):
    """With another prompt on the other side, a text of both sides has two token lists."""
    model = ConnectionBert.load(folder, prompts=("dog: ", second))
    data = ConnectionDataset.from_file(pairs, model.tokenizer, 32)
    data.packed, data.group_by = packed, "sentence1"
    rows = list(range(len(ROWS)))
    items = [data[row] for row in rows]
    tokens = data.collate(items).tokens
    sides = [item.tokens1 for item in items] + [item.tokens2 for item in items]
    assert len(tokens.attention_mask) == len({side.tobytes() for side in sides}) == (16 if second == "dog: " else 17)
    ids = tokens.by_sentence(tokens.input_ids.unsqueeze(-1)).squeeze(-1)  # (N, T)
    assert tokens.places is not None
    for side, place in zip(sides, tokens.places.tolist(), strict=True):
        assert ids[place][tokens.attention_mask[place].bool()].tolist() == side.tolist()
    assert tokens.of_first_sides == 10
    assert data.token_counts(np.array(rows)).sum() == tokens.attention_mask.sum()
    data.group_by = "none"
    assert data.collate(items).tokens.places is None
    assert data.token_counts(np.array(rows)).sum() == sum(map(len, sides))


def gradients(folder, pairs, rows, group_by, loss="cosent", size=0, packing=True, layers=0, dims=(), prompts=("", ""),
              pooling=None, skip=False, checkpointing=False, weighted=False, seen=None):  # fmt: skip
    """The loss of a batch, and the gradient of each weight by name."""
    model = ConnectionBert.load(folder, pooling, prompts=prompts).train()
    if skip:
        model = ConnectionBert(model.encoder, model.tokenizer, model.pooling, 32, encoding=model.encoding,
                               include_prompt=False).train()  # fmt: skip
    model.freeze(False, layers)
    weights: Any = model.prepare_training("fp32", packing, 0, checkpointing, 0.0)
    data = ConnectionDataset.from_file(pairs, model.tokenizer, 32, "" if weighted else "sentence1=1,sentence2=2,label=3")
    assert (data.weight is not None) == weighted
    data.packed, data.group_by = packing, group_by
    if layers:
        keep_states(model, data, None)
    torch.manual_seed(0)
    objective = make_objective(loss, 20.0, dims, 32, [0.0, 1.0])
    optimizer: Any = make_optimizer(torch.nn.ModuleList([model, objective]), weights, 0.01)
    found: dict[str, torch.Tensor] = {}

    def update(*words):
        """Keeps what the optimizer would be given."""
        if isinstance(optimizer, FlatAdamW):
            flat, of_words = optimizer._gathered()
            for name, weight in model.encoder.named_parameters():
                start = (weight.data_ptr() - weights.master.data_ptr()) // 4
                if 0 <= start < len(flat) and weight.requires_grad:
                    found[name] = flat[start : start + weight.numel()].view(weight.shape).clone()
            if of_words:
                name = "embeddings.word_embeddings.weight"
                found[name] = torch.zeros_like(weights.word).index_copy(0, *of_words)
        named = [*model.encoder.named_parameters(), *objective.named_parameters()]
        found.update({name: weight.grad.clone() for name, weight in named if weight.grad is not None})
        return torch.zeros(())

    optimizer.update = update
    parts = data.collate_parts([data[row] for row in rows], size)
    if seen is not None:
        seen += [len(part.tokens.attention_mask) for part in parts]
    return float(driver.training_step(model, objective, optimizer, 1e-3, 1.0, parts)), found


def by_torch(folder, pairs, rows, loss, prompts=("", "")):
    """The same by transformers' module in float64, one sentence at a time."""
    model = ConnectionBert.load(folder, prompts=prompts).double()
    data = ConnectionDataset.from_file(pairs, model.tokenizer, 32, "sentence1=1,sentence2=2,label=3")
    items = [data[row] for row in rows]
    u, v = (
        torch.cat([model.encoder(torch.from_numpy(tokens.astype(np.int64))[None]).last_hidden_state.mean(1) for tokens in side])
        for side in zip(*[item[:2] for item in items], strict=True)
    )
    torch.manual_seed(0)
    objective = make_objective(loss, 20.0, (), 32, [0.0, 1.0]).double()
    target = torch.tensor([item.target for item in items], dtype=torch.float64)
    value = objective(u, v, target, data.sentences(np.array(rows)))
    value.backward()
    named = [*model.encoder.named_parameters(), *objective.named_parameters()]
    return value.item(), {name: weight.grad for name, weight in named if weight.grad is not None}


def apart(one, two):
    """The norm of the difference of a gradient and that of the weights in `two`, relative to it."""
    assert one.keys() >= two.keys()
    square = sum(float((one[name] - two[name]).double().square().sum()) for name in two)
    return (square / sum(float(one[name].double().square().sum()) for name in two)) ** 0.5


@pytest.fixture
def rows(pairs, folder):
    return batch_of(ConnectionDataset.from_file(pairs, ConnectionBert.load(folder).tokenizer, 32))


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("loss", [*FITS, "cosent+cosine-mse:0.5"])
def test_the_gradient_is_that_of_encoding_each(folder, pairs, rows, loss, packing):
    value, expected = gradients(folder, pairs, rows, "none", loss, packing=packing)
    once, found = gradients(folder, pairs, rows, "sentence1", loss, packing=packing)
    by_module, reference = by_torch(folder, pairs, rows, loss)
    assert any(gradient.any() for gradient in expected.values())
    assert once == pytest.approx(value, rel=1e-6) == pytest.approx(by_module, rel=1e-5)
    assert apart(expected, found) < 1e-6
    assert apart(reference, found) < 1e-6


WAYS: dict[str, dict[str, Any]] = {
    "in parts": {"size": 5},
    "in parts, padded": {"size": 5, "packing": False},
    "kept states": {"layers": 2},
    "kept states, two prompts": {"layers": 1, "prompts": ("dog: ", "cat: ")},
    "Matryoshka": {"dims": (32, 8)},
    "one prompt": {"prompts": ("dog: ", "dog: ")},
    "two prompts": {"prompts": ("dog: ", "cat: ")},
    "prompts that are not pooled": {"prompts": ("dog: ", "a red cat: "), "skip": True},
    "first tokens": {"pooling": "cls", "loss": "softmax"},
    "activations computed twice": {"checkpointing": True},
    "weights": {"weighted": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_training_gives_the_same_gradient(folder, pairs, rows, way):
    plainly, once = list[int](), list[int]()
    value, expected = gradients(folder, pairs, rows, "none", **WAYS[way], seen=plainly)
    value_once, found = gradients(folder, pairs, rows, "sentence1", **WAYS[way], seen=once)
    assert sum(once) < sum(plainly) == 2 * BATCH
    assert value_once == pytest.approx(value, rel=1e-6)
    assert apart(expected, found) < 1e-6


def test_two_prompts_are_those_of_the_module(folder, pairs, rows):
    prompts = "dog: ", "cat: "
    value, found = gradients(folder, pairs, rows, "sentence1", "softmax", prompts=prompts)
    expected, reference = by_torch(folder, pairs, rows, "softmax", prompts)
    assert value == pytest.approx(expected, rel=1e-6)
    assert apart(reference, found) < 1e-6


@pytest.mark.parametrize("mapped", [False, True])
def test_another_process_makes_the_same_batches(pairs, folder, mapped):
    data = ConnectionDataset.from_file(pairs, ConnectionBert.load(folder).tokenizer, 32)
    data.group_by = "sentence1"
    here, there = (list(make_loader(data, data.shuffled(BATCH, 3), workers, False, part_size=7 * mapped)) for workers in (0, 1))
    for one, two in zip(itertools.chain(*here), itertools.chain(*there), strict=True):
        pairs_of = [(*batch.tokens, *batch[1:]) for batch in (one, two)]
        assert all(torch.equal(a, b) for a, b in zip(*pairs_of, strict=True))


# --- runs --------------------------------------------------------------------------------------------------------------------


def train(folder: Path, pairs: Path, output: Path, *flags: object) -> Any:
    words = ["--group-by", "sentence1", "--precision", "fp32", "--dropout", 0.1, "--part-size", 3, *flags]
    allowed = "leaked-pair,contradiction,duplicate"
    return run_inside(driver.main, *training_words(folder, pairs, output, "--allow", allowed, *words))


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / "state.safetensors")


def test_a_resumed_run_equals_an_uninterrupted_one(folder, pairs, tmp_path, monkeypatch):
    more = ["--train-file", f"{write_pairs(tmp_path / 'more.csv', [row[:3] for row in ROWS[:20]])}:0.5"]
    whole = train(folder, pairs, tmp_path / "whole", *more)
    assert whole.returncode == 0, whole.stderr
    assert f"pairs.csv: {len(ROWS)} pairs of 10 first sentences; those of one stay together in batches" in whole.stdout
    with monkeypatch.context() as patch:
        signal_in_step(patch, 7, signal.SIGINT)
        assert train(folder, pairs, tmp_path / "run", *more).returncode == 130
    resumed = run_inside(driver.main, "--output-dir", tmp_path / "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    one, two = weights_of(tmp_path / "whole"), weights_of(tmp_path / "run")
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    other = run_inside(driver.main, "--output-dir", tmp_path / "run", "--resume", "--group-by", "none")
    assert other.returncode == 2
    assert "--group-by: 'none' now, 'sentence1' in the run so far" in other.stderr


@pytest.mark.parametrize(("side", "said"), [
    ("sentence1", "3 pairs of 1 first sentence; those of one stay together"),
    ("sentence2", "3 pairs of 3 second sentences; each has one, so that nothing is grouped"),
])  # fmt: skip
def test_what_is_grouped_is_said(folder, tmp_path, side, said):
    pairs = write_pairs(tmp_path / "one.csv", [("the dog plays", ANSWERS[row], row) for row in range(3)])
    shown = train(folder, pairs, tmp_path / "run", "--group-by", side, "--epochs", 1)
    assert shown.returncode == 0, shown.stderr
    assert said in shown.stdout


def test_a_side_that_is_none_is_refused(folder, pairs, tmp_path):
    refused = train(folder, pairs, tmp_path / "run", "--group-by", "question")
    assert refused.returncode == 2
    assert "--group-by: 'question' is none of none, sentence1, sentence2" in refused.stderr
