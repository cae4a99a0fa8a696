"""AdamW with gradient clipping and a learning rate per depth, over a module's parameters or over flat weights.

With flat weights (connection/model/flat_weights.py), the layers are updated in chunks, and a word's embedding only when a batch
contains the word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from connection.model.flat_weights import FlatWeights, sum_rows
from connection.system import processes
from connection.training.distributed import add_up_gradients, add_up_words

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def depth_of(name: str, beside: int) -> int:
    """Depth of a parameter: 0 for embeddings, 1 for an encoder's lowest layer, and so on; `beside` for all others."""
    number = re.search(r"\.layers?\.(\d+)\.", name)
    return int(number[1]) + 1 if number else 0 if "embeddings." in name else beside


class AdamW:
    """torch's AdamW over named parameters, with gradient clipping. `lr_scales` are learning-rate factors by depth."""

    def __init__(self, named: list[tuple[str, Any]], weight_decay: float, lr_scales: list[float]):
        groups: dict[tuple[float, float], list[Any]] = {}
        for name, weight in named:
            decay = 0.0 if weight.ndim < 2 else weight_decay  # biases and LayerNorm
            groups.setdefault((decay, lr_scales[depth_of(name, -1)]), []).append(weight)
        listed = [{"params": group, "weight_decay": decay, "lr_scale": lr_scale} for (decay, lr_scale), group in groups.items()]
        self.parameters, self.weight_decay, self.lr_scales = [weight for _, weight in named], weight_decay, lr_scales
        self.updating = False  # True during an update, when only some weights are updated
        self.last_part = True  # the next backward pass is of the last micro-batch
        self.adamw: Any = torch.optim.AdamW(listed, lr=0.0, betas=BETAS, eps=EPSILON, fused=True) if named else None

    def accumulate(self) -> None:
        """Keep the gradient so far: the next micro-batch's gradient will be added to it."""

    def update(self, rate: float, max_norm: float, loss: Tensor | None = None) -> Tensor:
        """Clip the gradient to the L2 norm `max_norm` (0: no clipping) and update. Returns the norm before clipping, a scalar.

        If the norm or `loss` is not finite, no weight changes and the result is not finite.
        """
        add_up_gradients(self.parameters)
        norm = spoilt(self._norm(), loss)
        self.updating = True
        self._step(rate, norm, max_norm)
        self.updating = False
        return norm

    def _norm(self, *gradients: Tensor) -> Tensor:
        """L2 norm of `gradients` and the parameters' gradients together. Each norm uses the fast kernel of its dtype."""
        all_of_them = [*gradients, *(weight.grad for weight in self.parameters if weight.grad is not None)]
        return torch.stack([torch.linalg.vector_norm(gradient).float() for gradient in all_of_them]).norm()

    def _step(self, rate: float, norm: Tensor, max_norm: float) -> None:
        # The fused kernel reads both tensors, so that the CPU need not wait for the GPU.
        self.found_inf = torch.isfinite(norm).logical_not().float()
        self.divisor = (norm / max_norm).clamp(min=1) if max_norm else None
        if self.adamw:
            self.adamw.found_inf, self.adamw.grad_scale = self.found_inf, self.divisor
            for group in self.adamw.param_groups:
                group["lr"] = rate * group["lr_scale"]
            self.adamw.step()
            self.adamw.zero_grad()

    def discard(self) -> None:
        """Drop the gradients of a batch without an update."""
        if self.adamw:
            self.adamw.zero_grad()

    def skipped(self) -> None:
        """Undo the step count of the last `update`, whose norm was not finite and which changed no weight."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that further updates depend on, except the weights."""
        kept = self.adamw.state_dict()["state"] if self.adamw else {}
        return {f"adamw.{number}.{name}": value for number, state in kept.items() for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of `state_dict`."""
        kept: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            kind, _, rest = key.partition(".")
            if kind == "adamw":
                number, _, name = rest.partition(".")
                kept.setdefault(int(number), {})[name] = value.clone()
        if self.adamw:
            self.adamw.load_state_dict({"state": kept, "param_groups": self.adamw.state_dict()["param_groups"]})


def spoilt(norm: Tensor, loss: Tensor | None) -> Tensor:
    """Return `norm`, or NaN if the loss is not finite. A test on the CPU would have to wait for the GPU."""
    return norm if loss is None else norm + 0 * loss


CHUNK = 1 << 17  # elements; their float32 gradients stay in the processor's cache between two operations
REMEMBERED = 256  # steps after which a gradient has no effect: (0.9 / sqrt(0.999))^256 is 2e-12


class FlatAdamW(AdamW):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over `FlatWeights` and the other parameters, `named`.

    Missed updates of absent words have gradient 0, hence a closed form: the moments m and v after step t are beta1^j m and
    beta2^j v after step t + j. These updates are applied when the word next occurs, or before the weights are read.
    """

    def __init__(self, weights: FlatWeights, named: list[tuple[str, Any]], weight_decay: float, lr_scales: list[float]):
        super().__init__(named, weight_decay, lr_scales)
        self.weights, self.word = weights, weights.word.data
        self.at_once = weights.master.is_cuda  # all weights in a few calls; a CPU's caches hold a chunk at a time
        words = self.word[:0] if weights.frozen else self.word
        self.m, self.v, self.word_m, self.word_v = (
            torch.zeros_like(tensor) for tensor in (weights.master, weights.master, words, words)
        )
        weights.catch_up, weights.layer_done = self.catch_up, self._layer_done
        self.begun: list[Callable[[], None]] = []  # sums over several processes: each waits until it is there
        self.in_fp32: Tensor | None = None  # the gradient (n,) of bf16 passes, of several processes
        self.word_grads: list[tuple[Tensor, Tensor]] = []  # accumulated: ids (W,) on the CPU, their gradients (W, H)
        self.sum: Tensor | None = None  # accumulated gradients of all other weights, (n,) float32
        self.updated = np.zeros(0, np.int64)  # the ids whose embeddings the last update changed
        self.steps = 0
        self.last = np.zeros(len(self.word), np.int64)  # the step up to which each embedding is updated
        # For each step s so far: rate * sqrt(1 - beta2^s) / (1 - beta1^s) / d, and log d; d: product of weight-decay factors.
        self.history = np.zeros((2, 1024))

    @torch.no_grad()
    def catch_up(self, ids: Tensor) -> None:
        """Apply the missed updates of the embeddings of these words, (W,) int64 on the CPU."""
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
        epsilon = EPSILON * np.sqrt(1 - BETAS[1] ** last) + 1e-30  # m = v = 0 for a word that was in no batch yet
        fades = (beta ** (self.steps - last) for beta in BETAS)
        columns = self._there(np.stack([sizes, shrink, epsilon, *fades]).astype(np.float32)).unsqueeze(-1)
        size, shrunk, small, fade1, fade2 = columns  # (W, 1) each
        there = self._there(late)
        m, v = self.word_m[there], self.word_v[there]
        self.word[there] = self.word[there] * shrunk - size * m / (v.sqrt() + small)
        self.word_m[there], self.word_v[there] = m * fade1, v * fade2
        self.last[late] = self.steps

    def _there(self, array: np.ndarray) -> Tensor:
        """Copy to the weights' device, without waiting for the GPU."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.word.device, non_blocking=True) if self.word.is_cuda else tensor

    @torch.no_grad()
    def accumulate(self) -> None:
        self.word_grads += [self.weights.word_grad] if self.weights.word_grad else []
        self.sum = self.weights.grad.float().clone() if self.sum is None else self.sum.add_(self.weights.grad)

    def _gathered(self) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Gradients of the whole batch, of all processes: flat (n,); ids (W,) and their embeddings' (W, H), None if frozen."""
        gradient, words = self.weights.grad, self.weights.word_grad
        if self.sum is not None and words:
            ids, rows = zip(*self.word_grads, words, strict=True)
            unique_ids, inverse = torch.cat(ids).unique(return_inverse=True)
            joined = torch.cat(rows)
            words = unique_ids, sum_rows(self._there(inverse.numpy()), joined, len(unique_ids))
        if processes.count() > 1:
            gradient = self._added_up()
        elif self.sum is not None:
            gradient = self.sum.add_(gradient)
        self.word_grads, self.sum = [], None
        return gradient, words and add_up_words(self.weights, *words)

    def _layer_done(self, number: int) -> None:
        """Begin to add up a layer's gradients over several processes, while the backward pass goes on below it."""
        if processes.count() > 1 and self.last_part:
            self._begin(*self.weights.matrices[number])

    @torch.no_grad()
    def _begin(self, low: int, high: int) -> None:
        """Begin to add up a range of this process's gradient with those of the others."""
        if low == high:
            return
        part = self.weights.grad[low:high]
        if self.sum is not None:
            part = self.sum[low:high].add_(part)
        elif part.dtype != torch.float32:
            self.in_fp32 = self.weights.master.new_empty(len(self.weights.master)) if self.in_fp32 is None else self.in_fp32
            part = self.in_fp32[low:high].copy_(part)
        self.begun.append(processes.begin_to_add_up(part))

    def _added_up(self) -> Tensor:
        """The gradient (n,) of all processes. Each begins the sums in the same order, also without a pair of the batch."""
        matrices = self.weights.matrices
        for number in reversed(range(len(matrices) - len(self.begun))):
            self._begin(*matrices[number])
        self._begin(0, matrices[0][0])  # of the embeddings, if they are trained
        self._begin(matrices[-1][1], len(self.weights.grad))  # biases and LayerNorm
        add_up_gradients(self.parameters)
        for wait in self.begun:
            wait()
        self.begun = []
        if self.sum is not None:
            return self.sum
        return self.weights.grad if self.in_fp32 is None else self.in_fp32

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
        if self.at_once:
            self._update_at_once(whole.float(), rate, step, same)
        for low, high, depth, decayed in () if self.at_once else weights.ranges:
            of_range = same | {"lr": rate * self.lr_scales[depth], "weight_decay": self.weight_decay if decayed else 0.0}
            for start in range(low, high, CHUNK):
                chunk = slice(start, min(start + CHUNK, high))
                master, gradient = weights.master[chunk], whole[chunk].float()
                torch._fused_adamw_([master], [gradient], [self.m[chunk]], [self.v[chunk]], [], step, **of_range)
                if weights.copy is not weights.master:
                    weights.copy[chunk].copy_(master)
        if words:
            self._update_words(*words, rate * self.lr_scales[0], step, same)
        self.updating = False
        return norm

    def _update_at_once(self, whole: Tensor, rate: float, step: list[Tensor], same: dict[str, Any]) -> None:
        """Update all weights but the words' in as few calls as there are learning rates: a GPU waits for each call.

        whole: the gradient (n,) float32.
        """
        weights = self.weights
        alike: dict[tuple[float, float], list[slice]] = {}
        for low, high, depth, decayed in weights.ranges:
            key = rate * self.lr_scales[depth], self.weight_decay if decayed else 0.0
            alike.setdefault(key, []).append(slice(low, high))
        for (lr, decay), parts in alike.items():
            master, gradient, m, v = ([tensor[part] for part in parts] for tensor in (weights.master, whole, self.m, self.v))
            torch._fused_adamw_(master, gradient, m, v, [], step * len(parts), lr=lr, weight_decay=decay, **same)
        if weights.copy is not weights.master:
            weights.copy.copy_(weights.master)

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
        """As in AdamW. Pending embedding updates stay pending, as in an uninterrupted run."""
        moments = {"m": self.m, "v": self.v, "word_m": self.word_m, "word_v": self.word_v}
        steps = {"steps": torch.tensor(self.steps), "last": torch.from_numpy(self.last)}
        history = torch.from_numpy(self.history[:, : self.steps + 1].copy())
        return super().state_dict() | moments | steps | {"history": history}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        for name in ("m", "v", "word_m", "word_v"):
            getattr(self, name).copy_(state[name][: len(getattr(self, name))])  # frozen words had moments in earlier versions
        self.steps, self.last = int(state["steps"]), state["last"].numpy().copy()
        history = state["history"].numpy()
        self.history = np.zeros((2, 2 * max(512, history.shape[1])))
        self.history[:, : history.shape[1]] = history


def make_optimizer(module: nn.Module, weights: FlatWeights | None, weight_decay: float, layer_decay: float = 1.0) -> AdamW:
    """Build AdamW over all parameters of a module that require a gradient; those in `weights` are updated as flat vectors.

    Biases and LayerNorm have no weight decay (Devlin et al. 2018, arXiv 1810.04805, and BERT's own code). `layer_decay` d: the
    highest layer has the full learning rate, and each lower layer d times that of the one above; the embeddings are the lowest
    (Howard & Ruder 2018, arXiv 1801.06146, section 3.2, "discriminative fine-tuning").
    """
    flat = weights.parameters if weights else set()
    numbers = [depth_of(name, 0) for name, _ in module.named_parameters()]
    lr_scales = [layer_decay ** (max(numbers) - depth) for depth in range(max(numbers) + 1)]
    named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad and id(weight) not in flat]
    return FlatAdamW(weights, named, weight_decay, lr_scales) if weights else AdamW(named, weight_decay, lr_scales)
