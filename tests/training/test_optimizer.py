"""AdamW over flat weights equals torch's AdamW over the module."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertModel

from connection.model.packed_bert import PackedBert
from connection.model.packing import pack
from connection.system import processes
from connection.training.optimizer import make_optimizer
from connection.training.schedule import make_schedule
from tests.conftest import VOCABULARY, tiny_config

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def step(optimizer, compute, batch, rate, max_norm, factor=1.0):
    states = compute(batch)
    (factor * batch.by_sentence(states).float()[:, 0].pow(3).sum()).backward()
    return optimizer.update(rate, max_norm)


def both(weight_decay=0.1, layer_decay=1.0, frozen=False):
    torch.manual_seed(0)
    encoder = BertModel(tiny_config(**NO_DROPOUT), add_pooling_layer=False).train()
    encoder.embeddings.requires_grad_(not frozen)
    twin = copy.deepcopy(encoder)
    fast = PackedBert(twin, torch.float32, 0)

    def by_module(batch):
        return encoder(
            batch.input_ids, attention_mask=batch.attention_mask_4d, position_ids=batch.position_ids
        ).last_hidden_state

    return (encoder, make_optimizer(encoder, None, weight_decay, layer_decay), by_module), (
        twin,
        make_optimizer(twin, fast.weights, weight_decay, layer_decay),
        fast,
    )


def rare_words(steps):
    """Batches in which most words are missing for a while, some for very long, and some come never."""
    random = np.random.default_rng(0)
    common, rare = [5, 6, 7, 8], list(range(9, len(VOCABULARY) - 3))
    for number in range(steps):
        words = [*common, *([rare[number % len(rare)]] if number % 3 == 0 or number > steps - 3 else [])]
        yield pack([random.choice(words, size=random.integers(4, 9)) for _ in range(4)], 0)


@pytest.mark.parametrize("at_once", [False, True])  # as on a GPU
@pytest.mark.parametrize(
    ("max_norm", "layer_decay", "frozen"), [(0.0, 1, False), (0.5, 1, False), (0.5, 0.7, False), (0.5, 1, True)]
)
def test_equal_to_torch_over_many_steps_with_rare_words(max_norm, layer_decay, frozen, at_once):
    (encoder, plain, by_module), (twin, flat, fast) = both(0.1, layer_decay, frozen)
    flat.at_once = at_once
    steps = 60
    schedule = make_schedule("linear", steps, 0.1)
    for number, batch in enumerate(rare_words(steps)):
        norms = [
            step(optimizer, compute, batch, 1e-3 * schedule(number), max_norm)
            for optimizer, compute in ((plain, by_module), (flat, fast))
        ]
        assert norms[1] == pytest.approx(norms[0].item(), rel=1e-3)
    fast.weights.catch_up_all()
    for (name, weight), other in zip(encoder.named_parameters(), twin.parameters(), strict=True):
        if name.endswith("key.bias"):
            continue  # softmax takes no notice of it: its gradient is rounding, which AdamW makes large
        difference = (weight - other).abs()
        assert difference.max() < 1e-4, name  # where gradients are near AdamW's epsilon, missed updates are not exact
        assert (difference < 1e-5).float().mean() > 0.99, name
    moved = (encoder.embeddings.word_embeddings.weight - BertModel(tiny_config()).embeddings.word_embeddings.weight).abs()
    assert (moved.max() > 1e-3) is not frozen


def test_each_layer_learns_at_a_share_of_the_next_ones_rate():
    encoder = BertModel(tiny_config(num_hidden_layers=3), add_pooling_layer=False)
    names = {id(weight): name for name, weight in encoder.named_parameters()}
    optimizer = make_optimizer(encoder, None, 0.1, 0.5)
    lr_scales = {names[id(weight)]: group["lr_scale"] for group in optimizer.adamw.param_groups for weight in group["params"]}
    for name, lr_scale in lr_scales.items():
        assert lr_scale == (0.125 if "embeddings" in name else 0.5 ** (2 - int(name.split(".")[2]))), name


@pytest.mark.parametrize("kind", [0, 1])
def test_gradients_of_parts_add_up_to_the_whole_batchs(kind):
    encoder, optimizer, compute = both()[kind]
    twin, whole, compute_whole = both()[kind]
    random = np.random.default_rng(1)
    for _ in range(4):
        sentences = [random.integers(5, 40, size=7) for _ in range(6)]
        parts = [pack(sentences[:2], 0), pack(sentences[2:3], 0), pack(sentences[3:], 0)]
        for number, part in enumerate(parts):
            if number:
                optimizer.accumulate()
            part.by_sentence(compute(part)).float()[:, 0].pow(3).sum().backward()
        norm = optimizer.update(1e-3, 1.0)
        assert norm == pytest.approx(step(whole, compute_whole, pack(sentences, 0), 1e-3, 1.0).item(), rel=1e-3)
    for passes in (compute, compute_whole):
        if isinstance(passes, PackedBert):
            passes.weights.catch_up_all()
    for (name, weight), other in zip(encoder.named_parameters(), twin.named_parameters(), strict=True):
        if not name.endswith("key.bias"):
            assert (weight - other[1]).abs().max() < 1e-4, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("parts", "frozen"), [(1, 0), (3, 0), (1, 1), (0, 0)])
def test_sums_over_processes_begin_in_the_backward_pass(monkeypatch, dtype, parts, frozen):
    """Here the other process has the same pairs: the sums are twice the gradient. The highest layer's come first."""
    random = np.random.default_rng(1)
    batches = [pack([random.integers(5, 40, size=7) for _ in range(3)], 0) for _ in range(parts)]

    def gradient():
        """The flat gradient, and the number of sums begun in the backward passes."""
        torch.manual_seed(0)
        encoder = BertModel(tiny_config(**NO_DROPOUT), add_pooling_layer=False).train()
        for module in (encoder.embeddings, *encoder.encoder.layer[:frozen]):
            module.requires_grad_(False)
        passes = PackedBert(encoder, dtype, 0)
        optimizer: Any = make_optimizer(encoder, passes.weights, 0.1)
        for number, batch in enumerate(batches):
            if number:
                optimizer.accumulate()
            optimizer.last_part = number == len(batches) - 1
            batch.by_sentence(passes(batch)).float()[:, 0].pow(3).sum().backward()
        early = len(begun)
        flat, words = optimizer._gathered()
        assert words is None
        return flat.float().clone(), early, passes.weights

    begun: list[int] = []  # where each begins

    def begin(part):
        begun.append(part.data_ptr())
        before = part.clone()

        def wait():
            assert torch.equal(part, before)  # nobody has written there since
            part.mul_(2)

        return wait

    expected, _, _ = gradient()
    monkeypatch.setattr(processes, "begin_to_add_up", begin)
    monkeypatch.setattr(processes, "add_up", lambda tensor: tensor)
    monkeypatch.setattr(processes, "count", lambda: 2)
    found, early, weights = gradient()
    assert found.dtype == torch.float32
    assert torch.equal(found, 2 * expected)
    assert early == (len(weights.layers) if parts else 0)
    assert begun[: len(weights.layers)] == sorted(begun[: len(weights.layers)], reverse=True)


