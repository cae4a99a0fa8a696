"""What would help? Trains on 10, 25, 50 and 100% of the labels, from the pre-trained weights and from random ones; draws the
test Spearman against labels and training time, and forecasts what twice the labels would give.

Every flag of the training command (python bertFineTuningWithConnectionData.py --help) can be given too, and holds for all
runs. A curve that was stopped goes on when the same command is given again, and a larger --seeds adds to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.runs.training_command import driver_constants
from connection.settings import CONTENT, NEUTRAL, START, TrainSettings, as_json, flag_of, flag_words, names_of, read_settings
from connection.system.devices import pick_device, pick_precision
from connection.system.errors import InputError, exit_status
from connection.system.paths import file_sha256, output_folder
from connection.system.signals import run_to_the_end
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    from ConnectionBert import ConnectionBert
    from tools.learning_curve.pairs import CurvePairs

MOST_SEEDS = 100
FILE, PLOT = "learning_curve.json", "learning_curve.png"
# These make no difference to a run's figures; the files count by what they hold, and each run has its seed.
NOT_COMPARED = {*names_of(CONTENT, NEUTRAL, START), "allow", "seed", "split_seed"}


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 a run failed, 2 bad usage or input, 130 ended by Ctrl-C, 143 by SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tools.learning_curve", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs a point, with seeds from --seed on (default: 1)"
    )
    parser.add_argument(
        "--output-dir", default="output/learning-curve", help=f"folder of {FILE}, {PLOT} and all runs (default: %(default)s)"
    )
    given, words = parser.parse_known_args(flag_words(sys.argv[1:] if argv is None else argv))
    return exit_status(lambda: learning_curve(given, words))


def learning_curve(given: argparse.Namespace, words: list[str]) -> int:
    """Train what is not trained yet, then print, draw and write the curve."""
    settings = read_settings(words, driver_constants(), "")
    if refused := sorted({"overwrite", "print_model", "resume", "extend", "keep_checkpoints"} & settings.given):
        raise InputError(f"{', '.join(map(flag_of, refused))}: of the training command alone; a curve takes its other flags")
    if not 1 <= given.seeds <= MOST_SEEDS:
        raise InputError(f"--seeds {given.seeds}: give 1 to {MOST_SEEDS}")
    folder = output_folder(given.output_dir)
    earlier = _earlier(folder)
    require_libraries()
    import torch

    from connection.system.atomic_files import write_json
    from ConnectionBert import ConnectionBert
    from tools.learning_curve.pairs import read_pairs
    from tools.learning_curve.runs import train_runs
    from tools.learning_curve.summary import summarise

    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.precision == "auto" and earlier.get("precision") in ("bf16", "fp32"):
        settings = dataclasses.replace(settings, precision=earlier["precision"])  # measured once for all runs of a curve
    model = ConnectionBert.load(settings.model_dir, settings.asked_pooling, settings.max_length)
    pairs = read_pairs(settings, model)
    identity = _identity(settings, model, pairs)
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
        settings, columns="", sheet="", header_row=0, on_bad_rows="stop", seeds=1, keep_checkpoints=0, **for_all
    )
    trained = train_runs(folder, settings, model, pairs, given.seeds)
    curve = summarise(trained, 2 * len(pairs.labels))
    write_json(folder / FILE, {"settings": identity} | curve)
    _print(curve)
    _draw(curve, folder / PLOT)
    print(f"The figures are in {folder / FILE}")
    return 130 if trained.stopped else 1 if trained.failed else 0


def _earlier(folder: Path) -> dict[str, Any]:
    """The settings and data of the curve that a folder holds, {} where it is new or empty.

    Raises `InputError` where it holds something else.
    """
    if not folder.is_dir() and not folder.exists():
        return {}
    if not folder.is_dir():
        raise InputError(f"--output-dir {folder} is a file: give a folder")
    try:
        settings = json.loads((folder / FILE).read_text(encoding="utf-8"))["settings"]
        if not isinstance(settings, dict) or not settings:
            raise ValueError("it has no settings")
        return settings
    except FileNotFoundError:
        if not any(folder.iterdir()):
            return {}
        raise InputError(f"--output-dir {folder} is not empty and holds no learning curve: give another folder") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / FILE} is damaged ({error}): give another --output-dir, or remove the folder") from None


def _identity(settings: TrainSettings, model: ConnectionBert, pairs: CurvePairs) -> dict[str, Any]:
    """What makes runs comparable: settings as they are used, and the files' contents wherever they lie."""
    from connection.model.checks.folder_entries import check_folder

    device = pick_device(settings.device)
    identity = {key: value for key, value in as_json(settings).items() if key not in NOT_COMPARED}
    identity |= {"device": str(device), "precision": pick_precision(settings.precision, device)[0], "pooling": model.pooling}
    identity |= {"loss": pairs.loss, "label_min": pairs.scale.low, "label_max": pairs.scale.high}
    assert model.folder
    files = {"model": check_folder(model.folder).weights_file} | {
        f"{part} file": store.path for part, store in pairs.prepared.stores.items()
    }
    identity |= {f"{name} (SHA-256)": file_sha256(path) for name, path in files.items()}
    return identity | ({"seed of the split": settings.seed_of_split} if pairs.split else {})


def _print(curve: dict[str, Any]) -> None:
    """The table and the sentences, and what failed once more."""
    from connection.reports.tables import render
    from tools.learning_curve.summary import points_table

    if curve["means"]:
        print("", render(points_table(curve["means"])), "", *curve["sentences"], "", sep="\n")
    for said in curve["failed"]:
        print(f"failed: {said}")


def _draw(curve: dict[str, Any], plot: Path) -> None:
    """The plot in its file, or why there is none."""
    from tools.learning_curve.plot import draw

    plot.unlink(missing_ok=True)  # an earlier one would not show these runs
    if not curve["means"]:
        print("No run has a figure: there is no curve to draw.")
        return
    try:
        draw(plot, curve)
        print(f"The curve is drawn in {plot}")
    except ImportError:
        print("There is no plot, matplotlib is not installed. Type: pip install -r requirements.txt")


if __name__ == "__main__":
    run_to_the_end(main)
