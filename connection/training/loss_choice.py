"""Choice of the training objective: names, the labels that each accepts, the rule of `--loss auto`. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from connection.system.errors import InputError

# The kinds of labels that each objective accepts. The contrastive ones need to know whether a pair is connected;
# multiple-negatives trains on the connected pairs only, which it also finds on a graded scale. Of "positives" every pair is
# connected: any other objective would pull all sentences together. Those of "triplets" are binary ones, and stay together.
FITS = {
    "cosine-mse": ("graded", "binary", "triplets"),
    "cosent": ("graded", "binary", "triplets"),
    "angle": ("graded", "binary", "triplets"),
    "contrastive": ("binary", "triplets"),
    "online-contrastive": ("binary", "triplets"),
    "triplet": ("triplets",),
    "multiple-negatives": ("graded", "binary", "positives", "triplets"),
    "multiple-negatives-symmetric": ("graded", "binary", "positives", "triplets"),
    "softmax": ("graded", "binary", "triplets"),
}
MOST_CLASSES = 20  # most distinct labels that softmax accepts
SMALL_BATCH = 8  # pairs; the labels in a smaller batch are often all equal


def pick_loss(kind: str, batch_size: int, targets: Sequence[float] = (0.0, 1.0)) -> tuple[str, str]:
    """Return the objective that `--loss auto` picks for this kind of labels, batch size and distinct targets, and why.

    This function is the whole rule: change it only here. docs/objectives.md has the measurements behind it.
    """
    if kind == "triplets":
        return "multiple-negatives", "triplets: learns to find each positive among the negatives and positives of its batch"
    if kind == "positives" or (len(targets) < 2 and batch_size > 1 and all(target > 0.5 for target in targets)):
        return "multiple-negatives", "all labels mean connected: learns to find each pair's second sentence in its batch"
    if len(targets) < 2:
        return "cosine-mse", "all labels are the same, and none is to be ranked above another: each is a cosine to reach"
    if batch_size < SMALL_BATCH:
        why = f"{kind} labels; batches below {SMALL_BATCH} pairs hold too few to rank them"
        return ("cosine-mse" if kind == "graded" else "contrastive"), why
    return "cosent", f"{kind} labels: ranks the pairs of a batch by them"


def parse_loss(text: str) -> dict[str, float]:
    """Parse `cosent+cosine-mse:0.5` to {"cosent": 1.0, "cosine-mse": 0.5}; "auto", valid only alone, gives {"auto": 1.0}.

    Raises `InputError` for an unknown or repeated name, and for a weight that is not a positive number.
    """
    terms: dict[str, float] = {}
    for term in text.split("+"):
        name, colon, weight = (piece.strip() for piece in term.partition(":"))
        if name not in FITS and (name, text.strip()) != ("auto", "auto"):
            raise InputError(f"{name!r} is no objective; they are {', '.join(FITS)}, or auto alone")
        if name in terms:
            raise InputError(f"{name} stands there twice; give it one weight, as in {name}:2")
        try:
            terms[name] = float(weight) if colon else 1.0
        except ValueError:
            terms[name] = math.nan
        if not 0 < terms[name] < math.inf or "_" in weight:
            raise InputError(f"{weight!r} is no weight; write a number above 0, as in cosent+cosine-mse:0.5")
    return terms


def parse_dims(text: str) -> tuple[int, ...]:
    """Parse `96,384` to (384, 96), largest first; () for "". Raises `InputError` for anything but whole numbers above 0."""
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise InputError(f"{text!r} is no list of dimensions; write whole numbers above 0, as in 384,192,96")
    return tuple(sorted({int(word) for word in words}, reverse=True))


def choose_loss(text: str, kind: str, targets: Sequence[float], batch_size: int) -> tuple[str, str]:
    """Return the objective that `text` asks for, and the reason; `targets` are the distinct training targets, in [0, 1].

    Raises `InputError` if an objective does not accept labels of this kind; its message lists those that do.
    """
    if kind == "positives" and batch_size < 2:
        raise InputError(
            f"--batch-size {batch_size}: with connected pairs alone, the other pairs of a batch are what each is told from. "
            "Give 2 at least, better 32 or more"
        )
    if text.strip() == "auto":
        return pick_loss(kind, batch_size, targets)
    fitting = [name for name in FITS if not _lacks(name, kind, targets)]
    for name in parse_loss(text):
        if name not in fitting:
            raise InputError(
                f"--loss {name} needs {_lacks(name, kind, targets)}; {_described(kind, targets)}. "
                f"These fit: {', '.join(fitting)}; or leave the choice to --loss auto."
            )
    return text, "as asked"


def _described(kind: str, targets: Sequence[float]) -> str:
    if kind == "positives":
        return "all training pairs are connected"
    return f"the training labels are {kind}, {len(targets)} distinct ones"


def _lacks(name: str, kind: str, targets: Sequence[float]) -> str:
    """Return the objective's requirement that the training labels do not meet; '' if they meet all."""
    if name == "triplet" and kind != "triplets":
        return "triplets, whose negatives share a batch with their positive"
    if kind not in FITS[name]:
        return "labels of unconnected pairs too" if kind == "positives" else "binary labels, 0 and 1"
    if name == "softmax" and not 2 <= len(targets) <= MOST_CLASSES:
        return f"2 to {MOST_CLASSES} distinct labels"
    if name in ("cosent", "angle") and len(targets) < 2:
        return "2 distinct labels at least, to rank one above the other"
    if name.startswith("multiple-negatives") and not max(targets, default=0) > 0.5:
        return "connected pairs, labelled above the middle of the scale"
    return ""


def choose_dims(text: str, loss: str, hidden_size: int) -> tuple[int, ...]:
    """Return the Matryoshka dimensions in `text`, largest first, with the full size always included; () for none.

    Raises `InputError` for a dimension above the hidden size, and for softmax, whose classifier needs full vectors.
    """
    dims = parse_dims(text)
    if not dims:
        return ()
    if dims[0] > hidden_size:
        raise InputError(f"--matryoshka-dims: {dims[0]} is above {hidden_size}, the size of this model's vectors")
    if "softmax" in parse_loss(loss):
        fitting = ", ".join(name for name in FITS if name != "softmax")
        raise InputError(
            f"--matryoshka-dims: softmax's classifier reads full vectors alone. These can be shortened: {fitting}."
        )
    return dims if dims[0] == hidden_size else (hidden_size, *dims)
