"""Training objectives: (u, v, target, sentences) -> a scalar to minimise.

All are called the same way, for a batch of B pairs with vectors of H dimensions:

    u, v        (B, H) float32, the sentence vectors of both sides
    target      (B,) float32 in [0, 1], the mapped label; 1 is full connection
    sentences   (2, B) int64, which sentence stands on each side; equal numbers are the same text

The order of the pairs does not matter. Where a batch holds nothing to learn from (no two pairs with different labels for the
ranking ones, no connected pair for multiple-negatives), the value is 0 and so is its gradient. Values and gradients are those
of the sentence-transformers library (sbert.net/docs/package_reference/sentence_transformer/html) where it has the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss, normalize, pad, relu

from connection.training.loss_choice import parse_loss

SCALE = 20.0  # what ranking objectives multiply similarities by: the inverse of a softmax's temperature
MARGIN = 0.5  # cosine distance that unconnected pairs should have at least


def cosine_mse(u: Tensor, v: Tensor, target: Tensor, sentences: Tensor) -> Tensor:
    """Mean of (cos(u_i, v_i) - target_i)^2: Sentence-BERT's regression objective.

    Any target. Source: Reimers & Gurevych 2019, arXiv 1908.10084, section 3, "Regression Objective Function".
    """
    return mse_loss(cosine_similarity(u, v, dim=-1), target)


def cosent(u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, scale: float = SCALE) -> Tensor:
    """log(1 + sum of exp(scale (cos(u_i, v_i) - cos(u_j, v_j))) over all i, j with target_i < target_j).

    Any target; only the order of the targets counts, and ties say nothing. Source: CoSENT, Huang et al. 2024, IEEE/ACM TASLP,
    doi 10.1109/TASLP.2024.3402087.
    """
    return _ranking(scale * cosine_similarity(u, v, dim=-1), target)


def angle(u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, scale: float = SCALE) -> Tensor:
    """As `cosent`, of an angle in complex space instead of the cosine, which hardly changes near 1 and -1.

    The halves of a vector of length 1 are the real and the imaginary part of H/2 complex numbers (of an odd H, a 0 is added);
    the similarity is |sum of (Re + Im) of u_k conj(v_k)|, the form of sentence-transformers' AnglELoss.
    Source: AnglE, Li & Li 2023, arXiv 2309.12871, section 3.4.
    """
    u, v = (normalize(pad(side, (0, side.shape[-1] % 2)), dim=-1) for side in (u, v))
    (re_u, im_u), (re_v, im_v) = u.chunk(2, dim=-1), v.chunk(2, dim=-1)  # (B, H/2) each
    return _ranking(scale * ((re_u * re_v + im_u * im_v) + (im_u * re_v - re_u * im_v)).sum(dim=-1).abs(), target)


def _ranking(similarity: Tensor, target: Tensor) -> Tensor:
    """log(1 + sum of exp(similarity_i - similarity_j) over target_i < target_j); similarity and target (B,)."""
    excess = similarity.unsqueeze(1) - similarity.unsqueeze(0)  # (B, B)
    excess = excess.masked_fill(target.unsqueeze(1) >= target.unsqueeze(0), -torch.inf)
    return torch.cat([excess.new_zeros(1), excess.flatten()]).logsumexp(dim=0)


def contrastive(u: Tensor, v: Tensor, target: Tensor, sentences: Tensor) -> Tensor:
    """Mean of t_i d_i^2 / 2 + (1 - t_i) max(0, 0.5 - d_i)^2 / 2, with d_i = 1 - cos(u_i, v_i) and t_i = target_i.

    Targets 0 and 1. Source: Hadsell, Chopra & LeCun 2006, CVPR, doi 10.1109/CVPR.2006.100, equation 4.
    """
    distance = 1 - cosine_similarity(u, v, dim=-1)
    return 0.5 * (target * distance.square() + (1 - target) * relu(MARGIN - distance).square()).mean()


def online_contrastive(u: Tensor, v: Tensor, target: Tensor, sentences: Tensor) -> Tensor:
    """Sum of d_i^2 over hard connected pairs and of max(0, 0.5 - d_i)^2 over hard unconnected ones, d_i = 1 - cos(u_i, v_i).

    Hard is a connected pair further apart than the nearest unconnected one, and an unconnected pair nearer than the furthest
    connected one; in a batch of one kind, on the wrong side of its mean. Targets 0 and 1 (those above 0.5 are connected).
    Source: sentence-transformers, OnlineContrastiveLoss; a sum, not a mean, as there.
    """
    distance = 1 - cosine_similarity(u, v, dim=-1)
    connected = distance[target > 0.5]
    unconnected = distance[target <= 0.5]
    hard = connected[connected > (unconnected.min() if len(unconnected) else connected.mean())]
    near = unconnected[unconnected < (connected.max() if len(connected) else unconnected.mean())]
    return hard.square().sum() + relu(MARGIN - near).square().sum()


def multiple_negatives(
    u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, scale: float = SCALE, symmetric: bool = False
) -> Tensor:
    """Mean over connected pairs i of -log(exp(s_ii) / sum of exp(s_ij) over j), s_ij = scale cos(u_i, v_j): which v is v_i?

    Connected are the pairs with a target above 0.5, on a graded scale those above its middle. The second sentences of all B
    pairs are candidates; not those that are known to be no wrong answer: the text of u_i itself, and every text that a
    connected pair of the batch, either way round, joins with it. symmetric: the mean of that and of finding u_i among all u.
    Source: Henderson et al. 2017, arXiv 1705.00652, section 4.4; symmetric: Radford et al. 2021, arXiv 2103.00020, figure 3.
    """
    connected = target > 0.5
    texts, numbers = sentences.unique(return_inverse=True)  # S distinct ones; (2, B) places among them
    first, second = numbers[:, connected]
    right = torch.eye(len(texts), dtype=torch.bool, device=u.device)  # (S, S)
    right[first, second] = right[second, first] = True
    masked = right[numbers[0]][:, numbers[1]].fill_diagonal_(False)  # (B, B)
    scores = scale * normalize(u, dim=-1) @ normalize(v, dim=-1).T  # (B, B)
    scores = scores.masked_fill(masked, -torch.inf)
    log_sum = scores[connected].logsumexp(dim=1)  # one for each connected pair
    if symmetric:
        log_sum = (log_sum + scores.T[connected].logsumexp(dim=1)) / 2
    per_pair = log_sum - scores.diagonal()[connected]
    return per_pair.sum() / max(1, len(per_pair))


class Softmax(nn.Module):
    """Mean cross-entropy of a linear classifier over (u, v, |u - v|): Sentence-BERT's classification objective.

    A class is a distinct target; there are `classes` of them, (C,) ascending. The classifier (3H -> C) is trained along and is
    not part of the model that is saved: the sentence vectors are.
    Source: Reimers & Gurevych 2019, arXiv 1908.10084, section 3, "Classification Objective Function".
    """

    borders: Tensor

    def __init__(self, hidden_size: int, classes: Sequence[float]):
        super().__init__()
        self.classifier = nn.Linear(3 * hidden_size, len(classes))
        ascending = torch.tensor(sorted(classes), dtype=torch.float32)
        self.register_buffer("borders", (ascending[1:] + ascending[:-1]) / 2)  # (C - 1,)

    def forward(self, u: Tensor, v: Tensor, target: Tensor, sentences: Tensor) -> Tensor:
        logits = self.classifier(torch.cat([u, v, (u - v).abs()], dim=-1))  # (B, 3H) -> (B, C)
        return cross_entropy(logits, torch.bucketize(target, self.borders))


Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (u, v, target, sentences) -> scalar, see connection/py


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
        return Softmax(hidden_size, classes)
    known: dict[str, Loss] = {
        "cosine-mse": cosine_mse,
        "cosent": partial(cosent, scale=scale),
        "angle": partial(angle, scale=scale),
        "contrastive": contrastive,
        "online-contrastive": online_contrastive,
        "multiple-negatives": partial(multiple_negatives, scale=scale),
        "multiple-negatives-symmetric": partial(multiple_negatives, scale=scale, symmetric=True),
    }
    return known[name]
