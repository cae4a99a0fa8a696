# PYTHON_ARGCOMPLETE_OK
"""Compare two runs: settings that differ, figures side by side, and a paired bootstrap over their test pairs.

python -m tools.report RUN_A RUN_B draws it as a page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable
from connection.system.flags import Flags
from connection.system.paths import resolve
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    from connection.reports.results import RunResults

MOST_SHOWN = 500  # characters of a setting's value
RUN_FIGURES = ("best_step", "steps", "seconds", "pairs_per_second", "tokens_per_second", "peak_memory_bytes")


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 2 bad usage, a folder without a run, or runs that were tested on different pairs."""
    parser = Flags("python -m tools.compare", __doc__, ("python -m tools.compare output/run-a output/run-b",))
    parser.add_argument("run_a", metavar="RUN_A", help="folder of a run, its --output-dir")
    parser.add_argument("run_b", metavar="RUN_B", help="folder of the run that is compared with it")
    given = parser.parse_args(argv)
    return exit_status(lambda: compare(resolve(given.run_a), resolve(given.run_b)))


def compare(run_a: Path, run_b: Path) -> int:
    """Print the differences between two runs, and the gain of the second over the first on the test pairs."""
    require_libraries()
    import pandas as pd

    from connection.evaluation.evaluate import measure_of
    from connection.reports.differences import flat_settings, gain_between, same_pairs
    from connection.reports.predictions import read_predictions
    from connection.reports.tables import figures_table, format_number, gain_sentence, render

    runs = {"A": run_a, "B": run_b}
    settings = {name: flat_settings(_read_settings(run)) for name, run in runs.items()}
    results = {name: _read_results(run) for name, run in runs.items()}
    tables = {name: read_predictions(run, "test") for name, run in runs.items()}
    a, b = tables.values()
    if not same_pairs(a, b):
        common = len(a.merge(b, on=["pair", "label"]).drop_duplicates(["pair", "label"]))
        raise InputError(
            f"The runs were tested on different pairs: {len(a):,} in {run_a}, {len(b):,} in {run_b}, {common:,} distinct ones "
            "in both. Their figures can't be compared: train both with the same --test-file."
        )
    keys = dict.fromkeys([*settings["A"], *settings["B"]])
    differ = [
        {"setting": printable(key)} | {name: printable(settings[name].get(key, ""))[:MOST_SHOWN] for name in runs}
        for key in keys
        if settings["A"].get(key) != settings["B"].get(key)
    ]
    try:
        figures = figures_table({name: results[name]["final"]["test"] for name in runs})
        rows = [
            {"run": key} | {name: format_number(cast(float | None, results[name].get(key)), "{:,.6g}") for name in runs}
            for key in RUN_FIGURES
        ]
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"results.json of {run_a} or {run_b} is damaged: {error}") from None
    print(*(f"{name}  {run}" for name, run in runs.items()), sep="\n")
    print("", render(pd.DataFrame(differ)) if differ else "no setting differs", sep="\n")
    print("", render(figures), "", render(pd.DataFrame(rows)), sep="\n")
    low, high = (settings["A"].get(end, 0) for end in ("label_min", "label_max"))
    falling = isinstance(low, int | float) and isinstance(high, int | float) and low > high
    binary = all(measure_of(cast(Any, results[name]["final"]["test"])) == "average_precision" for name in runs)
    found = gain_between(a, b, falling, binary)
    print("", gain_sentence(found, "B", f"against A on the {len(a):,} test pairs of both"), sep="\n")
    return 0


def _read_settings(run: Path) -> dict[str, Any]:
    """Return the content of settings.json in a run folder. Raises `InputError` if it is missing or damaged."""
    from connection.reports.results import read_run_json

    content = read_run_json(run, "settings.json")
    if not isinstance(content, dict):
        raise InputError(f"{run / 'settings.json'} is damaged: it should hold a JSON object.")
    return content


def _read_results(run: Path) -> RunResults:
    """Return the content of results.json. Raises `InputError` if it is missing, damaged, or without figures on test pairs."""
    from connection.reports.results import read_results

    results = read_results(run)
    if not isinstance(results["final"].get("test"), dict):
        raise InputError(f"{run / 'results.json'} has no figures of test pairs: train with test pairs, to the end.")
    return results


if __name__ == "__main__":
    sys.exit(main())
