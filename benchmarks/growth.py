"""Measures training speed against batch size, sentence length and number of pairs: figures and a plot.

python -m benchmarks.growth
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.data import generate, train_file
from benchmarks.turns import MINILM, machine, spread, take_turns, train_spec
from connection.system.devices import pick_device, pick_precision
from connection.system.errors import exit_status
from tools.download.public_sets import find_public

BATCHES = (8, 16, 32, 64, 128, 256)  # pairs of STSb sentences
LENGTHS = (8, 16, 32, 64, 128, 256, 512)  # tokens of each of 16 sentences
PAIRS = (1_000, 10_000, 100_000, 1_000_000)  # in the file, in batches of 16
TOKENS = 8_000  # of each contender in a round, about


def plot(results: dict[str, dict[int, dict[str, list[float]]]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained", sharey="row")
    for axis, (name, points) in zip(axes, results.items(), strict=True):
        for kind, colour, divisor, label in (
            ("pairs", "#0072b2", 1, "pairs"),
            ("tokens", "#e69f00", 100, "hundreds of tokens"),
        ):
            values = [[rate / divisor for rate in point[kind]] for point in points.values()]
            axis.plot(list(points), [statistics.median(value) for value in values], "o-", color=colour, label=label)
            axis.fill_between(list(points), [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.2)
        axis.set_xscale("log", base=10 if max(points) > 1000 else 2)
        axis.set_xticks(list(points), [f"{x:,}" for x in points])
        axis.minorticks_off()
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.set_xlabel(name)
    axes[0].set_ylabel("a second: median, and range over the rounds")
    axes[0].legend()
    figure.savefig(file, dpi=90)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder with stsb/ (default: data, then ../shared/data)")
    parser.add_argument("--work-dir", type=Path, default=Path("output/benchmark-growth"))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    given.work_dir.mkdir(parents=True, exist_ok=True)
    source = train_file(find_public("stsb", given.data_dir))
    about = machine()
    precision, why = pick_precision("auto", pick_device("cpu"))
    print(f"{precision} ({why}), all-MiniLM-L6-v2")

    def spec(batch: int, file: Path = source, **more: Any) -> dict[str, Any]:
        return train_spec(MINILM, str(file), given.work_dir, batch, precision, **more)

    files = {count: given.work_dir / f"{count}.csv" for count in PAIRS}
    for count, file in files.items():
        generate(source, file, count)
    curves: dict[str, dict[int, tuple[dict[str, Any], int]]] = {  # at each place, a contender and its steps in a round
        "batch size (pairs)": {size: (spec(size), max(2, TOKENS // (28 * size))) for size in BATCHES},
        "sentence length (tokens), batch size 8": {
            length: (spec(8, length=length), max(2, TOKENS // (16 * length))) for length in LENGTHS
        },
        "pairs in the file, batch size 16": {count: (spec(16, file, shuffled=True), 20) for count, file in files.items()},
    }
    results: dict[str, dict[int, dict[str, list[float]]]] = {}
    for name, points in curves.items():
        specs = {str(x): contender for x, (contender, _) in points.items()}
        found = take_turns(specs, {str(x): steps for x, (_, steps) in points.items()}, given.rounds)
        results[name] = {x: {"pairs": found["rates"][str(x)], "tokens": found["tokens"][str(x)]} for x in points}
        print(f"\n{name}")
        for x, point in results[name].items():
            memory = found["peak_memory"][str(x)] / 2**20
            print(f"  {x:>9,} {spread(point['pairs'])} pairs/s, {spread(point['tokens'], 0)} tokens/s, peak {memory:,.0f} MiB")
        sys.stdout.flush()
    about |= {"precision": precision}
    (given.work_dir / "results.json").write_text(json.dumps({"machine": about, "curves": results}, indent=2) + "\n")
    plot(results, given.work_dir / "growth.png")
    for file in files.values():
        file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
