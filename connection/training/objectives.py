"""Training objectives: (u, v, target, sentences, weight) -> a scalar to minimise.

All have the same signature, for a batch of B pairs with vectors of H dimensions:

    u, v        (B, H) float32, the sentence vectors of both sides
    target      (B,) float32 in [0, 1], the mapped label; 1 means full connection
    sentences   (2, B) int64, number of the sentence on each side; equal numbers mean the same text
    weight      (B,) float32 above 0, how often each pair counts; None: each once

A pair of weight 3 counts as three equal pairs in the batch would: value and gradients are the same, and are defined for weights
between whole numbers too. The formulas below are those without weights.

The order of the pairs does not matter. If a batch has nothing to learn from (ranking objectives: no two pairs with different
labels; multiple-negatives: no connected pair; triplet: none), the value and its gradient are 0. Values and gradients equal
those of the sentence-transformers library (sbert.net/docs/package_reference/sentence_transformer/html) where it has the same
objective.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss, normalize, pad, relu

from connection.training.loss_choice import parse_loss

SCALE = 20.0  # factor on similarities in ranking objectives: the inverse softmax temperature
MARGIN = 0.5  # smallest cosine distance wanted for unconnected pairs; of triplets, from the positive's


def cosine_mse(u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of (cos(u_i, v_i) - target_i)^2: Sentence-BERT's regression objective.

    Accepts any target. Source: Reimers & Gurevych 2019, arXiv 1908.10084, section 3, "Regression Objective Function".
    """
    cosine = cosine_similarity(u, v, dim=-1)
    return mse_loss(cosine, target) if weight is None else _weighted_mean((cosine - target).square(), weight)


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` (N,), each counted `weight` (N,) times; 0 of none."""
    return (weight * values).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def cosent(
    u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None, scale: float = SCALE
) -> Tensor:
    """log(1 + sum of exp(scale (cos(u_i, v_i) - cos(u_j, v_j))) over all i, j with target_i < target_j).

    Accepts any target; only the order of the targets matters, and ties contribute nothing. Source: CoSENT, Huang et al. 2024,
    IEEE/ACM TASLP, doi 10.1109/TASLP.2024.3402087.
    """
    return _ranking(scale * cosine_similarity(u, v, dim=-1), target, weight)


def angle(
    u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None, scale: float = SCALE
) -> Tensor:
    """As `cosent`, with an angle in complex space instead of the cosine, which saturates near 1 and -1.

    Vectors are scaled to length 1. Their halves are the real and the imaginary parts of H/2 complex numbers (an odd H is padded
    with a 0). The similarity is |sum of (Re + Im) of u_k conj(v_k)|, the form of sentence-transformers' AnglELoss.
    Source: AnglE, Li & Li 2023, arXiv 2309.12871, section 3.4.
    """
    u, v = (normalize(pad(side, (0, side.shape[-1] % 2)), dim=-1) for side in (u, v))
    (re_u, im_u), (re_v, im_v) = u.chunk(2, dim=-1), v.chunk(2, dim=-1)  # (B, H/2) each
    similarity = ((re_u * re_v + im_u * im_v) + (im_u * re_v - re_u * im_v)).sum(dim=-1).abs()
    return _ranking(scale * similarity, target, weight)


def _ranking(similarity: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """log(1 + sum of exp(similarity_i - similarity_j) over target_i < target_j); similarity and target (B,).

    Each (i, j) counts weight_i weight_j times.
    """
    excess = similarity.unsqueeze(1) - similarity.unsqueeze(0)  # (B, B)
    if weight is not None:
        excess = excess + (weight.log().unsqueeze(1) + weight.log())
    excess = excess.masked_fill(target.unsqueeze(1) >= target.unsqueeze(0), -torch.inf)
    return torch.cat([excess.new_zeros(1), excess.flatten()]).logsumexp(dim=0)


def contrastive(u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of t_i d_i^2 / 2 + (1 - t_i) max(0, 0.5 - d_i)^2 / 2, with d_i = 1 - cos(u_i, v_i) and t_i = target_i.

    Targets 0 and 1. Source: Hadsell, Chopra & LeCun 2006, CVPR, doi 10.1109/CVPR.2006.100, equation 4.
    """
    distance = 1 - cosine_similarity(u, v, dim=-1)
    per_pair = target * distance.square() + (1 - target) * relu(MARGIN - distance).square()
    return 0.5 * (per_pair.mean() if weight is None else _weighted_mean(per_pair, weight))


def online_contrastive(u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum of d_i^2 over hard connected pairs and of max(0, 0.5 - d_i)^2 over hard unconnected ones, d_i = 1 - cos(u_i, v_i).

    A connected pair is hard if it is further apart than the nearest unconnected one; an unconnected pair, if it is nearer than
    the furthest connected one. If the batch has only one kind, the limit is its mean distance. Targets 0 and 1 (connected:
    above 0.5). Source: sentence-transformers, OnlineContrastiveLoss, which is also a sum, not a mean.
    """
    distance = 1 - cosine_similarity(u, v, dim=-1)
    is_connected = target > 0.5
    connected, unconnected = distance[is_connected], distance[~is_connected]
    if len(connected) and len(unconnected):
        hard, near = connected > unconnected.min(), unconnected < connected.max()
    else:
        mean = distance.mean() if weight is None else _weighted_mean(distance, weight)
        hard, near = connected > mean, unconnected < mean
    far, close = connected[hard].square(), relu(MARGIN - unconnected[near]).square()
    if weight is not None:
        far, close = weight[is_connected][hard] * far, weight[~is_connected][near] * close
    return far.sum() + close.sum()


def multiple_negatives(
    u: Tensor,
    v: Tensor,
    target: Tensor,
    sentences: Tensor,
    weight: Tensor | None = None,
    scale: float = SCALE,
    symmetric: bool = False,
) -> Tensor:
    """Mean over connected pairs i of -log(exp(s_ii) / sum of exp(s_ij) over j), s_ij = scale cos(u_i, v_j): find v_i.

    A pair is connected if its target is above 0.5, the middle of a graded scale. The second sentences of all B pairs are
    candidates, except known correct answers: the text of u_i itself, and every text that a connected pair of the batch joins
    with it, in either order. symmetric: the mean of this loss and of the loss of finding u_i among all u.
    Source: Henderson et al. 2017, arXiv 1705.00652, section 4.4; symmetric: Radford et al. 2021, arXiv 2103.00020, figure 3.
    """
    connected = target > 0.5
    texts, numbers = sentences.unique(return_inverse=True)  # (S,) distinct sentences; (2, B) indices into them
    first, second = numbers[:, connected]
    right = torch.eye(len(texts), dtype=torch.bool, device=u.device)  # (S, S)
    right[first, second] = right[second, first] = True
    masked = right[numbers[0]][:, numbers[1]].fill_diagonal_(False)  # (B, B)
    scores = scale * normalize(u, dim=-1) @ normalize(v, dim=-1).T  # (B, B)
    scores = scores.masked_fill(masked, -torch.inf)
    both_ways: Sequence[Tensor] = (scores, scores.T) if symmetric else (scores,)  # each u among all v; each v among all u
    if weight is not None:  # a wrong answer counts as often as its pair; of the right one, repeats would be masked
        copies = weight.log().expand_as(scores).clone().fill_diagonal_(0)
        both_ways = [way + copies for way in both_ways]
    log_sum = both_ways[0][connected].logsumexp(dim=1)  # one for each connected pair
    if symmetric:
        log_sum = (log_sum + both_ways[1][connected].logsumexp(dim=1)) / 2
    per_pair = log_sum - scores.diagonal()[connected]
    if weight is not None:
        return _weighted_mean(per_pair, weight[connected])
    return per_pair.sum() / max(1, len(per_pair))


def triplet(u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over all (i, j) of max(0, cos(u_j, v_j) - cos(u_i, v_i) + 0.5): the negative v_j is further than the positive v_i.

    i is a connected pair, j an unconnected one with the same first sentence. No sentence of another triplet counts. Targets 0
    and 1 (connected: above 0.5). Source: Reimers & Gurevych 2019, arXiv 1908.10084, section 3, "Triplet Objective Function",
    with the cosine distance.
    """
    cosine = cosine_similarity(u, v, dim=-1)
    positive = target > 0.5
    of_triplet = (sentences[0].unsqueeze(1) == sentences[0]) & positive.unsqueeze(1) & ~positive  # (B, B)
    excess = relu(cosine - cosine.unsqueeze(1) + MARGIN)[of_triplet]  # one of each (i, j)
    if weight is not None:
        share = weight / weight.max()  # products of small weights would be 0
        return _weighted_mean(excess, (share.unsqueeze(1) * share)[of_triplet])
    return excess.sum() / max(1, len(excess))


class Softmax(nn.Module):
    """Mean cross-entropy of a linear classifier over (u, v, |u - v|): Sentence-BERT's classification objective.

    Each distinct target is a class; `classes` (C,) are the targets. The classifier (3H -> C) is trained too, but is not saved
    with the model.
    Source: Reimers & Gurevych 2019, arXiv 1908.10084, section 3, "Classification Objective Function".
    """

    borders: Tensor

    def __init__(self, hidden_size: int, classes: Sequence[float]):
        super().__init__()
        self.classifier = nn.Linear(3 * hidden_size, len(classes))
        ascending = torch.tensor(sorted(classes), dtype=torch.float32)
        self.register_buffer("borders", (ascending[1:] + ascending[:-1]) / 2)  # (C - 1,)

    def forward(self, u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None) -> Tensor:
        logits = self.classifier(torch.cat([u, v, (u - v).abs()], dim=-1))  # (B, 3H) -> (B, C)
        classes = torch.bucketize(target, self.borders)
        if weight is not None:
            return _weighted_mean(cross_entropy(logits, classes, reduction="none"), weight)
        return cross_entropy(logits, classes)


Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]  # (u, v, target, sentences, weight) -> scalar


class WeightedSum(nn.Module):
    """factor_1 objective_1 + factor_2 objective_2 + ..., with the signature and the parameters of its objectives."""

    def __init__(self, terms: Sequence[tuple[Loss, float]]):
        super().__init__()
        self.terms = terms
        self.trained = nn.ModuleList([loss for loss, _ in terms if isinstance(loss, nn.Module)])

    def forward(self, u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None) -> Tensor:
        value = u.new_zeros(())
        for loss, factor in self.terms:
            value = value + factor * loss(u, v, target, sentences, weight)
        return value


class Matryoshka(nn.Module):
    """Sum of an objective's values on the first d dimensions of u and v, over all d in `dims`.

    Vectors can then be truncated to any of these lengths. Truncated vectors are scaled to length 1 first, as in
    sentence-transformers' MatryoshkaLoss. Source: Kusupati et al. 2022, arXiv 2205.13147, section 3, with all weights 1.
    """

    def __init__(self, objective: nn.Module, dims: Sequence[int]):
        super().__init__()
        self.objective = objective
        self.dims = dims

    def forward(self, u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None) -> Tensor:
        value = u.new_zeros(())
        for size in self.dims:
            short_u, short_v = (normalize(side[:, :size], dim=-1) for side in (u, v))  # (B, H) -> (B, size)
            value = value + self.objective(short_u, short_v, target, sentences, weight)
        return value


def make_objective(loss: str, scale: float, dims: Sequence[int], hidden_size: int, classes: Sequence[float]) -> nn.Module:
    """Build the objective named by `loss`, or a sum such as "cosent+cosine-mse:0.5".

    `dims`: the Matryoshka dimensions, empty for full vectors only. `classes`: the distinct targets, for softmax. Raises
    `InputError` for an unknown name.
    """
    terms = [(_make(name, scale, hidden_size, classes), factor) for name, factor in parse_loss(loss).items()]
    return Matryoshka(WeightedSum(terms), dims) if dims else WeightedSum(terms)


class FileObjective(NamedTuple):
    """What the batches of one training file are trained towards."""

    loss: str  # as `make_objective`
    targets: Sequence[float]  # the file's distinct ones
    first: int  # number of the file's first sentence: see `PerFile`


class PerFile(nn.Module):
    """The objective of a batch's training file. A batch is of one file, and the numbers of its sentences tell of which.

    objectives: the different ones; `which`: the index of each file's; `first`: the number of each file's first sentence.
    """

    def __init__(self, objectives: Sequence[nn.Module], which: Sequence[int], first: Sequence[int]):
        super().__init__()
        self.objectives, self.which, self.first = nn.ModuleList(objectives), which, first

    def forward(self, u: Tensor, v: Tensor, target: Tensor, sentences: Tensor, weight: Tensor | None = None) -> Tensor:
        file = bisect.bisect_right(self.first, int(sentences[0, 0])) - 1
        value: Tensor = self.objectives[self.which[file]](u, v, target, sentences, weight)
        return value


def make_objectives(files: Sequence[FileObjective], scale: float, dims: Sequence[int], hidden_size: int) -> nn.Module:
    """Build the objective of one training file, or of several: then each batch has that of its own.

    Files with the same `loss` share it, with the weights that it may have: softmax has the classes of all of them.
    """
    losses = list(dict.fromkeys(file.loss for file in files))
    classes = {loss: sorted({target for file in files if file.loss == loss for target in file.targets}) for loss in losses}
    made = [make_objective(loss, scale, dims, hidden_size, classes[loss]) for loss in losses]
    return (
        made[0]
        if len(made) == 1
        else PerFile(made, [losses.index(file.loss) for file in files], [file.first for file in files])
    )


def _make(name: str, scale: float, hidden_size: int, classes: Sequence[float]) -> Loss:
    if name == "softmax":
        return Softmax(hidden_size, classes)
    known: dict[str, Loss] = {
        "cosine-mse": cosine_mse,
        "cosent": partial(cosent, scale=scale),
        "angle": partial(angle, scale=scale),
        "contrastive": contrastive,
        "online-contrastive": online_contrastive,
        "triplet": triplet,
        "multiple-negatives": partial(multiple_negatives, scale=scale),
        "multiple-negatives-symmetric": partial(multiple_negatives, scale=scale, symmetric=True),
    }
    return known[name]
