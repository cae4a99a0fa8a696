"""AdamW with clipping and a learning rate for each depth: over a module's parameters, or over flat weights.

Over flat weights (connection/model/flat_weights.py), the layers are updated chunk by chunk, and a word's embedding when a batch
holds the word.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from connection.model.flat_weights import FlatWeights

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def depth_of(name: str, beside: int) -> int:
    """0 for the embeddings, 1 for the lowest layer of an encoder, and so on; `beside` for what belongs to neither."""
    number = re.search(r"encoder\.layer\.(\d+)\.", name)
    return int(number[1]) + 1 if number else 0 if "embeddings." in name else beside


class AdamW:
    """torch's AdamW over named parameters, with clipping. `lr_scales` has a factor of the learning rate for each depth."""

    def __init__(self, named: list[tuple[str, Any]], weight_decay: float, lr_scales: list[float]):
        groups: dict[tuple[float, float], list[Any]] = {}
        for name, weight in named:
            decay = 0.0 if name.endswith(".bias") or "LayerNorm" in name else weight_decay
            groups.setdefault((decay, lr_scales[depth_of(name, -1)]), []).append(weight)
        listed = [{"params": group, "weight_decay": decay, "lr_scale": lr_scale} for (decay, lr_scale), group in groups.items()]
        self.parameters, self.weight_decay, self.lr_scales = [weight for _, weight in named], weight_decay, lr_scales
        self.updating = False  # True while some weights are new and some are old
        self.adamw: Any = torch.optim.AdamW(listed, lr=0.0, betas=BETAS, eps=EPSILON, fused=True) if named else None

    def accumulate(self) -> None:
        """Keep the gradient so far, for the next backward pass of the same batch to be added to it."""

    def update(self, rate: float, max_norm: float, loss: Tensor | None = None) -> Tensor:
        """Scale the gradient down to the L2 norm `max_norm` (0: leave it) and update; the norm before, a scalar.

        A norm or a `loss` that is not finite changes no weight: NaN is returned.
        """
        norm = spoilt(self._norm(), loss)
        self.updating = True
        self._step(rate, norm, max_norm)
        self.updating = False
        return norm

    def _norm(self, *gradients: Tensor) -> Tensor:
        """L2 norm of `gradients` and of those of the parameters, each taken in its own type's kernel, which is fast."""
        all_of_them = [*gradients, *(weight.grad for weight in self.parameters if weight.grad is not None)]
        return torch.stack([torch.linalg.vector_norm(gradient).float() for gradient in all_of_them]).norm()

    def _step(self, rate: float, norm: Tensor, max_norm: float) -> None:
        # The fused kernel reads both, without a wait for the GPU.
        self.found_inf = torch.isfinite(norm).logical_not().float()
        self.divisor = (norm / max_norm).clamp(min=1) if max_norm else None
        if self.adamw:
            self.adamw.found_inf, self.adamw.grad_scale = self.found_inf, self.divisor
            for group in self.adamw.param_groups:
                group["lr"] = rate * group["lr_scale"]
            self.adamw.step()
            self.adamw.zero_grad()

    def discard(self) -> None:
        """Drop the gradients of a batch whose update will not come."""
        if self.adamw:
            self.adamw.zero_grad()

    def skipped(self) -> None:
        """Take back the step that an `update` without a finite norm has counted. It changed no weight."""

    def state_dict(self) -> dict[str, Tensor]:
        """What further updates depend on, beside the weights."""
        kept = self.adamw.state_dict()["state"] if self.adamw else {}
        return {f"adamw.{number}.{name}": value for number, state in kept.items() for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        kept: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            kind, _, rest = key.partition(".")
            if kind == "adamw":
                number, _, name = rest.partition(".")
                kept.setdefault(int(number), {})[name] = value.clone()
        if self.adamw:
            self.adamw.load_state_dict({"state": kept, "param_groups": self.adamw.state_dict()["param_groups"]})


def spoilt(norm: Tensor, loss: Tensor | None) -> Tensor:
    """NaN where the loss is not finite: no wait for the GPU, as a look at it would be."""
    return norm if loss is None else norm + 0 * loss


CHUNK = 1 << 17  # numbers; their float32 gradients stay in the processor's cache between two operations
REMEMBERED = 256  # steps after which nothing is left of a gradient: (0.9 / sqrt(0.999))^256 is 2e-12


class FlatAdamW(AdamW):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over `FlatWeights` and the `named` parameters beside them.

    The missed updates of words that no batch held have gradient 0, hence a closed form: the moments m and v after step t are
    beta1^j m and beta2^j v after step t + j. They are applied when the word next occurs, or before the weights are read.
    """

    def __init__(self, weights: FlatWeights, named: list[tuple[str, Any]], weight_decay: float, lr_scales: list[float]):
        super().__init__(named, weight_decay, lr_scales)
        self.weights, self.word = weights, weights.word.data
        self.m, self.v, self.word_m, self.word_v = (
            torch.zeros_like(tensor) for tensor in (weights.master, weights.master, self.word, self.word)
        )
        weights.catch_up = self.catch_up
        self.word_grads: list[tuple[Tensor, Tensor]] = []  # accumulated: ids (W,) on the CPU, and their gradients (W, H)
        self.sum: Tensor | None = None  # accumulated, of all other weights, (n,) float32
        self.updated = np.zeros(0, np.int64)  # the ids whose embeddings the last update changed
        self.steps = 0
        self.last = np.zeros(len(self.word), np.int64)  # the step up to which each embedding is updated
        # Of each step s so far: rate * sqrt(1 - beta2^s) / (1 - beta1^s) / d, and the log of d, what weight decay left until s.
        self.history = np.zeros((2, 1024))

    @torch.no_grad()
    def catch_up(self, ids: Tensor) -> None:
        """Apply the updates that the embeddings of these words, (W,) int64 on the CPU, have missed."""
        if self.weights.frozen:
            return
        rows = ids.numpy()
        late = rows[self.last[rows] < self.steps]
        if not len(late):
            return
        last = self.last[late]
        missed = np.minimum(self.steps - last, REMEMBERED)
        steps = np.arange(1, int(missed.max()) + 1)  # (J,)
        rates = self.history[0, np.minimum(last[:, None] + steps, self.steps)] * (steps <= missed[:, None])  # (W, J)
        sizes = (rates * (BETAS[0] / math.sqrt(BETAS[1])) ** steps).sum(1) * math.exp(self.history[1, self.steps])
        shrink = np.exp(self.history[1, self.steps] - self.history[1, last])
        epsilon = EPSILON * np.sqrt(1 - BETAS[1] ** last) + 1e-30  # a word that was in no batch yet has m = v = 0
        fades = (beta ** (self.steps - last) for beta in BETAS)
        columns = self._there(np.stack([sizes, shrink, epsilon, *fades]).astype(np.float32)).unsqueeze(-1)
        size, shrunk, small, fade1, fade2 = columns  # (W, 1) each
        there = self._there(late)
        m, v = self.word_m[there], self.word_v[there]
        self.word[there] = self.word[there] * shrunk - size * m / (v.sqrt() + small)
        self.word_m[there], self.word_v[there] = m * fade1, v * fade2
        self.last[late] = self.steps

    def _there(self, array: np.ndarray) -> Tensor:
        """On the weights' device; a GPU is not waited for."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.word.device, non_blocking=True) if self.word.is_cuda else tensor

    @torch.no_grad()
    def accumulate(self) -> None:
        self.word_grads += [self.weights.word_grad] if self.weights.word_grad else []
        self.sum = self.weights.grad.float().clone() if self.sum is None else self.sum.add_(self.weights.grad)

    def _gathered(self) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The gradients of the whole batch: (n,); and ids (W,) with their embeddings' (W, H), None where these are frozen."""
        gradient, words = self.weights.grad, self.weights.word_grad
        if self.sum is not None:
            gradient = self.sum.add_(gradient)
            if words:
                ids, rows = zip(*self.word_grads, words, strict=True)
                unique_ids, inverse = torch.cat(ids).unique(return_inverse=True)
                joined = torch.cat(rows)
                total = joined.new_zeros(len(unique_ids), joined.shape[1])
                words = unique_ids, total.index_add_(0, self._there(inverse.numpy()), joined)
        self.word_grads, self.sum = [], None
        return gradient, words

    @torch.no_grad()
    def update(self, rate: float, max_norm: float, loss: Tensor | None = None) -> Tensor:
        weights = self.weights
        whole, words = self._gathered()
        norm = spoilt(self._norm(whole, *([words[1]] if words else [])), loss)
        self.updating = True
        self._step(rate, norm, max_norm)
        self.steps += 1
        same: dict[str, Any] = {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPSILON} | {
            "amsgrad": False, "maximize": False, "found_inf": self.found_inf, "grad_scale": self.divisor,
        }  # fmt: skip
        step = [torch.full((), float(self.steps), device=self.word.device)]
        for low, high, depth, decayed in weights.ranges:
            of_range = same | {"lr": rate * self.lr_scales[depth], "weight_decay": self.weight_decay if decayed else 0.0}
            for start in range(low, high, CHUNK):
                part = slice(start, min(start + CHUNK, high))
                master, gradient = weights.master[part], whole[part].float()
                torch._fused_adamw_([master], [gradient], [self.m[part]], [self.v[part]], [], step, **of_range)
                if weights.copy is not weights.master:
                    weights.copy[part].copy_(master)
        if words:
            self._update_words(*words, rate * self.lr_scales[0], step, same)
        self.updating = False
        return norm

    def _update_words(self, ids: Tensor, gradient: Tensor, rate: float, step: list[Tensor], same: dict[str, Any]) -> None:
        """Update the embeddings of a batch's words: ids (W,) on the CPU, gradient (W, H)."""
        if self.steps == self.history.shape[1]:
            self.history = np.concatenate([self.history, np.zeros_like(self.history)], axis=1)
        left = self.history[1, self.steps - 1] + math.log(max(1 - rate * self.weight_decay, 1e-9))
        corrected = rate * math.sqrt(1 - BETAS[1] ** self.steps) / (1 - BETAS[0] ** self.steps)
        self.history[:, self.steps] = corrected / math.exp(left), left
        self.updated = ids.numpy()
        there = self._there(self.updated)
        word, m, v = self.word[there], self.word_m[there], self.word_v[there]  # (W, H) each
        torch._fused_adamw_([word], [gradient], [m], [v], [], step, lr=rate, weight_decay=self.weight_decay, **same)
        self.word[there], self.word_m[there], self.word_v[there] = word, m, v
        self.last[self.updated] = self.steps

    def discard(self) -> None:
        super().discard()
        self.word_grads, self.sum = [], None

    def skipped(self) -> None:
        self.steps -= 1
        if not self.weights.frozen:
            self.last[self.updated] = self.steps

    def state_dict(self) -> dict[str, Tensor]:
        """As of AdamW. Pending updates of embeddings stay pending, as in an uninterrupted run."""
        moments = {"m": self.m, "v": self.v, "word_m": self.word_m, "word_v": self.word_v}
        steps = {"steps": torch.tensor(self.steps), "last": torch.from_numpy(self.last)}
        history = torch.from_numpy(self.history[:, : self.steps + 1].copy())
        return super().state_dict() | moments | steps | {"history": history}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        for name in ("m", "v", "word_m", "word_v"):
            getattr(self, name).copy_(state[name])
        self.steps, self.last = int(state["steps"]), state["last"].numpy().copy()
        history = state["history"].numpy()
        self.history = np.zeros((2, 2 * max(512, history.shape[1])))
        self.history[:, : history.shape[1]] = history


def make_optimizer(module: nn.Module, weights: FlatWeights | None, weight_decay: float, layer_decay: float = 1.0) -> AdamW:
    """AdamW over all of a module's parameters that require a gradient, those in `weights` as flat ones.

    Biases and LayerNorm are not decayed (Devlin et al. 2018, arXiv 1810.04805, and BERT's own code). `layer_decay` d: the
    highest layer learns at the full rate, each one below at d times the rate of the one above it, the embeddings below them
    all (Howard & Ruder 2018, arXiv 1801.06146, section 3.2, "discriminative fine-tuning").
    """
    flat = weights.parameters if weights else set()
    numbers = [depth_of(name, 0) for name, _ in module.named_parameters()]
    lr_scales = [layer_decay ** (max(numbers) - depth) for depth in range(max(numbers) + 1)]
    named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad and id(weight) not in flat]
    return FlatAdamW(weights, named, weight_decay, lr_scales) if weights else AdamW(named, weight_decay, lr_scales)
