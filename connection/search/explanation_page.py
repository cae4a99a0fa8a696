"""Writes an explanation as a page: a heat map of the pairs of words, in one file that loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from connection.search.explanation import Explanation, shown
from connection.system.atomic_files import atomic_file
from connection.system.escapes import printable_lines

STRONGEST = 0.6  # opacity of the strongest colour: the numbers on it stay readable, light and dark
LEAST = 0.01


def write_page(path: Path, texts: tuple[str, str], explanation: Explanation, base: Explanation | None = None) -> None:
    """Write the heat map of an explanation; with that of a base model, also of both models' difference, and the base's."""
    maps = [_map("This model" if base else "Pairs of words", f"Cosine {explanation.cosine:.4f}.", explanation)]
    if base:
        change = explanation.minus(base)
        maps.append(_map("Change from the base model", f"This model's numbers less the base's: {change.cosine:+.4f}.", change))
        maps.append(_map("The base model", f"Cosine {base.cosine:.4f}.", base))
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"), autoescape=True, undefined=StrictUndefined
    )
    page = templates.get_template("explanation.html").render(
        cosine=explanation.cosine, maps=maps, texts=[printable_lines(text) for text in texts], cut=explanation.cut
    )
    with atomic_file(path) as file:
        file.write(page.encode("utf-8"))


def _map(title: str, remark: str, explanation: Explanation) -> dict[str, Any]:
    """Returns what the template shows of one explanation. The strongest pair of words has the strongest colour."""
    values = explanation.contributions
    strength = STRONGEST * np.abs(values) / max(float(np.abs(values).max(initial=0)), 1e-12)
    rows = [
        {
            "word": shown(word),
            "cells": [
                {"number": _hundreds(value), "sign": "plus" if value > 0 else "minus",
                 "strength": f"{opacity:.2f}" if opacity >= LEAST else ""}
                for value, opacity in zip(values[row].tolist(), strength[row].tolist(), strict=True)
            ],
            "share": _hundreds(share),
        }
        for row, (word, share) in enumerate(zip(explanation.first, explanation.shares[0].tolist(), strict=True))
    ]  # fmt: skip
    return {
        "title": title,
        "remark": remark,
        "columns": [shown(word) for word in explanation.second],
        "rows": rows,
        "shares": [_hundreds(share) for share in explanation.shares[1].tolist()],
        "total": _hundreds(explanation.cosine),
    }


def _hundreds(value: float) -> str:
    return f"{round(100 * value, 2) + 0.0:.2f}"  # + 0.0: no -0.00
