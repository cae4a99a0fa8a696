"""How often each training pair counts: by the file's column of weights, and by --balance, for rare labels."""

from __future__ import annotations

import numpy as np

from connection.data.labels import LabelScale
from connection.data.pair_store import PairStore
from connection.system.errors import InputError

LEAST_MEAN = 0.1  # of the weights, such as ones that add up to 1; docs/data.md has what smaller ones cost
BANDS = 10  # equal parts of the label scale, where there are more distinct labels than that


def weigh_pairs(
    store: PairStore, rows: np.ndarray | None, scale: LabelScale, balance: bool
) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
    """Returns the rows that are trained on, of `rows` or all (None), their weights (N,) float32, and remarks for the user.

    Pairs of weight 0 are left out. The weights are None if each pair counts once. Raises `InputError` if no pair is left, or if
    there is nothing to balance.
    """
    if store.weight is None and not balance:
        return rows, None, []
    places = np.arange(len(store), dtype=np.int32) if rows is None else rows
    weight = np.ones(len(places), np.float32) if store.weight is None else store.weight[places]
    counts = weight > 0
    left_out = len(places) - int(counts.sum())
    if left_out == len(places):
        raise InputError(f"{store.path}: all training pairs have the weight 0, so there is none to train on.")
    if left_out:
        places, weight = places[counts], weight[counts]
    said = "from the file's column"
    if balance:
        factor, classes = _balance(store, places, weight, scale)
        weight = (weight * factor).astype(np.float32)
        said = f"{said}, and --balance" if store.weight is not None else "by --balance"
        said += f", so that each of {classes} counts the same"
    remarks = [f"weights of the training pairs: {weight.min():.3g} to {weight.max():.3g}, mean {weight.mean():.3g}, {said}"]
    if (mean := float(weight.mean())) < LEAST_MEAN:
        remarks.append(
            f"WARNING: of weights that are {mean:.3g} on average, cosent, angle and multiple-negatives learn little, as of "
            f"rows that are hardly there: multiply all of them by {1 / mean:.3g}, so that their mean is 1"
        )
    remarks += [f"{left_out:,} pairs have the weight 0 and are not trained on"] * bool(left_out)
    return (rows if rows is None and not left_out else places), weight, remarks


def _balance(store: PairStore, places: np.ndarray, weight: np.ndarray, scale: LabelScale) -> tuple[np.ndarray, str]:
    """Returns a factor on the weight of each pair (N,), with which all labels have the same total weight, and what they are.

    The total weight of all pairs stays as it is. Where there are more than `BANDS` distinct labels, bands of the scale are
    balanced instead of single labels; a band without pairs has no weight.
    """
    if scale.is_retrieval:
        raise InputError(f"--balance: {store.path} has no labels that differ, so there is nothing to balance. Leave it out.")
    labels, group = np.unique(store.label[places], return_inverse=True)
    of_what = f"{len(labels)} labels"
    if len(labels) > BANDS:
        bands = np.minimum((scale.target(labels) * BANDS).astype(np.int64), BANDS - 1)
        distinct, band = np.unique(bands, return_inverse=True)
        group = band[group]
        of_what = f"{len(distinct)} bands of the label scale that hold pairs"
    total = np.bincount(group, weight.astype(np.float64))
    if len(total) == 1:
        raise InputError(f"--balance: the training pairs of {store.path} have one label alone, or one band. Leave it out.")
    return (total.sum() / len(total) / total)[group], of_what
