"""Whether labels rise with likeness: their order against the base model's cosines and the tokens that pairs share.

Labels that fall with likeness are distances, school marks where 1 is best, or codes of classes such as NLI's 0 for entailment.
Trained on as they are, they would teach the opposite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from connection.data.correlation import spearman, spearman_interval
from connection.evaluation.similarity import pair_similarities
from connection.evaluation.slices import token_overlap
from connection.system.errors import InputError

if TYPE_CHECKING:
    from ConnectionBert import ConnectionBert
    from ConnectionDataset import ConnectionDataset

SAMPLE = 500  # pairs: enough for an interval of 0.2, encoded in seconds
FEWEST = 10  # pairs: the interval of fewer is too wide to say anything
CODES = range(3, 11)  # different whole numbers that may be codes of classes
CONTRADICTION = -0.1


def require_label_order(model: ConnectionBert, data: ConnectionDataset) -> str:
    """Compare the order of training labels, whose scale was not declared, with the likeness of their pairs.

    Returns a remark about whole numbers whose order says nothing of likeness, for they may be codes of classes; else "".

    Raises `InputError` when the labels clearly fall with likeness: when both correlations, with the tokens that pairs share and
    with the base model's cosines, are below `CONTRADICTION` and their 95% intervals below 0. The model is asked only where the
    tokens say so: most files cost nothing.
    """
    scale, store = data.scale, data.store
    places = np.arange(len(store))[data.places]
    if len(places) > SAMPLE:
        places = np.sort(np.random.default_rng(0).choice(places, SAMPLE, replace=False))
    label = scale.target(store.label[places])
    if scale.is_retrieval or scale.how == "declared" or len(label) < FEWEST or len(np.unique(label)) < 2:
        return ""
    seen = store.written
    whole = all(value.is_integer() for value in seen)  # codes have the ends that were seen
    by_tokens = correlation(token_overlap(store, store.index1[places], store.index2[places]), label)
    may_be_codes = whole and len(seen) in CODES and by_tokens[1] <= 0
    if not (by_tokens[2] < 0 or may_be_codes):
        return ""
    by_model = correlation(pair_similarities(model, store, places)["cosine"], label)
    low, high = (f"{end:g}" for end in ((seen[0], seen[-1]) if whole else (scale.low, scale.high)))
    if not (by_tokens[2] < 0 and by_tokens[0] < CONTRADICTION and by_model[0] < CONTRADICTION and by_model[2] < 0):
        if not (may_be_codes and by_model[1] <= 0):
            return ""
        return (
            f"the labels {low} to {high} may be codes of classes: they do not rise with likeness for certain (Spearman with "
            f"the base model's cosines {_said(by_model)}, with shared words {_said(by_tokens)}, on {len(label)} pairs). "
            f"Replace codes by numbers that rise with the connection; if the labels are right: "
            f"--label-min {low} --label-max {high}"
        )
    raise InputError(
        f"{store.path}: the labels seem to be the wrong way round. The larger the label, the less alike the pairs are: "
        f"Spearman with the base model's cosines {_said(by_model)}, with the words that pairs share {_said(by_tokens)}, on "
        f"{len(label)} pairs.\n"
        f"  - if a small label means a strong connection (distances, school marks, NLI's 0 for entailment), declare the scale "
        f"reversed: --label-min {high} --label-max {low}\n"
        f"  - if the labels are codes of classes, replace them by numbers that rise with the connection\n"
        f"  - if they are right as they are, declare them: --label-min {low} --label-max {high}"
    )


def correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Spearman's correlation of x (n,) and y (n,) with its 95% interval."""
    value = spearman(x, y)
    return value, *spearman_interval(value, len(x))


def _said(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"
