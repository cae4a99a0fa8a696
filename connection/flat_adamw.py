"""AdamW over flat weights: the layers chunk by chunk, a word's embedding when a batch holds the word."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from connection.adamw import BETAS, EPSILON, AdamW, spoilt
from connection.flat import FlatWeights

CHUNK = 1 << 17  # numbers; their float32 gradients stay in the processor's cache between two operations
REMEMBERED = 256  # steps after which nothing is left of a gradient: (0.9 / sqrt(0.999))^256 is 2e-12


class FlatAdamW(AdamW):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over `FlatWeights` and the `named` parameters beside them.

    The weights of the layers are updated chunk by chunk. A word's embedding is updated when a batch holds the word; the
    updates that it missed before, whose gradient was 0, are made up for at once: of the moments m and v after step t, step
    t + j makes beta1^j m and beta2^j v.
    """

    def __init__(self, weights: FlatWeights, named: list[tuple[str, Any]], weight_decay: float, shares: list[float]):
        super().__init__(named, weight_decay, shares)
        self.weights, self.word = weights, weights.word.data
        self.m, self.v, self.word_m, self.word_v = (
            torch.zeros_like(tensor) for tensor in (weights.master, weights.master, self.word, self.word)
        )
        self.parts: list[tuple[Tensor, Tensor]] = []  # of a batch in parts, the words and their gradients
        self.sum: Tensor | None = None  # of the other gradients, (n,) float32
        self.steps = 0
        self.last = np.zeros(len(self.word), np.int64)  # the step up to which each word's embedding is updated
        # Of each step s so far: rate * sqrt(1 - beta2^s) / (1 - beta1^s) / d, and the log of d, what weight decay left until s.
        self.history = np.zeros((2, 1024))

    @torch.no_grad()
    def before(self, words: Tensor) -> None:
        """Called before each batch's forward pass: brings the embeddings of its words, (W,) int64 on the CPU, up to date."""
        if self.weights.frozen:
            return
        self.places = words.numpy()
        late = self.places[self.last[self.places] < self.steps]
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
        rows = self._there(late)
        m, v = self.word_m[rows], self.word_v[rows]
        self.word[rows] = self.word[rows] * shrunk - size * m / (v.sqrt() + small)
        self.word_m[rows], self.word_v[rows] = m * fade1, v * fade2
        self.last[late] = self.steps

    def _there(self, array: np.ndarray) -> Tensor:
        """On the weights' device; a GPU is not waited for."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.word.device, non_blocking=True) if self.word.is_cuda else tensor

    @torch.no_grad()
    def add(self) -> None:
        self.parts += [self.weights.word_grad] if self.weights.word_grad else []
        self.sum = self.weights.grad.float().clone() if self.sum is None else self.sum.add_(self.weights.grad)

    def _gathered(self) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The gradients of the whole batch: (n,), and of its words (W,) and (W, H), or None of frozen ones."""
        gradient, words = self.weights.grad, self.weights.word_grad
        if self.sum is not None:
            gradient = self.sum.add_(gradient)
            if words:
                several, rows = zip(*self.parts, words, strict=True)
                distinct, place = torch.cat(several).unique(return_inverse=True)
                joined = torch.cat(rows)
                words = distinct, joined.new_zeros(len(distinct), joined.shape[1]).index_add_(0, place, joined)
        self.parts, self.sum = [], None
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
            of_range = same | {"lr": rate * self.shares[depth], "weight_decay": self.weight_decay if decayed else 0.0}
            for start in range(low, high, CHUNK):
                part = slice(start, min(start + CHUNK, high))
                master, gradient = weights.master[part], whole[part].float()
                torch._fused_adamw_([master], [gradient], [self.m[part]], [self.v[part]], [], step, **of_range)
                if weights.copy is not weights.master:
                    weights.copy[part].copy_(master)
        if words:
            self._update_words(*words, rate * self.shares[0], step, same)
        self.updating = False
        return norm

    def _update_words(self, words: Tensor, gradient: Tensor, rate: float, step: list[Tensor], same: dict[str, Any]) -> None:
        """The embeddings of a batch's words, (W,), whose gradient is (W, H)."""
        if self.steps == self.history.shape[1]:
            self.history = np.concatenate([self.history, np.zeros_like(self.history)], axis=1)
        left = self.history[1, self.steps - 1] + math.log(max(1 - rate * self.weight_decay, 1e-9))
        corrected = rate * math.sqrt(1 - BETAS[1] ** self.steps) / (1 - BETAS[0] ** self.steps)
        self.history[:, self.steps] = corrected / math.exp(left), left
        word, m, v = self.word[words], self.word_m[words], self.word_v[words]  # (W, H) each
        torch._fused_adamw_([word], [gradient], [m], [v], [], step, lr=rate, weight_decay=self.weight_decay, **same)
        self.word[words], self.word_m[words], self.word_v[words] = word, m, v
        self.last[self.places] = self.steps

    def finish(self) -> None:
        """Called before the weights are read: brings every word's embedding up to date."""
        self.before(torch.arange(len(self.word)))

    def discard(self) -> None:
        super().discard()
        self.parts, self.sum = [], None

    def skipped(self) -> None:
        self.steps -= 1
        if not self.weights.frozen:
            self.last[self.places] = self.steps

    def state(self) -> dict[str, Tensor]:
        """As of AdamW; the embeddings of words whose updates are not made up for yet stay so."""
        moments = {"m": self.m, "v": self.v, "word_m": self.word_m, "word_v": self.word_v}
        steps = {"steps": torch.tensor(self.steps), "last": torch.from_numpy(self.last)}
        history = torch.from_numpy(self.history[:, : self.steps + 1].copy())
        return super().state() | moments | steps | {"history": history}

    def restore(self, state: dict[str, Tensor]) -> None:
        super().restore(state)
        for name in ("m", "v", "word_m", "word_v"):
            getattr(self, name).copy_(state[name])
        self.steps, self.last = int(state["steps"]), state["last"].numpy().copy()
        history = state["history"].numpy()
        self.history = np.zeros((2, 2 * max(512, history.shape[1])))
        self.history[:, : history.shape[1]] = history
