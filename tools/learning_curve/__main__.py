# PYTHON_ARGCOMPLETE_OK
"""Show what more labels would bring. Trains on 10, 25, 50 and 100% of the labels, from pre-trained and from random weights;
plots the test Spearman against labels and training time, and forecasts the Spearman for twice the labels.

Most flags of the training command (python bertFineTuningWithConnectionData.py --help) can be given too, and apply to all
runs. The same command resumes a curve that was stopped, and a larger --seeds adds runs to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.runs.training_command import driver_constants
from connection.settings import CONTENT, NEUTRAL, START, TrainSettings, as_json, flag_of, names_of
from connection.settings_reader import read_settings
from connection.system.devices import pick_device, pick_precision
from connection.system.errors import InputError, exit_status
from connection.system.flags import Flags, flag_words
from connection.system.folder_lock import FILE as LOCK
from connection.system.folder_lock import lock_folder
from connection.system.paths import output_folder, resolve
from connection.system.plain_files import read_json, require_no_links
from connection.system.signals import run_to_the_end
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    from ConnectionBert import ConnectionBert
    from tools.learning_curve.pairs import CurvePairs

MOST_SEEDS = 100
FILE, PLOT = "learning_curve.json", "learning_curve.png"
# These do not change a run's figures, except files, compared by content, and the seed, which each run has for itself.
NOT_COMPARED = {*names_of(CONTENT, NEUTRAL, START), "allow", "seed", "split_seed"}


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 a run failed, 2 bad usage or input, 130 ended by Ctrl-C, 143 by SIGTERM."""
    parser = Flags(
        "python -m tools.learning_curve", __doc__, ("python -m tools.learning_curve --train-file my_pairs.csv --seeds 3",)
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs a point, with seeds from --seed on (default: 1)"
    )
    parser.add_argument(
        "--output-dir", default="output/learning-curve", help=f"folder of {FILE}, {PLOT} and all runs (default: %(default)s)"
    )
    given, words = parser.parse_known_args(flag_words(sys.argv[1:] if argv is None else argv))
    return exit_status(lambda: learning_curve(given, words))


def learning_curve(given: argparse.Namespace, words: list[str]) -> int:
    """Train the missing runs, then print, plot and write the curve. Returns the exit status."""
    settings = read_settings(words, driver_constants(), "")
    if refused := sorted({"overwrite", "print_model", "resume", "extend", "keep_checkpoints"} & settings.given):
        raise InputError(f"{', '.join(map(flag_of, refused))}: of the training command alone; a curve takes its other flags")
    if len(settings.train_files) > 1 or settings.train_files[0].path != settings.train_file:
        raise InputError("--train-file: a curve is of one training file, as PATH alone")
    if not 1 <= given.seeds <= MOST_SEEDS:
        raise InputError(f"--seeds {given.seeds}: give 1 to {MOST_SEEDS}")
    folder = output_folder(given.output_dir)
    earlier = _earlier(folder)
    require_libraries()
    import torch

    from ConnectionBert import ConnectionBert
    from tools.learning_curve.pairs import read_pairs

    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.precision == "auto" and earlier.get("precision") in ("bf16", "fp32"):
        settings = dataclasses.replace(settings, precision=earlier["precision"])  # measured once for all runs of a curve
    model = ConnectionBert.load(
        settings.model_dir, settings.asked_pooling, settings.max_length, (settings.prompt1, settings.prompt2)
    )
    pairs = read_pairs(settings, model)
    identity = _identity(settings, model, pairs)
    inputs = [store.path for store in pairs.prepared.stores.values()]
    if inside := [path for path in [*inputs, resolve(settings.model_dir)] if path.is_relative_to(folder)]:
        raise InputError(f"{inside[0]} lies in --output-dir {folder}, whose files are replaced: copy it out first.")
    with lock_folder(folder):
        return _draw_curve(folder, settings, identity, model, pairs, given.seeds)


