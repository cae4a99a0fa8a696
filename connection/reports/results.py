"""results.json: its schema, and reading it back. Keys are added, never renamed; an undefined figure is null."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from connection.system.errors import InputError
from connection.system.plain_files import read_json

if TYPE_CHECKING:
    from connection.evaluation.evaluate import Figures, Gain

FILE = "results.json"
NUMBERS = ("base", "final", "gain", "epoch_figures", "seeds", "over_seeds")  # keys that hold figures, and no text


EpochFigures = TypedDict(
    "EpochFigures",
    {
        "epoch": int,
        "training loss": float,
        "dev loss": float | None,
        "dev Spearman": float | None,
        "dev Pearson": float | None,
        "training time": float,  # seconds
        "evaluation time": float,  # seconds
    },
)


class SeedFigures(TypedDict):
    """The figures of one seed's fine-tuned model."""

    seed: int
    dev: Figures | None
    test: Figures | None


class OverSeeds(TypedDict):
    """Spearman over the seeds."""

    mean: float
    deviation: float | None  # sample standard deviation; None of one seed
    seeds: int


class RunResults(TypedDict, total=False):
    """results.json of a run. Splits are "dev" and "test", those that there are."""

    base: dict[str, Figures]  # by split
    final: dict[str, Figures]  # by split; of the fine-tuned model
    gain: dict[str, Gain]  # of "test"
    slices: dict[str, dict[str, list[dict[str, Any]]]]  # by split, then by kind: see `connection.evaluation.slices.find_slices`
    epochs: int  # that were asked for
    epoch_figures: list[EpochFigures]  # of the epochs that were finished
    best_step: int  # after which the weights in model/ were reached
    steps: int
    skipped_steps: int  # without an update, since loss or gradient was not finite
    seconds: float  # the whole run
    pairs_per_second: float  # of the training steps alone
    tokens_per_second: float  # likewise, without padding
    peak_memory_bytes: int
    device: str
    precision: str
    threads: int
    seed: int
    interrupted: bool
    seeds: list[SeedFigures]  # of a run with --seeds, like the next one
    over_seeds: dict[str, OverSeeds]  # by split


def read_results(run: Path) -> RunResults:
    """results.json of a run folder. Raises `InputError` where it is missing or damaged."""
    file = run / FILE
    try:
        content = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{run} has no {FILE}: it is not the folder of a finished run.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read: {error}") from None
    figures = content if isinstance(content, dict) else {}
    if not all(isinstance(figures.get(key), dict) for key in ("base", "final")) or not all(
        _holds_numbers(figures.get(key)) for key in NUMBERS
    ):
        raise InputError(f"{file} is damaged: it should hold a JSON object with the figures of a run.")
    return cast(RunResults, content)


def _holds_numbers(value: Any) -> bool:
    """Returns whether a JSON value is a number or null, or has nothing else in it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return value is None or isinstance(value, int | float) if inner is None else all(map(_holds_numbers, inner))


def is_finished(run: Path) -> bool:
    """Whether a run folder holds the results of a run that came to its end."""
    try:
        return read_results(run).get("interrupted") is False
    except InputError:
        return False
