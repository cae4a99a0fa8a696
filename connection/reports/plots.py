"""The plots of a report, each drawn into a matplotlib figure: one run, a run with all its seeds, or several runs.

Each function returns its text alternative, the numbers that a reader of the picture would take from it; "" where there is
nothing to draw. They are 360 points wide, so that their text can be read on a phone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from connection.evaluation.binary import at_threshold
from connection.evaluation.bootstrap import FEWEST_PAIRS
from connection.evaluation.evaluate import deciding, measure_of
from connection.reports.run_files import Run
from connection.reports.tables import METRIC_FORMATS, SLICED_BY

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can distinguish; the page has lighter ones for the dark: see svg.py.
INK, GRID, BEFORE, RUNS = "#1b1b1b", "#dcdcdc", "#7d7d7d", ("#0072b2", "#d55e00", "#009e73", "#aa4499")
WIDTH = 5.0  # inches, of 72 points each
MOST_POINTS = 2_000  # pairs that are drawn one by one
MOST_STEPS = 400  # points of a loss curve; with more, each is a mean
MOST_SLICES = 14
BANDS = 8  # of labels, where there are more distinct ones
BOX = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 1}  # behind a text that may lie on a line
POINTS = "points"  # the id of the points that show their pair


@dataclasses.dataclass(frozen=True)
class Shown:
    """A run as plots show it; one of several seeds is `faint`."""

    run: Run
    name: str
    colour: str
    faint: bool = False


def shown_of(runs: Sequence[Run]) -> list[Shown]:
    """Return the runs, each after its other seeds, which then lie below it; an average of seeds (--soup) after all of them."""
    found = []
    for place, run in enumerate(runs):
        colour, name = RUNS[place % len(RUNS)], run.name if len(runs) > 1 else "after"
        itself = None if "soup" in run.results else run.results.get("seed")
        found += [Shown(seed, "", colour, True) for seed in run.seeds if seed.results.get("seed") != itself]
        found.append(Shown(run, name, colour))
    return found


def gain(figure: Figure, shown: Sequence[Shown]) -> str:
    """Bars of the measure that decides on the test pairs, before and after, with 95% intervals."""
    strong = [one for one in shown if not one.faint and deciding(one.run.results["final"].get("test") or {}) is not None]
    base = strong[0].run.results["base"].get("test") if strong else None
    if not base:
        return ""
    measure = measure_of(base)
    bars = [("before", BEFORE, base)] + [(one.name, one.colour, one.run.results["final"]["test"]) for one in strong]
    figure.set_size_inches(WIDTH, 0.75 + 0.42 * len(bars))
    axes: Any = figure.add_subplot()
    told, least = [], 0.0
    for place, (name, colour, figures) in enumerate(bars):
        value, ends = 100 * float(deciding(figures) or 0), _ends(figures, measure)
        axes.barh(place, value, 0.6, color=colour)
        text, right = f"{value:.1f}", value
        if ends:
            axes.plot(ends, [place, place], color=INK, linewidth=1.4, solid_capstyle="butt")
            text, right = f"{value:.1f}  ({ends[0]:.1f} to {ends[1]:.1f})", max(value, ends[1])
            least = min(least, ends[0])
        least = min(least, value)
        axes.annotate(text, (max(right, 0), place), (5, 0), textcoords="offset points", va="center")
        told.append(f"{name} {text}")
    for place, one in enumerate(strong, 1):
        for seed in _seeds(shown, one):
            of_seed = deciding(seed.run.results["final"].get("test") or {})
            axes.plot([math.nan if of_seed is None else 100 * of_seed], [place], "o", ms=4, mfc="none", color=INK)
    axes.set_yticks(range(len(bars)), [_short(name, 18) for name, *_ in bars])
    axes.invert_yaxis()
    axes.set(xlim=(min(0, least - 2), 150), xticks=range(0, 101, 25), xlabel=f"{METRIC_FORMATS[measure][0]}, 100 is best")
    axes.xaxis.set_label_coords(0, -0.24 if len(bars) < 3 else -0.2)
    axes.xaxis.label.set_ha("left")
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_bounds(0, 100)
    axes.spines["left"].set_visible(False)
    several = " The circles are the other seeds." if len(shown) > len(strong) else ""
    return f"{METRIC_FORMATS[measure][0]} with its 95% interval: {'; '.join(told)}.{several}"


def predicted(figure: Figure, shown: Sequence[Shown]) -> str:
    """Predicted label against label: each pair a point, and the mean of each label."""
    drawn = [one for one in shown if one.run.shown and not one.run.binary]
    if not drawn:
        return ""
    figure.set_size_inches(WIDTH, 4.2)
    axes: Any = figure.add_subplot()
    scale = drawn[-1].run.scale
    ends = sorted((scale.low, scale.high))
    axes.plot(ends, ends, color=BEFORE, linewidth=1, linestyle=(0, (4, 3)))
    many, told = sum(not one.faint for one in drawn) > 1, ""
    for one in drawn:
        table = one.run.pairs[one.run.shown]
        middles, groups = _bands(table, one.run)
        means = [float(table["after"][rows].mean()) for rows in groups]
        if not one.faint and not many:
            points = table.iloc[points_of(table)]
            jitter = np.random.default_rng(0).uniform(-1, 1, len(points)) * 0.018 * (ends[1] - ends[0])
            axes.scatter(points["label"] + jitter, points["after"], 16, color=one.colour, alpha=0.28, linewidths=0, gid=POINTS)
        line: dict[str, Any] = {"color": one.colour if many or one.faint else INK, "linewidth": 0.8 if one.faint else 1.6}
        axes.plot(middles, means, **line, **({} if one.faint else {"marker": "o", "ms": 4.5}))
        if not one.faint:
            rows = ", ".join(f"{mean:.2f} for label {middle:g}" for middle, mean in zip(middles, means, strict=True))
            told += f" {one.name if many else 'Mean prediction'}: {rows}."
    axes.annotate(
        "exact", (ends[0] + 0.8 * (ends[1] - ends[0]),) * 2, (-4, 4), textcoords="offset points", ha="right", color=BEFORE
    )
    if many:
        _key(axes, drawn)
    axes.set(xlabel="label in the file", ylabel="label that the model predicts")
    return f"Predicted label against label, of the {drawn[-1].run.shown} pairs.{told}"


def precision_recall(figure: Figure, shown: Sequence[Shown]) -> str:
    """Precision against recall over all thresholds, before and after, and the point of the model's threshold."""
    drawn = [one for one in shown if one.run.shown and one.run.binary]
    if not drawn:
        return ""
    figure.set_size_inches(WIDTH, 3.6)
    axes, told = figure.add_subplot(), []
    first = next(one for one in drawn if not one.faint)
    lines = [(Shown(first.run, "before", BEFORE), "base")] + [(one, "final") for one in drawn]
    for one, model in lines:
        table = one.run.pairs[one.run.shown]
        cosine, positive = table[model].to_numpy(), table["label"].to_numpy() == one.run.scale.high
        if not 0 < positive.sum() < len(positive):
            return ""
        order = np.argsort(-cosine, kind="stable")
        last = np.append(np.diff(cosine[order]) != 0, True)  # equal cosines are taken together
        hits, taken = np.cumsum(positive[order])[last], np.flatnonzero(last) + 1
        axes.step(
            np.append(0, 100 * hits / hits[-1]), 100 * np.append(hits[0] / taken[0], hits / taken),
            where="pre", color=one.colour, linewidth=0.7 if one.faint else 1.7,
        )  # fmt: skip
        threshold = one.run.calibrations[model].threshold
        if one.faint or threshold is None or threshold != threshold:
            continue
        at = at_threshold(cosine, positive, threshold)
        axes.plot(100 * at["recall"], 100 * at["precision"], "o", color=one.colour, ms=7, mec=INK, mew=0.8)
        said = f"precision {100 * at['precision']:.0f}, recall {100 * at['recall']:.0f}"
        told.append(f"{one.name} at the threshold {threshold:.2f}: {said}")
    share = 100 * float((first.run.pairs[first.run.shown]["label"] == first.run.scale.high).mean())
    axes.axhline(share, color=BEFORE, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(f"by chance {share:.0f}", (1, share), (0, 3), textcoords="offset points", color=BEFORE)
    _key(axes, [one for one, _ in lines])
    axes.set(xlim=(0, 103), ylim=(0, 103), xlabel="recall: of the connected pairs, how many are found (%)")
    axes.set_ylabel("precision: of the found pairs,\nhow many are connected (%)")
    return f"Precision against recall of the {first.run.shown} pairs. {'; '.join(told)}."


def cosines(figure: Figure, shown: Sequence[Shown]) -> str:
    """Cosines by label, before and after: median, and the middle half and nine tenths of the pairs."""
    drawn = [one for one in shown if one.run.shown]
    if not drawn:
        return ""
    figure.set_size_inches(WIDTH, 3.4)
    axes, told = figure.add_subplot(), []
    first = next(one for one in drawn if not one.faint)
    strong = [(Shown(first.run, "before", BEFORE), "base")] + [(one, "final") for one in drawn if not one.faint]
    middles, _ = _bands(first.run.pairs[first.run.shown], first.run)
    step = 0.5 / len(strong)
    for place, (one, model) in enumerate(strong):
        offset = (place - (len(strong) - 1) / 2) * step
        table = one.run.pairs[one.run.shown]
        _, own = _bands(table, one.run)
        medians = []
        for number, rows in enumerate(own):
            low, first_quarter, median, third_quarter, high = np.percentile(table[model][rows], [5, 25, 50, 75, 95])
            x = number + offset
            axes.plot([x, x], [low, high], color=one.colour, linewidth=1)
            axes.plot([x, x], [first_quarter, third_quarter], color=one.colour, linewidth=5, solid_capstyle="butt")
            axes.plot(x, median, "o", color=one.colour, mec="white", mew=0.9, ms=5.5)
            medians.append(f"{median:.2f}")
        told.append(f"{one.name} {', '.join(medians)}")
        for seed in _seeds(drawn, one) if model == "final" else ():
            table = seed.run.pairs[seed.run.shown]
            _, own = _bands(table, seed.run)
            axes.plot(
                np.arange(len(own)) + offset, [table["final"][rows].median() for rows in own], color=one.colour, linewidth=0.7
            )
    names = [f"{middle:g}" for middle in middles]
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(top=axes.get_ylim()[1] + 0.12 * np.ptp(axes.get_ylim()))
    _key(axes, [one for one, _ in strong], "upper left")
    axes.set(xlabel="label", ylabel="cosine")
    return f"Median cosine for the labels {', '.join(names)}: {'; '.join(told)}."


def calibration(figure: Figure, shown: Sequence[Shown]) -> str:
    """What a cosine stands for on the test pairs: mean label of pairs with similar cosines, beside the fitted curve."""
    drawn = [(one, (one.run.results["final"].get("test") or {}).get("calibration") or []) for one in shown]
    drawn = [(one, curve) for one, curve in drawn if len(curve) > 1]
    if not drawn:
        return ""
    figure.set_size_inches(WIDTH, 3.2)
    axes, told, many = figure.add_subplot(), "", sum(not one.faint for one, _ in drawn) > 1
    for one, curve in drawn:
        x, label, said = ([row[key] for row in curve] for key in ("cosine", "label", "predicted"))
        if one.faint or many:
            axes.plot(x, label, color=one.colour, linewidth=0.7 if one.faint else 1.6)
        if one.faint:
            continue
        if not many:
            axes.plot(x, said, color=BEFORE, linewidth=1.4, linestyle=(0, (4, 3)))
        axes.plot(x, label, "o", color=one.colour, ms=6)
        off = np.mean(np.abs(np.subtract(label, said)))
        told += f" {one.name if many else 'The curve'} is off by {off:.2f} on average over its bins."
    strong = [one for one, _ in drawn if not one.faint]
    lines = [Shown(strong[0].run, "what the model says", BEFORE), Shown(strong[0].run, "what the labels are", strong[0].colour)]
    _key(axes, strong if many else lines, "upper left")
    axes.margins(0.08, 0.06)
    axes.set_ylim(top=axes.get_ylim()[1] + 0.12 * np.ptp(axes.get_ylim()))
    binary = drawn[-1][0].run.binary
    axes.set(xlabel="cosine", ylabel="share of connected pairs" if binary else "mean label")
    return f"Mean label of test pairs with similar cosines, ten bins, beside the label that the cosine stands for.{told}"


def weak_spots(figure: Figure, shown: Sequence[Shown]) -> str:
    """Slices of the test pairs by their mean absolute error, the largest first, with 95% intervals."""
    strong = [one for one in shown if not one.faint and "test" in one.run.results.get("slices", {})]
    if not strong:
        return ""
    rows = _slices(strong[0].run)
    overall = _slices(strong[0].run, ("all",))
    if not rows or not overall:
        return ""
    names = sorted(rows, key=lambda name: -rows[name]["mean_absolute_error"])[:MOST_SLICES]
    figure.set_size_inches(WIDTH, (0.45 if len(strong) == 1 else 0.75) + 0.27 * len(names) * (1 + 0.45 * (len(strong) - 1)))
    axes: Any = figure.add_subplot()
    told, height = [], 0.72 / len(strong)
    for place, one in enumerate(strong):
        own = _slices(one.run)
        for number, name in enumerate(names):
            if name not in own:
                continue
            row, y = own[name], number + (place - (len(strong) - 1) / 2) * height
            value, ends = row["mean_absolute_error"], (row.get("error_low"), row.get("error_high"))
            axes.barh(y, value, height * 0.94, color=one.colour)
            if None not in ends:
                axes.plot(ends, [y, y], color=INK, linewidth=1.2, solid_capstyle="butt")
            if len(strong) == 1:
                axes.annotate(f"{value:.2f}", (max(value, ends[1] or 0), y), (5, 0), textcoords="offset points", va="center",
                              bbox=BOX)  # fmt: skip
            for seed in _seeds(shown, one):
                of_seed = _slices(seed.run).get(name)
                axes.plot([of_seed["mean_absolute_error"] if of_seed else math.nan], [y], "o", ms=3.5, mfc="none", color=INK)
            if not place and number < 5:
                told.append(f"{name} {value:.2f} on {row['pairs']:,} pairs")
    mean = next(iter(overall.values()))["mean_absolute_error"]
    axes.axvline(mean, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.5)
    axes.annotate(f"all pairs {mean:.2f}", (mean, -0.62), (3, 4), textcoords="offset points")
    axes.set_yticks(range(len(names)), [f"{name} ({rows[name]['pairs']:,})" for name in names])
    axes.set_ylim(len(names) - 0.4, -1.1)
    axes.margins(x=0.16)
    axes.tick_params(axis="y", length=0)
    if len(strong) == 1:  # each bar has its number
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
    if len(strong) > 1:
        _key(axes, strong, "lower right")
    return f"Mean distance of predicted label and label by group; all test pairs {mean:.2f}. The worst: {'; '.join(told)}."


def training(figure: Figure, shown: Sequence[Shown]) -> str:
    """The loss of every logged step, and below it the measure on the dev pairs, with the step whose weights are kept.

    An average of seeds (--soup) was not trained itself: its seeds are shown alone.
    """
    drawn = [one for one in shown if (one.run.steps or one.run.evaluations) and "soup" not in one.run.results]
    if not drawn:
        return ""
    dev = any(len(one.run.evaluations) > 1 for one in drawn)
    figure.set_size_inches(WIDTH, 4.3 if dev else 2.5)
    panels = figure.subplots(1 + dev, 1, sharex=True, squeeze=False)[:, 0]
    told = []
    for one in drawn:
        x, y = _thinned([line["step"] for line in one.run.steps], _numbers(one.run.steps, "loss"))
        line: dict[str, Any] = {"color": one.colour, "linewidth": 0.6 if one.faint else 1.5}
        alone = {"marker": "o", "ms": 4} if len(x) == 1 else {}
        panels[0].plot(x, y, **line, **alone)
        if not one.faint and len(x):
            told.append(f"training loss from {y[0]:.3g} to {y[-1]:.3g} over {x[-1]:,.0f} steps")
        measure = one.run.results.get("measure", "spearman")
        steps = [line["step"] for line in one.run.evaluations]
        values = 100 * _numbers(one.run.evaluations, measure)
        if not dev or not steps:
            continue
        panels[1].plot(steps, values, **line, **({} if one.faint else {"marker": "o", "ms": 3.5}))
        best = one.run.results.get("best_step")
        if one.faint or best not in steps:
            continue
        place = len(steps) - 1 - steps[::-1].index(best)
        panels[1].plot(best, values[place], "D", ms=8, color=one.colour, mec=INK, mew=1)
        left, lower = best > 0.6 * max(steps), values[place] > np.nanmean(values)
        panels[1].annotate(
            f"kept: step {best:,}, {values[place]:.1f}", (best, values[place]), (-10 if left else 10, -14 if lower else 14),
            ha="right" if left else "left", textcoords="offset points", va="center",
            bbox=BOX,
        )  # fmt: skip
        told.append(f"dev from {values[0]:.1f} to {values[place]:.1f} at the kept step {best:,}")
    panels[0].set_title("training loss, mean of a batch", loc="left")
    panels[0].set_ylim(bottom=min(0, panels[0].get_ylim()[0]))
    if dev:
        panels[1].set_title(f"dev pairs: {METRIC_FORMATS[measure][0]}", loc="left")
        panels[1].margins(y=0.2)
    panels[-1].set_xlabel("training step")
    if sum(not one.faint for one in drawn) > 1:
        _key(panels[0], drawn)
    return f"{'; '.join(told).capitalize()}." if told else f"{len(drawn)} seeds, a thin line each."


def labels(figure: Figure, shown: Sequence[Shown]) -> str:
    """How often each label occurs, in a panel for the training, dev and test pairs."""
    run = next(one.run for one in shown if not one.faint)
    if run.is_retrieval:
        return ""
    parts = {split: part["labels"] for split, part in run.results.get("splits", {}).items() if part.get("labels")}
    if not parts:
        return ""
    figure.set_size_inches(WIDTH, 0.7 + 1.0 * len(parts))
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False)[:, 0]
    told = []
    places = np.unique([value for counts in parts.values() for value, _ in counts])
    gap = float(np.diff(places).min()) if len(places) > 1 else 1.0
    wide = 0.86 * max(gap, float(np.ptp(places)) / 40)
    for axes, (split, counts) in zip(panels, parts.items(), strict=True):
        values, pairs = np.array(counts, float).T
        share = 100 * pairs / pairs.sum()
        axes.bar(values, share, wide, color=RUNS[0])
        axes.set_title(f"{split}, {int(pairs.sum()):,} pairs", loc="left")
        axes.set_ylim(0, 1.28 * share.max())
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        if len(values) <= 8:
            for value, percent in zip(values, share, strict=True):
                axes.annotate(f"{percent:.0f}%", (value, percent), (0, 2), textcoords="offset points", ha="center")
        often = np.argsort(-share)[:6]
        told.append(f"{split}: " + ", ".join(f"{share[place]:.0f}% label {values[place]:.3g}" for place in sorted(often)))
    if len(places) <= 11:
        panels[-1].set_xticks(places)
    panels[-1].set_xlabel("label (height: share of the pairs)")
    return f"Share of the pairs by label. {'; '.join(told)}."


