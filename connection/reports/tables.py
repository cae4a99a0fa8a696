"""Turns figures into tables for the terminal and report.html, and into plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from connection.evaluation.evaluate import Figures, deciding, measure_of
from connection.evaluation.ranking import RECALL_AT
from connection.evaluation.slices import worst_slices
from connection.reports.results import RunResults

# figure: (title in tables, factor, number format)
METRIC_FORMATS = {
    "spearman": ("Spearman x 100", 100, "{:.2f}"),
    "pearson": ("Pearson x 100", 100, "{:.2f}"),
    "positive_share": ("share of connected pairs x 100", 100, "{:.2f}"),
    "average_precision": ("average precision x 100", 100, "{:.2f}"),
    "roc_auc": ("ROC AUC x 100", 100, "{:.2f}"),
    "threshold": ("threshold, fitted on dev", 1, "{:.4f}"),
    "f1": ("F1 x 100", 100, "{:.2f}"),
    "precision": ("precision x 100", 100, "{:.2f}"),
    "recall": ("recall x 100", 100, "{:.2f}"),
    "mcc": ("MCC x 100", 100, "{:.2f}"),
    "accuracy": ("accuracy x 100", 100, "{:.2f}"),
    "mean_absolute_error": ("mean absolute error (labels)", 1, "{:.3f}"),
    "queries": ("queries", 1, "{:.0f}"),
    "without_relevant": ("queries left out: none relevant", 1, "{:.0f}"),
    "candidates": ("candidates of each query", 1, "{:.0f}"),
    "tied": ("tied candidates", 1, "{:.0f}"),
    "mrr@10": ("MRR@10 x 100", 100, "{:.2f}"),
    "ndcg@10": ("nDCG@10 x 100", 100, "{:.2f}"),
    "map": ("MAP x 100", 100, "{:.2f}"),
    "mrr": ("MRR@10 x 100", 100, "{:.2f}"),
    **{f"recall@{k}": (f"recall@{k} x 100", 100, "{:.2f}") for k in RECALL_AT},
    "triplets": ("triplets", 1, "{:.0f}"),
    "triplet_accuracy": ("triplet accuracy x 100", 100, "{:.2f}"),
}

# kind of slices (connection/evaluation/slices.py): words before the name of a slice
SLICED_BY = {
    "all": "",
    "label": "label ",
    "length": "longer sentence ",
    "overlap": "word pieces ",
    "truncation": "sentences ",
    "negation": "negation ",
}


def format_number(value: float | None, form: str = "{:.4f}") -> str:
    return "n/a" if value is None or value != value else form.format(value)


def percent(value: float | None, form: str = "{:.2f}") -> str:
    """Return a correlation x 100 as text."""
    return format_number(None if value is None else 100 * value, form)


def gain_sentence(gain: Mapping[str, Any], who: str = "Fine-tuning", where: str = "on the test pairs") -> str:
    """Return a sentence on a result of `bootstrap.gain`: the points gained, +- half the width of the 95% interval."""
    measure = measure_of(gain)
    value, low, high, p_value = (gain[key] for key in gain_keys(measure))
    if low is None or low != low:
        return f"{who}: the pairs are too few, or too alike, to say what was gained {where}."
    points, low, high = 100 * value, 100 * low, 100 * high
    p = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.{2 if p_value >= 0.1 else 3}f}"
    size = f"{abs(points):.1f} +- {(high - low) / 2:.1f} points of {METRIC_FORMATS[measure][0]} {where}"
    sure = f"(95% interval {low:+.2f} to {high:+.2f}, {p})"
    if low <= 0 <= high:
        return f"{who} {'gained' if points >= 0 else 'lost'} {size}, which may be chance {sure}."
    return f"{who} {'gained' if points > 0 else 'lost'} {size} {sure}."


def gain_keys(measure: str) -> tuple[str, str, str, str]:
    """The keys of a `Gain`: the difference of a measure, the ends of its interval, and p."""
    start = "" if measure == "spearman" else f"{measure}_"
    return measure, f"{start}low", f"{start}high", f"{start}p"


def figures_table(columns: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each figure and a column for each model in {name: result of `evaluate`}, with `METRIC_FORMATS`."""
    rows: dict[str, dict[str, str]] = {}
    for name, figures in columns.items():
        flat = {key: value for key, value in figures.items() if not isinstance(value, dict | list)}
        for group in ("binary", "graded", "retrieval", "ranking"):
            flat |= figures.get(group, {})
        if "mrr" in flat:  # of pairs without labels, which have no correlation
            flat = {key: value for key, value in flat.items() if key not in ("spearman", "pearson")}
        for key, (title, factor, form) in METRIC_FORMATS.items():
            if key not in flat:
                continue
            value = flat[key]
            shown = format_number(None if value is None else factor * value, form)
            low, high = (flat.get(f"{key}_{end}") for end in ("low", "high"))
            if low is not None and high is not None and low == low:
                shown += f" ({factor * low:.2f} to {factor * high:.2f})"
            rows.setdefault(title, {})[name] = shown
    return pd.DataFrame([{"figure": title} | cells for title, cells in rows.items()]).fillna("")


