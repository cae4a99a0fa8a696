"""Defines the schema of results.json, and reads the file. Keys are added, never renamed; an undefined figure is null."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

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
        "dev average precision": NotRequired[float | None],  # of binary labels
        "dev MRR@10": NotRequired[float | None],  # of pairs without labels
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
    """Mean and deviation of the Spearman correlation over the seeds."""

    mean: float
    deviation: float | None  # sample standard deviation; None for one seed
    seeds: int


class SplitData(TypedDict):
    """What one part of the data was."""

    file: str  # its name, without the folder
    sha256: str
    pairs: int
    cut_sentences: int  # sides of pairs that are longer than the maximum length
    labels: list[list[float]]  # how often each label occurs: see `count_labels`
    ratio: NotRequired[float]  # of one of several training files: how many times an epoch shows each row
    loss: NotRequired[str]  # likewise: its objective


class RunResults(TypedDict, total=False):
    """Content of results.json. Splits are "dev" and "test", if the run has them."""

    base: dict[str, Figures]  # by split
    final: dict[str, Figures]  # by split; of the fine-tuned model
    gain: dict[str, Gain]  # only "test"
    slices: dict[str, dict[str, list[dict[str, Any]]]]  # by split, then by kind: see `connection.evaluation.slices.find_slices`
    splits: dict[str, SplitData]  # by split, "train" too; of several training files "train", "train-2" ...
    agreement: dict[str, dict[str, Any]]  # by file of several annotators: see `connection.data.agreement.Agreement`
    epochs: int  # planned
    epoch_figures: list[EpochFigures]  # one row for each finished epoch
    measure: str  # that decided: "spearman", "average_precision" of binary labels, or "mrr" of pairs without labels
    best_step: int  # step after which model/ has the weights
    steps: int
    skipped_steps: int  # steps without an update, because loss or gradient was not finite
    seconds: float  # the whole run
    finished: str  # when, local time: 2026-01-31 17:05
    pairs_per_second: float  # of the training steps alone
    tokens_per_second: float  # of the training steps alone, without padding
    peak_memory_bytes: int
    device: str
    precision: str
    threads: int
    seed: int
    interrupted: bool
    seeds: list[SeedFigures]  # only with --seeds, as over_seeds
    over_seeds: dict[str, OverSeeds]  # by split
    soup: list[int]  # only with --soup: the seeds whose models' weights are averaged in model/


def read_run_json(run: Path, name: str) -> Any:
    """Return the value in a JSON file of a run folder. Raises `InputError` if it is missing or can't be read."""
    try:
        return read_json(run / name)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{run} has no {name}: it is not the folder of a finished run.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{run / name} can't be read: {error}") from None


def read_results(run: Path) -> RunResults:
    """Return the content of results.json in a run folder. Raises `InputError` if it is missing or damaged."""
    content = read_run_json(run, FILE)
    figures = content if isinstance(content, dict) else {}
    if not all(isinstance(figures.get(key), dict) for key in ("base", "final")) or not all(
        _holds_numbers(figures.get(key)) for key in NUMBERS
    ):
        raise InputError(f"{run / FILE} is damaged: it should hold a JSON object with the figures of a run.")
    return cast(RunResults, content)


def _holds_numbers(value: Any) -> bool:
    """Returns whether a JSON value is a number or null, or has nothing else in it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return value is None or isinstance(value, int | float) if inner is None else all(map(_holds_numbers, inner))


def is_finished(run: Path) -> bool:
    """Return whether a run folder holds the results of a completed run."""
    try:
        return read_results(run).get("interrupted") is False
    except InputError:
        return False
