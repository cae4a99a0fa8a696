"""errors.csv of a run folder: every dev and test pair with its text, the worst predicted first; and the slices of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from connection.calibration import Fitted, is_binary
from connection.evaluation import Labelled
from connection.labels import LabelScale
from connection.prepare import Prepared
from connection.slices import find_slices
from connection.worstfirst import write_worst_first

FILE = "errors.csv"


def predicted_label(cosine: np.ndarray, fitted: Fitted, scale: LabelScale) -> np.ndarray:
    """The labels that cosines (N,) stand for, (N,) float64; where nothing was fitted, their place on the label scale.

    That place is where training wants the cosine of a label: from `low` at 0 and below to `high` at 1.
    """
    return fitted.label(cosine) if fitted.knots else scale.low + np.clip(cosine, 0, 1) * (scale.high - scale.low)


def write_errors(
    folder: Path, prepared: Prepared, parts: Mapping[str, Any], pairs: Mapping[str, Labelled], cosines: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Write `FILE`; {"slices": {part: slices}} of `connection.slices.find_slices`, {} of a run without figures to look at.

    parts: the Datasets of the held-out pairs; cosines: of the fine-tuned model, (N,) each. The residual is label less predicted
    label: positive where the model puts a pair too low. The mapping, and of binary labels the threshold that "called" follows
    from, is fitted on the dev pairs; of these the slices have therefore no error unless nothing was fitted.
    """
    if not cosines:
        return {}
    dev = pairs["dev"] if "dev" in cosines else None
    fitted = Fitted.of(cosines["dev"], dev.label, dev.scale) if dev else Fitted()
    tables = {}
    for part, cosine in cosines.items():
        label, scale = pairs[part].label, pairs[part].scale
        predicted = predicted_label(cosine, fitted, scale)
        tables[part] = pd.DataFrame({"split": part, "line": pairs[part].line, "label": label, "predicted": predicted})
        if fitted.threshold is not None and is_binary(label, scale):
            tables[part]["called"] = np.where(cosine >= fitted.threshold, scale.high, scale.low)
        tables[part] = tables[part].assign(cosine=cosine, residual=label.astype(float) - predicted)
    table = pd.concat(tables.values(), ignore_index=True)
    negated, problem = write_worst_first(folder / FILE, table, lambda part: prepared.reopen(parts[part].store))
    if problem:
        print(f"{FILE} has no text: {problem}")
    slices, start = {}, 0
    for part, cosine in cosines.items():
        of_part = slice(start, start + len(cosine))
        start += len(cosine)
        residual = None if part == "dev" and fitted.knots else table["residual"].to_numpy()[of_part]
        words = None if negated is None else negated[of_part]
        slices[part] = find_slices(pairs[part], parts[part].store, parts[part].places, words, cosine, residual)
    return {"slices": slices}