def test_a_word_that_stays_away_moves_as_under_torch():
    """One step with the word, then 400 without it: more than are remembered."""
    (encoder, plain, by_module), (twin, flat, fast) = both()
    first, then = pack([np.array([5, 30, 6])], 0), pack([np.array([5, 6])], 0)
    for number in range(401):
        for optimizer, compute in ((plain, by_module), (flat, fast)):
            step(optimizer, compute, first if number == 0 else then, 1e-3, 1.0)
    before = twin.embeddings.word_embeddings.weight[30].clone()
    fast.weights.catch_up_all()
    expected = encoder.embeddings.word_embeddings.weight[30]
    assert (before - expected).abs().max() > 1e-3  # it had something to make up for
    assert torch.allclose(twin.embeddings.word_embeddings.weight[30], expected, atol=2e-5)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(kind, factor):
    encoder, optimizer, compute = both()[kind]
    batch = pack([np.array([5, 30, 6])], 0)
    before = copy.deepcopy(encoder.state_dict())
    assert not math.isfinite(step(optimizer, compute, batch, 1e-3, 1.0, factor))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert math.isfinite(step(optimizer, compute, batch, 1e-3, 1.0))
    assert not torch.equal(encoder.state_dict()["embeddings.LayerNorm.bias"], before["embeddings.LayerNorm.bias"])
