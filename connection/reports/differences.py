"""Two runs on the same test pairs: what the second gained over the first, with its interval."""

from __future__ import annotations

from typing import Any

import pandas as pd

from connection.evaluation.bootstrap import gain, resampled
from connection.evaluation.evaluate import precision_gain, retrieval_gain
from connection.settings import NEUTRAL, START, names_of

NOT_COMPARED = {*names_of(NEUTRAL, START), "asked", "given"}  # differences in these do not change the model


def same_pairs(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    """Return whether two results of `read_predictions` are of the same pairs with the same labels."""
    return len(a) == len(b) and bool((a[["pair", "label"]].to_numpy() == b[["pair", "label"]].to_numpy()).all())


def gain_between(a: pd.DataFrame, b: pd.DataFrame, falling: bool, binary: bool) -> dict[str, Any]:
    """Return the gain of b's cosines over a's on the same pairs: see `bootstrap.gain`. falling: a larger label is less near.

    Of pairs without labels it is that of their ranks: see `retrieval_gain`.
    """
    if "query" in a and "query" in b:
        query, pair = (pd.factorize(a[name])[0] for name in ("query", "pair"))
        return dict(retrieval_gain(query, pair, *(table["final_rank"].fillna(0).to_numpy() for table in (a, b)))[0])
    label, of_a, of_b = a["label"].to_numpy(), a["final"].to_numpy(), b["final"].to_numpy()
    rising = -label if falling else label
    found: dict[str, Any] = gain(rising, of_a, of_b, resampled(rising, [of_a, of_b]))
    return found | precision_gain(rising == rising.max(), of_a, of_b)[0] if binary else found


def flat_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as one level of keys, such as versions.torch; data files as digests of their content, without paths."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "data_sha256" and isinstance(value, dict):
            flat |= {"data files (SHA-256)": ", ".join(str(digest)[:12] for digest in value.values())}
        elif key in NOT_COMPARED:
            continue
        elif isinstance(value, dict):
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            flat[key] = value
    return flat
