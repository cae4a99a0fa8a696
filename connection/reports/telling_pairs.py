"""The pairs that a report shows: what is right now and was not before, and the worst, with each word's share of the cosine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from connection.reports.run_files import Run
from connection.system.errors import InputError
from connection.system.escapes import printable, printable_lines

if TYPE_CHECKING:
    from ConnectionBert import ConnectionBert

COUNT = 10
NEAR = 0.1  # of the scale: a predicted label this near to the label is right
LONGEST = 1_000  # characters of a text that are shown
NUMBERED = 3  # words of a text, the strongest ones, whose share is also a number
STRONGEST = 0.55  # opacity of the strongest word: its text stays readable, light and dark


def newly_right(table: pd.DataFrame, run: Run, before: str = "before") -> np.ndarray:
    """Return the places of up to `COUNT` pairs that are right after and were not before, the largest improvement first.

    A graded pair is right if the predicted label is within `NEAR` of the scale; a binary one if it is on the right side of the
    threshold.
    """
    missed = (table[before] - table["label"]).abs().to_numpy()
    miss = (table["after"] - table["label"]).abs().to_numpy()
    if run.binary:
        was, now = (table[f"called_{when}"].to_numpy() == table["label"].to_numpy() for when in (before, "after"))
    else:
        near = NEAR * abs(run.scale.high - run.scale.low) + 1e-9
        was, now = missed <= near, miss <= near
    return _largest(np.where(now & ~was, missed - miss, -1.0))


def worst(table: pd.DataFrame) -> np.ndarray:
    """Return the places of the `COUNT` pairs with the largest distance of predicted label and label."""
    return _largest((table["after"] - table["label"]).abs().to_numpy())


def _largest(values: np.ndarray) -> np.ndarray:
    order = np.argsort(-values, kind="stable")[:COUNT]
    return order[values[order] >= 0]


def as_shown(
    table: pd.DataFrame, places: np.ndarray, texts: dict[int, tuple[str, str]], shares: dict[int, list[Any]] | None = None
) -> list[dict[str, Any]]:
    """Return what the page shows of these pairs; those without text are left out."""
    return [
        {
            "line": line,
            "label": float(table["label"].iloc[place]),
            "before": float(table["before"].iloc[place]),
            "after": float(table["after"].iloc[place]),
            "texts": [cut(text) for text in texts[line]],
            "shares": (shares or {}).get(line),
        }
        for place in places
        if (line := int(table["line"].iloc[place])) in texts
    ]


def title_of(line: int, label: float, predicted: float, texts: dict[int, tuple[str, str]]) -> str:
    """Return the line that a point of a plot shows under the pointer."""
    one, two = (printable(text[:160]) for text in texts.get(line, ("", "")))
    return f"{one}\n{two}\nlabel {label:g}, predicted {predicted:.2f}, row {line}"


def word_shares(model: Path, pairs: Sequence[tuple[int, tuple[str, str]]]) -> tuple[dict[int, list[list[dict[str, Any]]]], str]:
    """Return each word's share of the cosine, for both texts of the pairs by their line; and why there are none, or "".

    model: a folder. A text without words is left out.
    """
    from connection.search.explanation import explain, require_words, shown
    from ConnectionBert import ConnectionBert

    if not pairs:
        return {}, ""
    try:
        loaded: ConnectionBert = ConnectionBert.load(model)
        require_words(loaded)
    except InputError as error:
        return {}, str(error) if model.is_dir() else "the run's model/ is not here."
    found: dict[int, list[list[dict[str, Any]]]] = {}
    for line, (one, two) in pairs:
        try:
            explanation = explain(loaded, one, two)
        except InputError:
            continue
        sides = zip((explanation.first, explanation.second), explanation.shares, strict=True)
        most = max(1e-9, *(float(np.abs(share).max(initial=0)) for share in explanation.shares))
        found[line] = [
            [
                {
                    "word": shown(word),
                    "sign": "plus" if share > 0 else "minus",
                    "number": f"{100 * share:+.0f}" if place in np.argsort(-np.abs(share_of))[:NUMBERED] else "",
                    "opacity": f"{STRONGEST * abs(share) / most:.2f}",
                }
                for place, (word, share) in enumerate(zip(words, share_of.tolist(), strict=True))
            ]
            for words, share_of in sides
        ]
    return found, ""


def cut(text: str) -> str:
    """Return a text as the page shows it: printable, and not too long."""
    return printable_lines(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")
