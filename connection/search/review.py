"""Writes the page on which a person accepts or rejects links: review.html with the candidates in it.

The page is one file that loads nothing and sends nothing. It saves the decisions as a pair file for the training command.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from connection.search.link_tables import LinkedLists, names_of
from connection.system.atomic_files import atomic_file
from connection.system.csv_output import FORMULA, INNER_FORMULA

TEMPLATE = Path(__file__).with_name("review.html")
MOST_GRADES = 10  # labels that have a key each, 0 to 9


def write_review(
    path: Path, linked: LinkedLists, labels: tuple[float, float] | None, threshold: float | None, about: str
) -> None:
    """Write the page for the candidates of two lists.

    labels: the model's scale, (no connection, full connection); accepted and rejected pairs are saved with its ends, without a
    scale with 1 and 0. about: one sentence below the title.
    """
    low, high = map(float, labels or (0, 1))
    candidates, predicted = linked.found.candidates, linked.predicted
    places, lists = [], []
    for side, rows in zip(linked.sides, (candidates.a, candidates.b), strict=True):
        used, place = np.unique(rows, return_inverse=True)  # rows that no candidate names stay out of the page
        places.append(place.tolist())
        texts, ids = ([column[row] for row in used.tolist()] for column in (side.texts, names_of(side)))
        lists.append({"name": side.path.name, "ids": ids, "texts": texts})
    content: dict[str, Any] = {
        "sides": lists,
        "a": places[0],
        "b": places[1],
        "cosine": [round(value, 4) for value in candidates.cosine.tolist()],
        "rank": candidates.rank.tolist(),
        "connected": linked.found.connected.tolist(),
        "known": linked.known_marks(),
        "predicted": [None] * len(candidates) if predicted is None else [round(value, 2) for value in predicted.tolist()],
        "low": _whole(low),
        "high": _whole(high),
        "grades": _grades(low, high),
        "threshold": threshold,
        "about": about,
        "save_as": f"{path.stem}-decisions.csv",
        "formula": FORMULA.pattern,
        "inner_formula": INNER_FORMULA.pattern,
    }
    content["digest"] = hashlib.sha256(json.dumps([lists, places]).encode()).hexdigest()
    with atomic_file(path) as new:
        new.write(_page(content).encode("utf-8", errors="backslashreplace"))


def _grades(low: float, high: float) -> list[int]:
    """Returns the whole labels of a graded scale that has a key for each of them; [] for others."""
    least, most = sorted((low, high))
    if not (low.is_integer() and high.is_integer() and least >= 0 and most < MOST_GRADES and most - least > 1):
        return []
    return list(range(int(least), int(most) + 1))


def _whole(number: float) -> float | int:
    return int(number) if number.is_integer() else number


def _page(content: dict[str, Any]) -> str:
    """Returns the template with the content in it, in which no text can end the element that holds it, and with its policy.

    The policy lets run the page's own script alone, and lets nothing be loaded.
    """
    page = TEMPLATE.read_text(encoding="utf-8")
    hashes = {
        name: base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        for name, block in re.findall(r"<(style|script)>(.*?)</\1>", page, flags=re.S)
    }
    policy = f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'"
    data = json.dumps(content, ensure_ascii=False, allow_nan=False)
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    before, after = page.replace("<!--POLICY-->", policy).split("<!--DATA-->")
    return before + data + after
