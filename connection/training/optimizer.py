"""The optimizer of a run, and its learning-rate schedule."""

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
    """torch's AdamW over named parameters, with clipping; `shares` of the learning rate by depth, see `depth_of`."""

    def __init__(self, named: list[tuple[str, Any]], weight_decay: float, shares: list[float]):
        groups: dict[tuple[float, float], list[Any]] = {}
        for name, weight in named:
            decay = 0.0 if name.endswith(".bias") or "LayerNorm" in name else weight_decay
            groups.setdefault((decay, shares[depth_of(name, -1)]), []).append(weight)
        listed = [{"params": group, "weight_decay": decay, "share": share} for (decay, share), group in groups.items()]
        self.parameters, self.weight_decay, self.shares = [weight for _, weight in named], weight_decay, shares
        self.updating = False  # True where an update began and did not come to its end: some weights are new, some are old
        self.adamw: Any = torch.optim.AdamW(listed, lr=0.0, betas=BETAS, eps=EPSILON, fused=True) if named else None

    def before(self, words: Tensor) -> None:
        """Called before each batch's forward pass."""

    def add(self) -> None:
        """Called between the backward passes of a batch's parts: the next one's gradient is to be added to the last one's."""

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
                group["lr"] = rate * group["share"]
            self.adamw.step()
            self.adamw.zero_grad()

    def finish(self) -> None:
        """Called before the weights are read."""

    def discard(self) -> None:
        """Called in place of `update`: the batch's gradients so far are not wanted."""
        if self.adamw:
            self.adamw.zero_grad()

    def skipped(self) -> None:
        """Called after an `update` whose norm was not finite, where training goes on: that update has not been."""

    def state(self) -> dict[str, Tensor]:
        """What further updates depend on, beside the weights."""
        kept = self.adamw.state_dict()["state"] if self.adamw else {}
        return {f"adamw.{number}.{name}": value for number, state in kept.items() for name, value in state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state()`."""
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


def make_optimizer(module: nn.Module, weights: FlatWeights | None, weight_decay: float, layer_decay: float = 1.0) -> AdamW:
    """AdamW over all of a module's parameters that require a gradient, those in `weights` as flat ones.

    Biases and LayerNorm are not decayed (Devlin et al. 2018, arXiv 1810.04805, and BERT's own code). `layer_decay` d: the
    highest layer learns at the full rate, each one below at d times the rate of the one above it, the embeddings below them
    all (Howard & Ruder 2018, arXiv 1801.06146, section 3.2, "discriminative fine-tuning").
    """
    flat = weights.parameters if weights else set()
    numbers = [depth_of(name, 0) for name, _ in module.named_parameters()]
    shares = [layer_decay ** (max(numbers) - depth) for depth in range(max(numbers) + 1)]  # of the learning rate, by depth
    named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad and id(weight) not in flat]
    return FlatAdamW(weights, named, weight_decay, shares) if weights else AdamW(named, weight_decay, shares)
