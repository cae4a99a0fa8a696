"""List training labels that a model trained on the other pairs disagrees with, the most suspicious first.

The pairs are dealt into folds by sentence; each fold is predicted by a model that is trained on the others. The residual is
label less predicted label: what a cosine stands for, by an isotonic mapping fitted on the fold. The same command resumes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.environment import ROOT, expand, file_sha256, require_libraries, resolve
from connection.errors import InputError, RunError, exit_status
from connection.settings import check_values, flag_of, flag_words, setting_fields
from tools.check import MODELS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from connection.prepare import Prepared

DRIVER = ROOT / "bertFineTuningWithConnectionData.py"
FILE, SETTINGS = "suspects.csv", "suspects.json"
# Flags of training, with its defaults unless they are below.
TRAINING = ("model_dir columns label_min label_max on_bad_rows cache_dir batch_size learning_rate max_length pooling loss "
            "epochs seed device precision threads").split()  # fmt: skip
DEFAULTS: dict[str, Any] = {"columns": "", "on_bad_rows": "stop", "cache_dir": "output/cache", "max_length": 128, "seed": 42}
EPOCHS, FOLDS = 2, 3
SHOWN = 20


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 a fold's training failed, 2 bad usage or input, 130 ended by Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tools.suspects", description=__doc__, allow_abbrev=False)
    parser.add_argument("--train-file", required=True, help="labelled pairs to look for wrong labels in")
    parser.add_argument("--output-dir", default="output/suspects", help="folder of suspects.csv and of each fold's run")
    parser.add_argument("--folds", default=FOLDS, type=int, metavar="N", help=f"parts, each predicted once (default: {FOLDS})")
    parser.add_argument("--show", default=SHOWN, type=int, metavar="N", help=f"rows on the terminal (default: {SHOWN})")
    helps = {field.name: field.metadata["help"].replace("%", "%%") for field in setting_fields()}
    for name in TRAINING:
        default = f"default: {EPOCHS}" if name == "epochs" else "default: as in training"
        parser.add_argument(flag_of(name), metavar="X", help=f"{helps[name]} ({default})")
    given = parser.parse_args(flag_words(sys.argv[1:] if argv is None else argv))
    return exit_status(lambda: find_suspects(given))


def find_suspects(given: argparse.Namespace) -> int:
    """Train and predict every fold that is not there yet; write `FILE` and show its head."""
    flags = {name: getattr(given, name) for name in TRAINING if getattr(given, name) is not None}
    values, problems = check_values(DEFAULTS | {"epochs": EPOCHS} | flags)
    problems += [f"--folds: {given.folds} is not from 2 to 100"] * (not 2 <= given.folds <= 100)
    problems += [f"--show: {given.show} is below 0"] * (given.show < 0)
    if problems:
        raise InputError.listing("These flags can't be used:", problems)
    require_libraries()
    from connection.prepare import prepare
    from connection.split import folds_by_sentence
    from ConnectionBert import load_tokenizer

    model = values.get("model_dir") or next((name for name in MODELS if (ROOT / name).is_dir()), MODELS[0])
    label_range, cache = (values.get("label_min"), values.get("label_max")), resolve(values["cache_dir"])
    files, tokenizer = {"train": given.train_file}, load_tokenizer(model)
    prepared = prepare(files, tokenizer, values["max_length"], values["columns"], label_range, cache)
    print(*prepared.understood, f"labels {prepared.scale}", *prepared.findings, sep="\n")
    prepared.require(values["on_bad_rows"], "contradiction")  # one of the two labels is what is looked for
    store, scale = prepared.stores["train"], prepared.scale
    fold, remarks = folds_by_sentence(store, given.folds, values["seed"])
    print(*remarks, sep="\n", end="\n" * bool(remarks))

    # The folds' files hold good rows under usual names, on the scale of all rows.
    own = ("model_dir", "columns", "on_bad_rows", "cache_dir", "label_min", "label_max", "epochs", "seed")
    passed = {name: flags[name] for name in flags if name not in own}
    passed |= {"epochs": values["epochs"], "seed": values["seed"], "label_min": scale.low, "label_max": scale.high}
    passed |= {"model_dir": str(resolve(model)), "cache_dir": str(cache)}
    asked = {"train_file": file_sha256(store.path), "pairs": len(store), "folds": given.folds, **passed}
    output = _open_output(expand(given.output_dir).resolve(), asked)
    tables = []
    for number in range(given.folds):
        run = output / f"fold-{number + 1}"
        if not _is_done(run):
            counts = f"trained on {(fold != number).sum():,} pairs, {(fold == number).sum():,} to predict"
            print(f"fold {number + 1} of {given.folds}: {counts}", flush=True)
            _train(run, _write_fold(output, prepared, fold == number), passed)
        tables.append(_predicted(run, prepared, fold == number).assign(fold=number + 1))
    return _report(output, prepared, tables, given.show)


def _open_output(output: Path, asked: dict[str, Any]) -> Path:
    """The folder, new or with the folds of an earlier start of the same command. Raises `InputError` for any other."""
    file = output / SETTINGS
    content = json.dumps(asked, indent=2)
    try:
        if output.is_dir() and any(output.iterdir()):
            if not file.is_file():
                raise InputError(f"--output-dir {output} is not empty, and not of this command: give another folder.")
            if file.read_text(encoding="utf-8") != content:
                raise InputError(
                    f"--output-dir {output} holds folds of another file or of other flags, see {SETTINGS} in it: "
                    "give another folder, or remove it."
                )
        output.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output-dir {output} can't be written: {error.strerror}") from None
    return output


def _is_done(run: Path) -> bool:
    try:
        return json.loads((run / "results.json").read_text(encoding="utf-8"))["interrupted"] is False
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_fold(output: Path, prepared: Prepared, held_out: np.ndarray) -> dict[str, str]:
    """The rows of a fold and all others, as JSON Lines: whatever a text holds, row n of a file is its line n."""
    import numpy as np

    store = prepared.stores["train"]
    files = {part: output / f"{part}.jsonl" for part in ("train", "test")}
    with open(files["train"], "w", encoding="ascii") as train, open(files["test"], "w", encoding="ascii") as test:
        source = prepared.reopen(store)
        for chunk in source.chunks(low=prepared.scale.low, high=prepared.scale.high):
            places = np.searchsorted(store.line, chunk.line)
            rows = zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), held_out[places].tolist(), strict=True)
            for one, two, label, held in rows:
                print(json.dumps({"sentence1": one, "sentence2": two, "label": label}), file=test if held else train)
        source.require_unchanged()
    return {f"{part}_file": str(file) for part, file in files.items()}


def _train(run: Path, files: dict[str, str], flags: dict[str, Any]) -> None:
    """A run of the training command in a process of its own; its folder is kept, without model/."""
    words = files | flags | {"output_dir": run, "allow": "contradiction,few-labels"}
    command = [sys.executable, str(DRIVER), "--overwrite", *(f"{flag_of(name)}={value}" for name, value in words.items())]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if status == 130:
        raise KeyboardInterrupt
    if status == 2:
        raise InputError(f"The training of {run.name} was refused, see above.")
    if status:
        raise RunError(f"the training of {run.name} ended with status {status}, see above; the same command resumes before it.")
    shutil.rmtree(run / "model")
    for file in files.values():
        Path(file).unlink()


def _predicted(run: Path, prepared: Prepared, held_out: np.ndarray) -> pd.DataFrame:
    """Line, label, predicted label, cosine and residual of the pairs of a fold. Raises `InputError` where they are not all."""
    import numpy as np
    import pandas as pd

    from connection.calibration import Fitted
    from connection.mistakes import predicted_label
    from connection.predictions import read_predictions

    store, scale = prepared.stores["train"], prepared.scale
    rows = np.flatnonzero(held_out)
    found = read_predictions(run, "test").sort_values("line")
    if found["line"].tolist() != list(range(1, len(rows) + 1)):
        raise InputError(f"{run} does not hold the pairs of this fold: remove it, and start again.")
    label, cosine = store.label[rows], found["final"].to_numpy()
    predicted = predicted_label(cosine, Fitted.of(cosine, label, scale), scale)
    columns = {"split": "train", "line": store.line[rows], "label": label, "predicted": predicted, "cosine": cosine}
    return pd.DataFrame(columns | {"residual": label.astype(float) - predicted})


def _report(output: Path, prepared: Prepared, tables: list[pd.DataFrame], shown: int) -> int:
    """Write `FILE`, and show its first rows."""
    import pandas as pd

    from connection.rowcheck import shorten
    from connection.worstfirst import write_worst_first

    store = prepared.stores["train"]
    table = pd.concat(tables, ignore_index=True).sort_values("line", ignore_index=True)
    if problem := write_worst_first(output / FILE, table, lambda _: prepared.reopen(store))[1]:
        raise InputError(f"{problem}: start again when it is as it was.")
    print(f"\n{len(store):,} pairs; mean absolute residual {table['residual'].abs().mean():.3f} label units")
    for row in pd.read_csv(output / FILE, nrows=shown).itertuples():
        print(f"{row.rank:4}  line {row.line}: label {row.label:g}, predicted {row.predicted:.2f}")
        print(f"      {shorten(str(row.sentence1))} | {shorten(str(row.sentence2))}")
    print(f"\nAll pairs are in {output / FILE}, the most suspicious label first. Look at each before it is changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
