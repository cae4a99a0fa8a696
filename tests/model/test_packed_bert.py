"""The written-out BERT passes against transformers' BertModel, tensor by tensor; and dropout."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import BertModel

from connection.model.encoding_settings import EncodingSettings
from connection.model.flat_weights import _layer_parameters
from connection.model.packed_bert import PackedBert
from connection.model.packing import pack
from connection.model.pooling import cls_pooling, mean_pooling
from connection.training.objectives import cosine_mse
from ConnectionBert import ConnectionBert
from tests.conftest import VOCABULARY, tiny_config


def tiny(**changes):
    torch.manual_seed(1)
    return BertModel(tiny_config(**changes), add_pooling_layer=False).train()


def batch_of(lengths=(3, 9, 30, 5, 64, 12, 12, 7)):
    random = np.random.default_rng(0)
    return pack([random.integers(0, len(VOCABULARY), length) for length in lengths], 0)


def pair_loss(states, batch):
    u, v = mean_pooling(batch.by_sentence(states).float(), batch.attention_mask).chunk(2)
    return cosine_mse(u, v, torch.linspace(0, 1, len(u)), torch.arange(2 * len(u)).view(2, -1))


def named_gradients(reference, fast):
    """(name, gradient by autograd, gradient by `fast`) of each group of parameters."""
    for number, (layer, grads) in enumerate(zip(reference.encoder.layer, fast.weights.layers_grad, strict=True)):
        for name, group, grad in zip(grads._fields, _layer_parameters(layer), grads, strict=True):
            yield f"layer {number} {name}", torch.cat([torch.as_tensor(parameter.grad) for parameter in group]), grad.float()
    own, grads = reference.embeddings, fast.weights.embeddings_grad
    yield "position", own.position_embeddings.weight.grad, grads.position.float()
    yield "kind", own.token_type_embeddings.weight.grad, grads.kind.float()
    yield "norm", own.LayerNorm.weight.grad, grads.norm.float()
    yield "norm bias", own.LayerNorm.bias.grad, grads.norm_bias.float()
    words, grad = fast.weights.word_grad
    yield "word", own.word_embeddings.weight.grad, torch.zeros_like(own.word_embeddings.weight).index_copy_(0, words, grad)


def reference_and_fast(dtype, **changes):
    reference = tiny(**({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} | changes))
    return reference, PackedBert(copy.deepcopy(reference), dtype, 0)


def test_every_tensor_equals_transformers_in_float32():
    reference, fast = reference_and_fast(torch.float32)
    batch = batch_of()
    own = batch.sentence < len(batch.slots)
    expected = reference(
        batch.input_ids, attention_mask=batch.attention_mask_4d, position_ids=batch.position_ids
    ).last_hidden_state
    states = fast(batch)
    assert torch.allclose(states[own], expected[own], atol=1e-5)
    pair_loss(expected, batch).backward()
    pair_loss(states, batch).backward()
    for name, gradient, found in named_gradients(reference, fast):
        assert torch.allclose(found, gradient, atol=1e-6, rtol=1e-4), name


def test_gradients_in_bf16_point_where_float32_points():
    reference, fast = reference_and_fast(torch.bfloat16)
    batch = batch_of((12, 9, 30, 15, 40, 22) * 4)
    states = reference(
        batch.input_ids, attention_mask=batch.attention_mask_4d, position_ids=batch.position_ids
    ).last_hidden_state
    pair_loss(states, batch).backward()
    pair_loss(fast(batch), batch).backward()
    both = [(gradient.flatten(), found.flatten()) for _, gradient, found in named_gradients(reference, fast)]
    expected, found = (torch.cat(side) for side in zip(*both, strict=True))
    assert torch.cosine_similarity(expected, found, dim=0) > 0.999


def test_gradients_with_dropout_equal_autograds_through_the_same_forward():
    """The same masks: the generator is set back, and autograd differentiates the forward pass itself."""
    fast = PackedBert(tiny(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3), torch.float32, 5)
    batch, generator = batch_of(), fast.dropout.random.state
    states = fast(batch)
    pair_loss(states, batch).backward()
    found = {name: grad.clone() for name, grad in leaves(fast.weights.layers_grad, fast.weights.embeddings_grad)}
    fast.dropout.random.state = generator
    fast.weights.layers = [type(layer)(*(tensor.clone().requires_grad_() for tensor in layer)) for layer in fast.weights.layers]
    fast.weights.embeddings = type(fast.weights.embeddings)(*(t.clone().requires_grad_() for t in fast.weights.embeddings))
    again, _ = fast.forward(batch)
    assert torch.equal(again.detach(), states.flatten(0, 1))
    pair_loss(again.view(states.shape), batch).backward()
    for name, weight in leaves(fast.weights.layers, fast.weights.embeddings):
        assert torch.allclose(found[name], weight.grad, atol=1e-6, rtol=1e-4), name


@pytest.mark.parametrize("checkpointing", [False, True])
def test_states_of_first_tokens_alone(checkpointing):
    """The loss reads no others: the gradients are those of transformers, and with dropout those of the whole pass."""

    def first_loss(states, batch):
        u, v = cls_pooling(batch.by_sentence(states).float(), batch.attention_mask).chunk(2)
        return cosine_mse(u, v, torch.linspace(0, 1, len(u)), torch.arange(2 * len(u)).view(2, -1))

    batch = batch_of()
    reference, fast = reference_and_fast(torch.float32)
    fast.first_only, fast.checkpointing = True, checkpointing
    expected = reference(
        batch.input_ids, attention_mask=batch.attention_mask_4d, position_ids=batch.position_ids
    ).last_hidden_state
    states, first = fast(batch).flatten(0, 1), batch.slots[:, 0]
    assert torch.allclose(states[first], expected.flatten(0, 1)[first], atol=1e-5)
    assert set(states.any(1).nonzero().flatten().tolist()) == set(first.tolist())
    first_loss(expected, batch).backward()
    first_loss(fast(batch), batch).backward()
    for name, gradient, found in named_gradients(reference, fast):
        assert torch.allclose(found, gradient, atol=1e-6, rtol=1e-4), name

    whole, alone = (PackedBert(tiny(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3), torch.float32, 5) for _ in "ab")
    alone.first_only, alone.checkpointing = True, checkpointing
    for passes in (whole, alone):
        first_loss(passes(batch), batch).backward()
    assert torch.allclose(whole.weights.grad, alone.weights.grad, atol=1e-6, rtol=1e-4)


def test_which_poolings_read_first_tokens_alone(tiny_folder):
    for pooling in ("cls", "pooler", "mean", "last", "cls+mean"):
        model = ConnectionBert.load(tiny_folder, pooling=pooling)
        model.prepare_training("fp32", True, 0)
        assert model.packed_bert is not None
        assert model.packed_bert.first_only == (pooling in ("cls", "pooler"))
    prompt = EncodingSettings(prompts={"query": "the man"}, default_prompt_name="query")
    model = ConnectionBert(model.encoder, model.tokenizer, "cls", 32, encoding=prompt, include_prompt=False)
    model.prepare_training("fp32", True, 0)
    assert model.packed_bert is not None
    assert not model.packed_bert.first_only


def leaves(layers, embeddings):
    for place, tensors in enumerate([*layers, embeddings]):
        for name, tensor in zip(tensors._fields, tensors, strict=True):
            yield f"{place} {name}", tensor


@pytest.mark.parametrize("p", [0.1, 0.5, 0.013])
def test_dropout_is_bernoulli_with_the_configured_rate(p):
    fast = PackedBert(tiny(hidden_dropout_prob=p), torch.float32, 7)
    factors, others = fast.dropout.factors(1_000_000, p), fast.dropout.factors(1_000_000, p)
    assert factors is not None
    assert others is not None
    assert factors.unique().tolist() == [0.0, pytest.approx(1 / (1 - p))]
    dropped = factors.eq(0).double()
    deviation = (p * (1 - p) / len(dropped)) ** 0.5
    assert abs(dropped.mean().item() - p) < 4 * deviation + 2**-17  # thresholds are multiples of 2^-16
    centred = dropped - dropped.mean()
    for lag in (1, 2, 3, 4, 5, 384):  # four numbers come from one draw: neighbours must not hang together
        assert abs((centred[lag:] * centred[:-lag]).mean().item()) < 5 * p * (1 - p) / len(dropped) ** 0.5
    assert not torch.equal(factors, others)  # another draw each time


def test_without_dropout_nothing_is_drawn():
    _, fast = reference_and_fast(torch.float32)
    before = str(fast.dropout.random.state)
    fast(batch_of())
    assert str(fast.dropout.random.state) == before


def test_the_module_stays_whole(tiny_folder, tmp_path):
    """Its parameters become views of one vector: the module still evaluates, saves and loads, and its values are the same."""
    model = ConnectionBert.load(tiny_folder)
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    weights = model.prepare_training("bf16", True, 0)
    after = model.encoder.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert weights is not None
    weights.master.mul_(1.5)
    assert torch.equal(model.encoder.encoder.layer[1].output.dense.weight, 1.5 * before["encoder.layer.1.output.dense.weight"])
    model.save(tmp_path / "saved")
    saved = ConnectionBert.load(tmp_path / "saved").encoder.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.encoder.state_dict().items())


def test_another_activation_is_left_to_its_module(tiny_folder):
    model = ConnectionBert.load(tiny_folder)
    model.encoder.config.hidden_act = "relu"
    assert model.prepare_training("fp32", True, 0) is None
    assert model.packed_bert is None