# By the name of their file.
PLOTS: dict[str, Callable[[Figure, Sequence[Shown]], str]] = {
    "gain": gain,
    "predicted": predicted,
    "precision-recall": precision_recall,
    "cosines": cosines,
    "calibration": calibration,
    "weak-spots": weak_spots,
    "training": training,
    "labels": labels,
}


def points_of(table: pd.DataFrame) -> np.ndarray:
    """Return the places of the pairs that are drawn one by one: all, or `MOST_POINTS` of them by chance, in order."""
    if len(table) <= MOST_POINTS:
        return np.arange(len(table))
    return np.sort(np.random.default_rng(0).choice(len(table), MOST_POINTS, replace=False))


def _ends(figures: Any, measure: str) -> tuple[float, float] | None:
    """The ends of the 95% interval of a model's measure x 100."""
    holder = figures.get("binary", {}) if measure == "average_precision" else figures
    ends = [holder.get(f"{measure}_{end}") for end in ("low", "high")]
    if any(end is None or end != end for end in ends):
        return None
    return 100 * ends[0], 100 * ends[1]


def _bands(table: pd.DataFrame, run: Run) -> tuple[list[float], list[np.ndarray]]:
    """The pairs of each label, or of bands of the scale where there are many: middles, and which rows each has."""
    label = table["label"].to_numpy()
    distinct = np.unique(label)
    if len(distinct) <= BANDS:
        return distinct.tolist(), [label == value for value in distinct]
    ends = sorted((run.scale.low, run.scale.high))
    edges = np.linspace(ends[0], ends[1], 6)  # five bands, as in the slices
    place = np.searchsorted(edges[1:-1], label, side="right")
    there = [number for number in range(5) if (place == number).any()]
    return [float(edges[number : number + 2].mean()) for number in there], [place == number for number in there]