def before_and_after(results: RunResults) -> dict[str, Figures]:
    """Return the columns of `figures_table` for a run's test pairs; {} without test pairs."""
    models = {"base": results["base"].get("test"), "fine-tuned": results["final"].get("test")}
    return {name: figures for name, figures in models.items() if figures}


def curve_table(curve: list[dict[str, float]]) -> pd.DataFrame:
    """Return the rows of `calibration_curve` with its numbers as text."""
    names = {"cosine": "mean cosine", "predicted": "label it stands for", "label": "mean label"}
    return pd.DataFrame(
        [{"pairs": row["pairs"]} | {title: format_number(row[key]) for key, title in names.items()} for row in curve]
    )


def seeds_table(results: RunResults) -> pd.DataFrame:
    """Return the deciding measure x 100 on dev and test for each seed, with rows for their mean and standard deviation.

    With a last row for the average of their weights, if there is one.
    """
    splits = [split for split in ("dev", "test") if split in results["over_seeds"]]
    title = METRIC_FORMATS[measure_of(next((seed[split] or {} for seed in results["seeds"] for split in splits), {}))][0]

    def row(name: str, values: list[float | None]) -> dict[str, str]:
        return {"seed": name} | {f"{split} {title}": percent(value) for split, value in zip(splits, values, strict=True)}

    rows = [row(str(seed["seed"]), [deciding(seed[split] or {}) for split in splits]) for seed in results["seeds"]]
    for name, key in (("mean", "mean"), ("standard deviation", "deviation")):
        rows.append(row(name, [cast(float, results["over_seeds"][split].get(key)) for split in splits]))
    if soup := results.get("soup"):
        figures = [deciding(results["final"].get(split, {})) for split in splits]
        named = f"average of the weights of {', '.join(map(str, soup))}"
        rows.append(row(named if len(soup) > 1 else f"{soup[0]} alone: no average was better on dev", figures))
    return pd.DataFrame(rows)


def slices_table(slices: dict[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """Return a row for each slice of `find_slices`; figures are text."""
    return pd.DataFrame(
        [
            {
                "slice": SLICED_BY[kind] + row["slice"],
                "pairs": row["pairs"],
                "Spearman x 100": percent(row["spearman"]),
                "mean absolute error": format_number(row["mean_absolute_error"], "{:.3f}"),
            }
            for kind, rows in slices.items()
            for row in rows
        ]
    )


def errors_sentence(slices: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Return a sentence that names the worst slices of the test pairs, if any is worse than all pairs, and errors.csv."""
    where = f"errors.csv has every {' and '.join(sorted(slices))} pair, the worst first."
    if "test" not in slices or not (worst := worst_slices(slices["test"])):
        return where
    [overall] = slices["test"]["all"]
    named = [
        f"{SLICED_BY[kind]}{row['slice']} ({row['mean_absolute_error']:.2f} on {row['pairs']:,} pairs)" for kind, row in worst
    ]
    error = f"{overall['mean_absolute_error']:.2f} label units on all test pairs"
    return f"Worst of the test pairs, by mean absolute error ({error}): {', '.join(named)}. {where}"


def render(table: pd.DataFrame) -> str:
    return table.to_string(index=False)


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def epoch_table(epochs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each epoch: losses, Spearman and others (x 100), times; all but the number as text. Fits 80 columns."""
    rows = []
    for row in epochs:
        names = {"dev average precision": "dev AP", "dev Spearman": "dev Spearman", "dev Pearson": "dev Pearson"}
        names = {"dev MRR@10": "dev MRR@10"} if "dev MRR@10" in row else names
        correlations = {title: percent(row[name]) for name, title in names.items() if name in row}
        times = {name.split()[0]: duration(row[name]) for name in ("training time", "evaluation time")}
        losses = {name: format_number(row[name]) for name in ("training loss", "dev loss")}
        rows.append({"epoch": row["epoch"]} | losses | correlations | times)
    return pd.DataFrame(rows)


def gain_table(results: RunResults) -> pd.DataFrame:
    """Return the deciding measure x 100 of both models: a row for each split, with the gain's interval if computed."""
    rows = []
    for split, base in results["base"].items():
        measure, final = measure_of(base), results["final"].get(split)
        before, after = deciding(base), deciding(final) if final else None
        gain: Mapping[str, Any] | None = results.get("gain", {}).get(split)
        _, low, high, _ = gain_keys(measure)
        ends = [percent(gain.get(end), "{:+.2f}") for end in (low, high)] if gain else []
        rows.append(
            {
                METRIC_FORMATS[measure][0]: split,
                "pairs": base["pairs"],
                "base": percent(before),
                "fine-tuned": percent(after),
                "gain": "n/a" if before is None or after is None else percent(after - before, "{:+.2f}"),
                "95% interval": " to ".join(ends),
            }
        )
    return pd.DataFrame(rows)