def _draw_curve(
    folder: Path, settings: TrainSettings, identity: dict[str, Any], model: ConnectionBert, pairs: CurvePairs, seeds: int
) -> int:
    """Trains and reports in `folder`, whose lock is held."""
    from connection.system.atomic_files import write_json
    from tools.learning_curve.runs import train_runs
    from tools.learning_curve.summary import summarise

    require_no_links(folder, r"learning_curve\.(json|png)|skipped_rows\.csv|pairs|runs|random-weights", deep="pairs|runs")
    earlier = _earlier(folder)
    keys = [key for key in {**earlier, **identity} if key not in NOT_COMPARED] if earlier else []
    differ = [key for key in keys if earlier.get(key) != identity.get(key)]
    if differ:
        lines = [f"{key}: there {earlier.get(key)}, now {identity.get(key)}" for key in differ]
        raise InputError.listing(f"{folder} holds a curve of other settings or data; give another --output-dir:", lines)
    try:
        (folder / "pairs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output-dir {folder} can't be written: {error.strerror}") from None
    if not earlier:
        write_json(folder / FILE, {"settings": identity})
    pairs.prepared.write_skipped(folder / "skipped_rows.csv")
    held_out = pairs.write_held_out(folder / "pairs")
    for_all = {key: identity[key] for key in ("loss", "label_min", "label_max", "device", "precision")}
    for_all |= {f"{name}_file": str(held_out.get(name, "")) for name in ("dev", "test")}
    settings = dataclasses.replace(
        settings, columns="", sheet="", header_row=0, on_bad_rows="stop", seeds=1, soup=False, keep_checkpoints=0, **for_all
    )
    trained = train_runs(folder, settings, model, pairs, seeds)
    curve = summarise(trained, 2 * len(pairs.labels))
    write_json(folder / FILE, {"settings": identity} | curve)
    _print(curve)
    _draw(curve, folder / PLOT)
    print(f"The figures are in {folder / FILE}")
    return 130 if trained.stopped else 1 if trained.failed else 0


def _earlier(folder: Path) -> dict[str, Any]:
    """Return the settings and data digests of the curve in a folder; {} if the folder is new or empty.

    Raises `InputError` if it holds something else.
    """
    if not folder.is_dir() and not folder.exists():
        return {}
    if not folder.is_dir():
        raise InputError(f"--output-dir {folder} is a file: give a folder")
    try:
        settings = read_json(folder / FILE)["settings"]
        if not isinstance(settings, dict) or not settings:
            raise ValueError("it has no settings")
        return settings
    except FileNotFoundError:
        if not any(path.name != LOCK for path in folder.iterdir()):
            return {}
        raise InputError(f"--output-dir {folder} is not empty and holds no learning curve: give another folder") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / FILE} is damaged ({error}): give another --output-dir, or remove the folder") from None


def _identity(settings: TrainSettings, model: ConnectionBert, pairs: CurvePairs) -> dict[str, Any]:
    """Return all that must be equal for runs to be comparable: settings as used, and digests of the files' contents."""
    from connection.model.checks.model_folder import check_folder

    device = pick_device(settings.device)
    identity = {key: value for key, value in as_json(settings).items() if key not in NOT_COMPARED}
    identity |= {"device": str(device), "precision": pick_precision(settings.precision, device)[0], "pooling": model.pooling}
    identity |= {"loss": pairs.loss, "label_min": pairs.scale.low, "label_max": pairs.scale.high}
    assert model.folder
    identity |= {"model (SHA-256)": check_folder(model.folder).weights_sha256}
    identity |= {f"{split} file (SHA-256)": store.sha256 for split, store in pairs.prepared.stores.items()}
    return identity | ({"seed of the split": settings.seed_of_split} if pairs.split else {})


def _print(curve: dict[str, Any]) -> None:
    """Print the table, the sentences, and the runs that failed."""
    from connection.reports.tables import render
    from tools.learning_curve.summary import points_table

    if curve["means"]:
        print("", render(points_table(curve["means"], curve["measure"])), "", *curve["sentences"], "", sep="\n")
    for said in curve["failed"]:
        print(f"failed: {said}")


def _draw(curve: dict[str, Any], plot: Path) -> None:
    """Write the plot, or print why there is none."""
    from connection.reports.svg import MISSING
    from tools.learning_curve.plot import draw

    for old in (plot, plot.with_suffix(".svg")):
        old.unlink(missing_ok=True)  # an earlier plot would not show these runs
    if not curve["means"]:
        print("No run has a figure: there is no curve to draw.")
        return
    try:
        draw(plot.with_suffix(""), curve)
        print(f"The curve is drawn in {plot} and .svg")
    except ImportError:
        print(MISSING)


if __name__ == "__main__":
    run_to_the_end(main)
