"""BERT's forward and backward passes over packed rows, written as a few large operations.

The formulas are those of transformers' BertModel (Devlin et al. 2018, arXiv 1810.04805; Vaswani et al. 2017, arXiv
1706.03762), the reference that the tests compare with, tensor by tensor. docs/performance.md says what is faster here, and by
how much. M = R * L slots, A heads of D = H / A dimensions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu
from transformers import BertModel

from connection.model.dropout import Dropout, DropoutMasks
from connection.model.flat_weights import FlatWeights, Layer, sum_rows
from connection.model.packing import PackedBatch

aten = torch.ops.aten


class PackedBert:
    """The training passes of a BertModel. `seed` is for dropout's own generator; `dropout` None: the rates in the config."""

    def __init__(self, encoder: BertModel, dtype: torch.dtype, seed: int, dropout: float | None = None):
        config = encoder.config
        self.weights = FlatWeights(encoder, dtype)
        self.dtype, self.device = dtype, self.weights.master.device
        self.heads, self.hidden, self.epsilon = config.num_attention_heads, config.hidden_size, config.layer_norm_eps
        self.scale = (self.hidden // self.heads) ** -0.5
        padding = encoder.embeddings.word_embeddings.padding_idx
        self.pad_id = -1 if padding is None else padding
        rates = config.hidden_dropout_prob, config.attention_probs_dropout_prob
        self.dropout = Dropout(rates if dropout is None else (dropout, dropout), dtype, self.device, seed)
        # The states of the frozen layers, (rows, H), once they are known: a batch's `input_ids` are then rows of this table.
        self.kept: Tensor | None = None
        self.first_only = False  # of the last layer's states, only those of the sentences' first tokens are needed
        self.checkpointing = False  # save only each layer's input and masks, and recompute the rest in backward()
        self.anchor = torch.zeros((), requires_grad=True)  # autograd calls backward() only if an input requires a gradient

    @staticmethod
    def fits(encoder: BertModel) -> bool:
        """Whether this class implements the encoder's variant of BERT; other variants are trained by their own module."""
        config = encoder.config
        return config.model_type == "bert" and config.hidden_act == "gelu" and not config.is_decoder

    def __call__(self, batch: PackedBatch) -> Tensor:
        """Return token states (R, L, H), with dropout. Their backward pass writes the gradients to `weights`.

        With `first_only`, the states of other tokens than a sentence's first one are 0.
        """
        states: Tensor = _Passes.apply(self.anchor, self, batch)
        return states

    def forward(self, batch: PackedBatch) -> tuple[Tensor, list[Any]]:
        """Return token states (M, H), and what the backward pass needs: the embeddings' tensors, then those of each layer."""
        rows, length = batch.input_ids.shape
        own = self._own_slots(batch)
        embeddings_mask, layer_masks = self.dropout.draw(len(self.weights.layers), rows, length, self.hidden, self.heads)
        saved: list[Any] = []
        if self.kept is not None:
            unique = self.kept[batch.unique_ids].to(self.device, non_blocking=True)
            states = unique[batch.inverse.view(-1)]
        elif self.weights.frozen_layers:
            states = self.frozen_states(batch)
        else:
            states, *sums = self._embed(batch, embeddings_mask)
            saved.append((batch, embeddings_mask, *sums))
        for layer, masks in zip(self.weights.layers, layer_masks, strict=True):
            entering, places = states, None
            if self.first_only and layer is self.weights.layers[-1]:
                places = batch.slots[:, 0]  # (N,)
                masks = masks.at(places)
            states, tensors = self._layer_forward(entering, layer, masks, own, rows, length, places)
            saved.append((entering, layer, masks, own, rows, length, places) if self.checkpointing else (masks, *tensors))
        return _spread(states, places, len(entering)), saved

    def frozen_states(self, batch: PackedBatch) -> Tensor:
        """Return what the embeddings and the frozen layers make of a batch, without dropout: (M, H)."""
        own, none = self._own_slots(batch), DropoutMasks(None, None, None)
        states, *_ = self._embed(batch, None)
        for layer in self.weights.frozen_layers:
            states, _ = self._layer_forward(states, layer, none, own, *batch.input_ids.shape)
        return states

    def keep(self, states: Tensor) -> None:
        """Take the frozen layers' states from a table (rows, H): the `input_ids` of all further batches are its rows."""
        self.kept = states
        self.weights.frozen_layers = []

    def _own_slots(self, batch: PackedBatch) -> Tensor:
        """What is added to attention scores, (R * A, L, L): 0 for slots of the same sentence, else minus infinity."""
        rows, length = batch.input_ids.shape
        own = torch.where(batch.attention_mask_4d, 0.0, -math.inf).to(self.dtype)  # (R, 1, L, L)
        return own.expand(rows, self.heads, length, length).reshape(-1, length, length)

    def _embed(self, batch: PackedBatch, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return states (M, H), and what the backward pass needs: sums (M, H), their means and deviations (M, 1)."""
        weights = self.weights.embeddings
        self.weights.catch_up(batch.unique_ids)
        unique_ids = batch.unique_ids.to(self.device, non_blocking=True)
        summed = self.weights.word[unique_ids].to(self.dtype)[batch.inverse.view(-1)]  # (M, H)
        summed = summed + weights.position[batch.position_ids.view(-1)] + weights.kind[0]
        normed, mean, rstd = self._norm(summed, weights.norm, weights.norm_bias)
        return apply_dropout(normed, mask), summed, mean, rstd

    def _layer_forward(
        self, x: Tensor, layer: Layer, masks: DropoutMasks, own: Tensor, rows: int, length: int, places: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Return a layer's states (M, H), or those of the slots `places` alone, (N, H); and what its backward pass needs."""
        heads = (rows, length, 3, self.heads, self.hidden // self.heads)
        qkv = torch.addmm(layer.qkv_bias, x, layer.qkv.t()).view(heads)  # (M, 3H) -> (R, L, 3, A, D)
        qkv = qkv.permute(2, 0, 3, 1, 4).reshape(3, -1, length, heads[-1])  # (3, R * A, L, D)
        q, k, v = qkv
        probabilities = torch.softmax(torch.baddbmm(own, q, k.transpose(1, 2), alpha=self.scale), -1)  # (R * A, L, L)
        kept = apply_dropout(probabilities, masks.probabilities)
        context = self._join_heads(torch.bmm(kept, v), rows)  # (M, H)
        residual = x
        if places is not None:  # from here on, a slot's state depends on no other slot
            residual, context = x[places], context[places]
        summed1 = _plus(residual, torch.addmm(layer.out_bias, context, layer.out.t()), masks.attention)
        y, mean1, rstd1 = self._norm(summed1, layer.norm1, layer.norm1_bias)
        up = torch.addmm(layer.up_bias, y, layer.up.t())  # (M, F)
        active = gelu(up)
        summed2 = _plus(y, torch.addmm(layer.down_bias, active, layer.down.t()), masks.output)
        z, mean2, rstd2 = self._norm(summed2, layer.norm2, layer.norm2_bias)
        return z, (x, qkv, probabilities, kept, context, summed1, mean1, rstd1, y, up, active, summed2, mean2, rstd2, places)

    def backward(self, gradient: Tensor, saved: list[Any]) -> None:
        """Compute the gradients of all weights from that of the token states (M, H). They overwrite the last step's."""
        for number in reversed(range(len(self.weights.layers))):
            layer, grad = self.weights.layers[number], self.weights.layers_grad[number]
            tensors = saved.pop()
            if self.checkpointing:  # Chen et al. 2016, arXiv 1604.06174
                tensors = tensors[2], *self._layer_forward(*tensors)[1]
            gradient = self._layer_backward(gradient, layer, grad, *tensors)
            self.weights.layer_done(number)
        if self.weights.frozen:
            return
        batch, mask, summed, mean, rstd = saved.pop()
        weights, grads = self.weights.embeddings, self.weights.embeddings_grad
        d_summed = self._norm_backward(
            apply_dropout(gradient, mask), summed, mean, rstd, weights.norm, weights.norm_bias, (grads.norm, grads.norm_bias)
        ).float()  # sums of many numbers in bf16 would lose precision
        grads.position.copy_(sum_rows(batch.position_ids.view(-1), d_summed, len(grads.position)))
        grads.kind.zero_()
        grads.kind[0] = d_summed.sum(0)  # every token is of the first kind
        d_words = sum_rows(batch.inverse.view(-1), d_summed, len(batch.unique_ids))  # (W, H)
        # As in torch's embedding, the config's padding token, if it names one, gets no gradient.
        padding = (batch.unique_ids == self.pad_id).to(self.device, non_blocking=True)  # (W,)
        self.weights.word_grad = batch.unique_ids, d_words.masked_fill_(padding[:, None], 0.0)

    def _layer_backward(
        self, dz: Tensor, layer: Layer, grad: Layer, masks: DropoutMasks,
        x: Tensor, qkv: Tensor, probabilities: Tensor, kept: Tensor, context: Tensor, summed1: Tensor, mean1: Tensor,
        rstd1: Tensor, y: Tensor, up: Tensor, active: Tensor, summed2: Tensor, mean2: Tensor, rstd2: Tensor,
        places: Tensor | None,
    ) -> Tensor:  # fmt: skip
        rows, length = len(kept) // self.heads, kept.shape[-1]
        dz = dz if places is None else dz[places]
        d2 = self._norm_backward(
            dz, summed2, mean2, rstd2, layer.norm2, layer.norm2_bias, (grad.norm2, grad.norm2_bias)
        )  # (M, H)
        d_down = apply_dropout(d2, masks.output)
        _linear_gradient(d_down, active, grad.down, grad.down_bias)
        d_up = aten.gelu_backward(d_down @ layer.down, up)  # (M, F)
        _linear_gradient(d_up, y, grad.up, grad.up_bias)
        dy = torch.addmm(d2, d_up, layer.up)
        d1 = self._norm_backward(dy, summed1, mean1, rstd1, layer.norm1, layer.norm1_bias, (grad.norm1, grad.norm1_bias))
        d_out = apply_dropout(d1, masks.attention)
        _linear_gradient(d_out, context, grad.out, grad.out_bias)
        d_context = (
            _spread(d_out @ layer.out, places, len(x))
            .view(rows, length, self.heads, -1)
            .transpose(1, 2)
            .reshape(-1, length, qkv.shape[-1])
        )
        q, k, v = qkv
        d_qkv = torch.empty_like(qkv)  # (3, R * A, L, D)
        torch.bmm(kept.transpose(1, 2), d_context, out=d_qkv[2])
        d_scores = aten._softmax_backward_data(
            apply_dropout(torch.bmm(d_context, v.transpose(1, 2)), masks.probabilities), probabilities, -1, self.dtype
        ).mul_(self.scale)
        torch.bmm(d_scores, k, out=d_qkv[0])
        torch.bmm(d_scores.transpose(1, 2), q, out=d_qkv[1])
        d_qkv = d_qkv.view(3, rows, self.heads, length, -1).permute(1, 3, 0, 2, 4).reshape(rows * length, -1)  # (M, 3H)
        _linear_gradient(d_qkv, x, grad.qkv, grad.qkv_bias)
        return torch.addmm(_spread(d1, places, len(x)), d_qkv, layer.qkv)

    def _join_heads(self, context: Tensor, rows: int) -> Tensor:
        """Concatenate the heads: (R * A, L, D) -> (M, H)."""
        return context.view(rows, self.heads, *context.shape[1:]).transpose(1, 2).reshape(-1, self.hidden)

    def _norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """LayerNorm, with the mean and inverse standard deviation of each row: (M, H) -> (M, H), (M, 1), (M, 1)."""
        normed: tuple[Tensor, Tensor, Tensor] = aten.native_layer_norm(x, [self.hidden], weight, bias, self.epsilon)
        return normed

    def _norm_backward(
        self, dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, into: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Gradient of LayerNorm's input, (M, H). The gradients of its weight and bias, (H,) each, are written to `into`."""
        dx, *grads = aten.native_layer_norm_backward(dy, x, [self.hidden], mean, rstd, weight, bias, [True] * 3)
        for target, grad in zip(into, grads, strict=True):
            target.copy_(grad)
        return dx


class _Passes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, bert: PackedBert, batch: PackedBatch) -> Tensor:
        states, ctx.saved = bert.forward(batch)
        ctx.bert = bert
        return states.view(*batch.input_ids.shape, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        ctx.bert.backward(gradient.flatten(0, 1), ctx.saved)
        return None, None, None


def apply_dropout(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _plus(x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    return x + y if mask is None else torch.addcmul(x, y, mask)


def _spread(rows: Tensor, places: Tensor | None, count: int) -> Tensor:
    """Put rows (N, H) at their places among `count` rows of zeros; without places, they are all rows."""
    return rows if places is None else rows.new_zeros(count, rows.shape[1]).index_copy_(0, places, rows)


def _linear_gradient(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Write the gradients of y = x W^T + b to `weight` and `bias`: dy (M, out), x (M, in)."""
    torch.mm(dy.t(), x, out=weight)
    torch.sum(dy, 0, out=bias)
