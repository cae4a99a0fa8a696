"""What a run comes to: a word, two sentences without jargon, and what to do then."""

from __future__ import annotations

import dataclasses
from typing import Any

from connection.evaluation.evaluate import deciding, measure_of
from connection.reports.run_files import Run

# What the measure that decides says, in words: of 100 points.
PLAIN = {
    "spearman": "how well the cosines put the pairs in the order of their labels",
    "mrr": "how high up the right second sentence stands when the first one searches among all of them",
    "average_precision": "how well the cosines put connected pairs before the others",
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`kind` is "worked", "worse", "chance", "interrupted" or "unmeasured"."""

    kind: str
    word: str
    sentences: str
    next: str


def gain_ends(gain: Any) -> tuple[float, float, float] | None:
    """Return the points gained of the measure that decides, and the ends of its 95% interval, x 100; None if undefined."""
    measure = measure_of(gain)
    start = "" if measure == "spearman" else f"{measure}_"
    values = [gain.get(key) for key in (measure, f"{start}low", f"{start}high")]
    if any(not isinstance(value, int | float) or value != value for value in values):
        return None
    return 100 * values[0], 100 * values[1], 100 * values[2]


def judge(run: Run) -> Verdict:
    """Return the verdict on a run by its test pairs."""
    results = run.results
    if results.get("interrupted"):
        return Verdict(
            "interrupted",
            "Interrupted",
            f"The training ended after step {results.get('steps', 0):,}, before it was complete. The model is that of step "
            f"{results.get('best_step', 0):,}; it was not measured on test pairs.",
            "Go on with the same command and --resume in place of --overwrite; without checkpoints, begin anew.",
        )
    gain: Any = results.get("gain", {}).get("test")
    base, final = (results[when].get("test") for when in ("base", "final"))
    ends = gain_ends(gain) if gain and base and final else None
    if ends is None or not base or not final:
        few = bool(gain)
        why = (
            "The test pairs are too few, or too alike, to say whether the model is better than before."
            if few
            else "No test pairs were given, so nothing says whether the model is better than before."
        )
        return Verdict(
            "unmeasured", "Not measured", f"{why} It was trained, and can be used.",
            "Label more test pairs: some hundred." if few else
            "Give labelled pairs that are not trained on: --test-file FILE, or --test-fraction 0.1 to split them off.",
        )  # fmt: skip
    _, low, high = ends
    before, after = (100 * float(deciding(figures) or 0) for figures in (base, final))
    measure = PLAIN[measure_of(base)]
    leaked = _leaked(run)
    leak = f" ({leaked:,} of them trained on too, which makes this too high)"
    known = leak if leaked else ", which it was not trained on,"
    told = (
        f"On {base['pairs']:,} test pairs{known} the model has {after:.0f} of 100 points for {measure}; "
        f"before fine-tuning it had {before:.0f}."
    )
    form = "{:+.1f}" if min(abs(low), abs(high)) < 1 else "{:+.0f}"
    between = f"with 95% certainty the difference is between {form.format(low)} and {form.format(high)} points"
    if low > 0:
        return Verdict(
            "worked", "It worked", f"{told} This is hardly chance: {between}.",
            "Look at its worst pairs below; then use it, as shown under \"How to use this model\".",
        )  # fmt: skip
    if high < 0:
        return Verdict(
            "worse", "It got worse", f"{told} This is hardly chance: {between}.",
            "Keep the model you began with. Try a lower --learning-rate or fewer --epochs, and check the labels: "
            "python -m tools.suspects finds those that may be wrong.",
        )  # fmt: skip
    return Verdict(
        "chance", "It may be chance", f"{told} Nobody can tell yet whether that is a difference: {between}.",
        "More test pairs make the answer sharper; more training pairs, or --seeds 3, show whether there is a gain at all.",
    )  # fmt: skip


def _leaked(run: Run) -> int:
    """How many test pairs the audit found among the training pairs."""
    splits: dict[str, Any] = dict(run.results["splits"])
    file, asked = str(splits.get("test", {}).get("file")), str(run.settings.get("test_file")).replace("\\", "/")
    counts = {
        path: int(finding["count"])  # by path: dev and test may be one file
        for finding in run.findings
        if finding.get("name") == "leaked-pair" and (path := str(finding.get("file")).replace("\\", "/")).split("/")[-1] == file
    }
    tests = [count for path, count in counts.items() if path.endswith(asked)]  # beside dev pairs of the same file name
    return max(tests or counts.values(), default=0)