def _slices(run: Run, kinds: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The slices of the test pairs that are large enough and have an error, by name."""
    return {
        SLICED_BY.get(kind, "") + row["slice"]: row
        for kind, rows in run.results.get("slices", {}).get("test", {}).items()
        if (kind in kinds if kinds else kind != "all")
        for row in rows
        if row["pairs"] >= FEWEST_PAIRS and row.get("mean_absolute_error") is not None
    }


def _seeds(shown: Sequence[Shown], one: Shown) -> list[Shown]:
    return [seed for seed in shown if seed.faint and seed.colour == one.colour]


def _numbers(lines: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([line[key] if isinstance(line.get(key), int | float) else math.nan for line in lines], float)


def _thinned(steps: Sequence[int], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `MOST_STEPS` points of a curve, each the mean of as many."""
    size = -(-len(steps) // MOST_STEPS)
    if size <= 1:
        return np.array(steps, float), values
    starts = np.arange(0, len(steps), size)
    counts = np.diff(np.append(starts, len(steps)))
    return np.add.reduceat(np.array(steps, float), starts) / counts, np.add.reduceat(values, starts) / counts


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _key(axes: Axes, shown: Sequence[Shown], where: str = "best") -> None:
    """Name the lines by their colours."""
    from matplotlib.lines import Line2D

    strong = [one for one in shown if not one.faint]
    handles = [Line2D([], [], color=one.colour, linewidth=4) for one in strong]
    columns = 2 if len(strong) == 2 and where == "upper left" else 1
    names = [_short(one.name, 24) for one in strong]
    axes.legend(
        handles, names, loc=where, ncols=columns, handlelength=0.9, labelcolor="linecolor", frameon=False, borderaxespad=0.2
    )
