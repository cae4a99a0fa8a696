"""A batch in parts: the loss and the gradient are those of the whole batch, for every objective."""

from __future__ import annotations

import pytest
import torch

from bertFineTuningWithConnectionData import training_step
from connection.model.packing import pack
from connection.training.loss_choice import FITS
from connection.training.objectives import make_objective
from connection.training.optimizer import make_optimizer
from ConnectionBert import ConnectionBert
from ConnectionDataset import PairBatch
from tests.conftest import PAIRS

RATE, MAX_NORM = 1e-3, 1.0


def batch_of(model, size):
    """PAIRS as a batch in parts of `size` pairs, with labels 0 and 1, which every objective takes."""
    numbers = {text: number for number, text in enumerate(sorted({str(text) for pair in PAIRS for text in pair[:2]}))}
    parts = []
    for start in range(0, len(PAIRS), size):
        rows = PAIRS[start : start + size]
        sides = [[str(pair[side]) for pair in rows] for side in (0, 1)]
        tokens = pack([model.tokenizer(text)["input_ids"] for text in sides[0] + sides[1]], model.tokenizer.pad_token_id)
        target = torch.tensor([float(pair[2] > 2.2) for pair in rows])
        sentences = torch.tensor([[numbers[text] for text in side] for side in sides])
        parts.append(PairBatch(tokens, target, torch.arange(start, start + len(rows)), sentences))
    return parts


def updated(folder, loss, size, packing=True, dropout=0.0, twice=False):
    """The losses of two steps, all weights after them, and the vectors of the first sentence of each part as they came."""
    torch.manual_seed(0)
    model = ConnectionBert.load(folder).train()
    weights = model.prepare_training("fp32", packing, 0, twice, dropout)
    objective = make_objective(loss, 20.0, (32, 8) if loss == "cosent" else (), 32, [0.0, 1.0])
    optimizer = make_optimizer(torch.nn.ModuleList([model, objective]), weights, 0.01)
    vectors = []
    model.register_forward_hook(lambda module, given, out: vectors.append(out[0][0].detach().clone()))
    batch = batch_of(model, size)
    losses = [training_step(model, objective, optimizer, RATE, MAX_NORM, batch).item() for _ in range(2)]
    model.catch_up()
    named = [*model.named_parameters(), *objective.named_parameters()]
    return losses, {name: weight.detach().clone() for name, weight in named}, vectors


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("loss", [*FITS, "cosent+cosine-mse:0.5"])
def test_the_gradient_is_that_of_the_whole_batch(tiny_folder, loss, packing):
    losses, whole, _ = updated(tiny_folder, loss, 8, packing)
    for size in (1, 3):
        losses_of_parts, parts, _ = updated(tiny_folder, loss, size, packing)
        assert losses_of_parts == pytest.approx(losses, rel=1e-4, abs=1e-6)
        # AdamW's first steps are near the learning rate times the gradient's sign: a gradient that is 0 has none.
        far = {name: (parts[name] - whole[name]).abs().max().item() for name in whole if not name.endswith("key.bias")}
        assert max(far.values()) < 0.05 * RATE, max(far, key=far.__getitem__)
    before = dict(ConnectionBert.load(tiny_folder).named_parameters())
    assert (whole["encoder.encoder.layer.0.output.dense.weight"] - before["encoder.encoder.layer.0.output.dense.weight"]).any()


@pytest.mark.parametrize(("packing", "twice"), [(True, False), (True, True), (False, False), (False, True)])
def test_a_part_that_is_encoded_again_has_the_same_dropout(tiny_folder, packing, twice):
    _, _, vectors = updated(tiny_folder, "cosent", 4, packing, 0.2, twice)
    first, second = vectors[:4], vectors[4:]  # of each step: both parts without a gradient, then both with one
    for step in (first, second):
        assert torch.equal(step[0], step[2])
        assert torch.equal(step[1], step[3])
        assert not torch.equal(step[0], step[1])
    assert not torch.equal(first[0], second[0])
