"""The objective of a run: a weighted sum of those in connection/losses.py, perhaps at several Matryoshka dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import normalize

from connection import losses
from connection.losschoice import parse_loss

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (u, v, target, sentences) -> scalar, see connection/losses.py


class WeightedSum(nn.Module):
    """weight_1 objective_1 + weight_2 objective_2 + ..., called as each of them is; has their parameters."""

    def __init__(self, terms: Sequence[tuple[Loss, float]]):
        super().__init__()
        self.terms = terms
        self.trained = nn.ModuleList([loss for loss, _ in terms if isinstance(loss, nn.Module)])

    def forward(self, u: Tensor, v: Tensor, target: Tensor, sentences: Tensor) -> Tensor:
        value = u.new_zeros(())
        for loss, weight in self.terms:
            value = value + weight * loss(u, v, target, sentences)
        return value


class Matryoshka(nn.Module):
    """The sum of an objective's values on the first d dimensions of u and v, for each d of `dims`.

    Vectors may then be cut to any of these lengths. Cut ones are scaled to length 1 first, as in sentence-transformers'
    MatryoshkaLoss. Source: Kusupati et al. 2022, arXiv 2205.13147, section 3, with all weights 1.
    """

    def __init__(self, objective: nn.Module, dims: Sequence[int]):
        super().__init__()
        self.objective = objective
        self.dims = dims

    def forward(self, u: Tensor, v: Tensor, target: Tensor, sentences: Tensor) -> Tensor:
        value = u.new_zeros(())
        for size in self.dims:
            short_u, short_v = (normalize(side[:, :size], dim=-1) for side in (u, v))  # (B, H) -> (B, size)
            value = value + self.objective(short_u, short_v, target, sentences)
        return value


def make_objective(loss: str, scale: float, dims: Sequence[int], hidden_size: int, classes: Sequence[float]) -> nn.Module:
    """The objective named by `loss`, a sum such as "cosent+cosine-mse:0.5"; `classes` are the distinct targets, for softmax.

    `dims` are the Matryoshka dimensions, none for the full vectors alone. Raises `InputError` for an unknown name.
    """
    terms = [(_make(name, scale, hidden_size, classes), weight) for name, weight in parse_loss(loss).items()]
    return Matryoshka(WeightedSum(terms), dims) if dims else WeightedSum(terms)


def _make(name: str, scale: float, hidden_size: int, classes: Sequence[float]) -> Loss:
    if name == "softmax":
        return losses.Softmax(hidden_size, classes)
    known: dict[str, Loss] = {
        "cosine-mse": losses.cosine_mse,
        "cosent": partial(losses.cosent, scale=scale),
        "angle": partial(losses.angle, scale=scale),
        "contrastive": losses.contrastive,
        "online-contrastive": losses.online_contrastive,
        "multiple-negatives": partial(losses.multiple_negatives, scale=scale),
        "multiple-negatives-symmetric": partial(losses.multiple_negatives, scale=scale, symmetric=True),
    }
    return known[name]
