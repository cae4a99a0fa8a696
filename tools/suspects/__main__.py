# PYTHON_ARGCOMPLETE_OK
"""List training labels that a model trained on the other pairs disagrees with, the most suspicious first.

The pairs are split into folds by sentence. A model that is trained on the other folds predicts each fold. The residual is the
label minus the predicted label, to which an isotonic mapping fitted on the fold maps the cosine. The same command resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.reports.results import is_finished
from connection.settings import flag_of, setting_fields
from connection.settings_reader import check_values
from connection.system.errors import InputError, exit_status
from connection.system.flags import Flags
from connection.system.folder_lock import lock_folder
from connection.system.paths import ROOT, output_folder, resolve
from connection.system.signals import run_to_the_end
from connection.system.versions import require_libraries
from tools.check import MODELS
from tools.suspects.folds import open_output, predicted, train, write_fold

if TYPE_CHECKING:
    import pandas as pd

    from connection.data.prepare import Prepared

FILE = "suspects.csv"
# Flags of training. Their defaults are those of training, except the ones below.
TRAINING = ("model_dir columns sheet header_row label_min label_max label_map on_bad_rows cache_dir batch_size learning_rate "
            "max_length pooling prompt1 prompt2 loss epochs seed device precision threads").split()  # fmt: skip
READING: dict[str, Any] = {"columns": "", "sheet": "", "header_row": 0, "label_map": "", "on_bad_rows": "stop"}
DEFAULTS: dict[str, Any] = READING | {"cache_dir": "output/cache", "max_length": 128, "seed": 42}
EPOCHS, FOLDS = 1, 2  # as measured: docs/mistakes.md
AS_MEASURED: dict[str, Any] = {"loss": "cosine-mse", "learning_rate": 2e-5, "dropout": 0.1}  # unless a flag is given
SHOWN = 20


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 a fold's training failed, 2 bad usage or input, 130 ended by Ctrl-C, 143 by SIGTERM."""
    parser = Flags("python -m tools.suspects", __doc__, ("python -m tools.suspects --train-file my_pairs.csv",))
    parser.add_argument("--train-file", required=True, help="labelled pairs to look for wrong labels in")
    parser.add_argument("--output-dir", default="output/suspects", help="folder of suspects.csv and of each fold's run")
    parser.add_argument("--folds", default=FOLDS, type=int, metavar="N", help=f"parts, each predicted once (default: {FOLDS})")
    parser.add_argument("--show", default=SHOWN, type=int, metavar="N", help=f"rows on the terminal (default: {SHOWN})")
    helps = {field.name: field.metadata["help"].replace("%", "%%") for field in setting_fields()}
    for name in TRAINING:
        default = f"default: {({'epochs': EPOCHS} | AS_MEASURED).get(name, 'as in training')}"
        parser.add_argument(flag_of(name), metavar="X", help=f"{helps[name]} ({default})")
    given = parser.parse_args(argv)
    return exit_status(lambda: find_suspects(given))


def find_suspects(given: argparse.Namespace) -> int:
    """Train and predict the missing folds; write `FILE` and show its first rows. Returns the exit status."""
    flags = {name: getattr(given, name) for name in TRAINING if getattr(given, name) is not None}
    values, problems = check_values(DEFAULTS | {"epochs": EPOCHS} | flags)
    problems += [f"--folds: {given.folds} is not from 2 to 100"] * (not 2 <= given.folds <= 100)
    problems += [f"--show: {given.show} is below 0"] * (given.show < 0)
    if problems:
        raise InputError.listing("These flags can't be used:", problems)
    require_libraries()
    from connection.data.prepare import prepare
    from connection.data.split import folds_by_sentence
    from connection.model.checks.model_folder import check_folder
    from ConnectionBert import load_tokenizer

    model = values.get("model_dir") or next((name for name in MODELS if (ROOT / name).is_dir()), MODELS[0])
    label_range, cache = (values.get("label_min"), values.get("label_max")), resolve(values["cache_dir"])
    files, tokenizer = {"train": given.train_file}, load_tokenizer(model)
    prepared = prepare(
        files,
        tokenizer,
        values["max_length"],
        values["columns"],
        label_range,
        cache,
        True,
        values["sheet"],
        values["header_row"],
        values["label_map"],
    )
    print(prepared)
    prepared.require(values["on_bad_rows"], "contradiction")  # a contradiction holds a wrong label, as looked for here
    store, scale = prepared.stores["train"], prepared.scale
    if len(store.labels) < 2:
        raise InputError(f"{store.path}: all labels are {store.labels[0]:g}, so none of them can stand out.")
    if scale.kind == "triplets":
        raise InputError(f"{store.path} has no labels to doubt: it is a file of triplets.")
    fold, remarks = folds_by_sentence(store, given.folds, values["seed"])
    for remark in remarks:
        print(remark)

    # The folds' files hold only good rows, with standard column names and the scale of all rows. Folds have no dev pairs.
    asked = flags | READING | {"label_min": scale.low, "label_max": scale.high}
    asked |= {"seeds": 1, "patience": 0, "keep_checkpoints": 0, "model_dir": str(resolve(model))}
    asked |= {name: values[name] for name in ("epochs", "seed")}
    asked = AS_MEASURED | asked
    machine = {name: asked.pop(name) for name in ("device", "threads") if name in asked} | {"cache_dir": str(cache)}
    weights = check_folder(resolve(model)).weights_sha256
    told = {
        "weights": weights,
        "train_file": store.sha256,
        "pairs": len(store),
        "folds": given.folds,
        "training": asked,
    }
    output = output_folder(given.output_dir)
    if store.path.is_relative_to(output):
        raise InputError(
            f"--train-file {store.path} lies in --output-dir {output}, whose files are replaced: copy it out first."
        )
    with lock_folder(output):
        open_output(output, told)
        tables = []
        for number in range(given.folds):
            run = output / f"fold-{number + 1}"
            if not is_finished(run):
                counts = f"trained on {(fold != number).sum():,} pairs, {(fold == number).sum():,} to predict"
                print(f"fold {number + 1} of {given.folds}: {counts}", flush=True)
                train(run, write_fold(output, prepared, fold == number), asked | machine)
            tables.append(predicted(run, prepared, fold == number).assign(fold=number + 1))
        return _report(output, prepared, tables, given.show)


def _report(output: Path, prepared: Prepared, tables: list[pd.DataFrame], shown: int) -> int:
    """Write `FILE` and show its first rows. Returns the exit status."""
    import pandas as pd

    from connection.data.row_texts import shorten
    from connection.reports.errors_csv import write_worst_first
    from connection.system.csv_output import from_cell

    store = prepared.stores["train"]
    table = pd.concat(tables, ignore_index=True).sort_values("line", ignore_index=True)
    if problem := write_worst_first(output / FILE, table, lambda _: prepared.reopen(store))[1]:
        raise InputError(f"{problem}: start again when it is as it was.")
    print(f"\n{len(store):,} pairs; mean absolute residual {table['residual'].abs().mean():.3f} label units")
    for row in pd.read_csv(output / FILE, nrows=shown, keep_default_na=False).itertuples():
        print(f"{row.rank:4}  line {row.line}: label {row.label:g}, predicted {row.predicted:.2f}")
        print(f"      {shorten(from_cell(str(row.sentence1)))} | {shorten(from_cell(str(row.sentence2)))}")
    print(f"\nAll pairs are in {output / FILE}, the most suspicious label first. Look at each before it is changed.")
    return 0


if __name__ == "__main__":
    run_to_the_end(main)
