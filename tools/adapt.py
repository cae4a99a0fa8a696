# PYTHON_ARGCOMPLETE_OK
"""Adapt a BERT to your own words before it is fine-tuned: it trains on texts alone, without labels, and writes a model folder.

Some words of each text are hidden, and the model learns to find them again. Then fine-tune with --model-dir FOLDER.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable
from connection.system.flags import Flags
from connection.system.paths import ROOT, expand, require_utf8, resolve, shell_line
from connection.system.processes import started_together
from connection.system.signals import run_to_the_end
from connection.system.versions import require_libraries
from tools.check import MODELS

SHOWN = 20  # lines of rows that are left out
EXAMPLES = (
    "python -m tools.adapt texts.csv --model-dir transformers/bert/bert-base-uncased -o output/adapted",
    "python -m tools.adapt --pairs my_pairs.csv -o output/adapted",
)


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 the run failed, 2 bad usage, model folder or file, 130 by Ctrl-C."""
    parser = Flags("python -m tools.adapt", __doc__ or "", EXAMPLES)
    parser.add_argument("files", nargs="*", metavar="FILE", help="lists of texts, in any form of the data reader")
    parser.add_argument("--pairs", action="append", default=[], metavar="FILE",
                        help="pairs, whose texts of both sides are taken; may be given several times")  # fmt: skip
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the adapted model")
    parser.add_argument("--model-dir", default=MODELS[0], help=f"the model to begin with (default: {MODELS[0]})")
    parser.add_argument("--column", default="", help="of lists: the column of texts, by name or number")
    parser.add_argument("--columns", default="", help="of pairs: sentence1=NAME,sentence2=NAME,label=NAME (or 1-based numbers)")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="passes over the texts (default: 10)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="texts per step (default: 16)")
    parser.add_argument("--learning-rate", type=float, default=5e-5, metavar="X", help="the peak (default: 5e-5)")
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="of order, hidden words and dropout (default: 42)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPU if there is one")
    given = parser.parse_intermixed_args(argv)  # files may stand after flags
    return exit_status(lambda: run(given), failed="The model was not adapted", stopped="Stopped; no model was written.")


def run(given: argparse.Namespace) -> int:
    """Train on the texts and write the model. Returns the exit status."""
    target = _checked_usage(given)
    require_libraries()
    from connection.data.tokenization import tokenize
    from connection.model.calibration import Calibration
    from connection.search.vectors import about
    from connection.system.devices import pick_device
    from connection.training.masked_words import adapt
    from ConnectionBert import ConnectionBert

    texts, said = _read(given)
    print(*said, sep="\n", flush=True)
    model = ConnectionBert.load(given.model_dir).to(pick_device(given.device))
    print("\n".join(about(model)), flush=True)
    store = tokenize(texts, model.tokenizer, model.max_length)
    cut = f"{store.cut.sum():,} cut at {model.max_length} tokens"
    print(f"{len(texts):,} distinct texts, {len(store.ids):,} tokens, {cut}", flush=True)
    rows = [store[row] for row in range(len(store))]
    learned = False
    for epoch, loss in enumerate(adapt(model, rows, given.epochs, given.batch_size, given.learning_rate, given.seed), 1):
        found = "no word was hidden" if math.isnan(loss) else f"loss of the hidden words {loss:.3f}"
        print(f"epoch {epoch}/{given.epochs}: {found}", flush=True)
        learned |= not math.isnan(loss)
    if not learned:
        raise InputError("The texts are too few and too short: no word was hidden, and nothing learned. Give more of them")
    model.labels, model.calibration = None, Calibration()  # of other weights
    model.save(target)
    print(f"adapted model: {printable(target)}")
    words = [sys.executable, "bertFineTuningWithConnectionData.py", "--model-dir", str(target.absolute())]
    print(f"next, with --train-file and the like: {printable(shell_line(words, ROOT))}")
    return 0


def _read(given: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the distinct texts of all files, and what is said of each file.

    Raises `InputError` that lists what is wrong with each of them.
    """
    from connection.search.texts import read_texts

    texts: dict[str, None] = {}
    problems, said = [], []
    for name in given.files:
        try:
            found = read_texts(resolve(name), given.column)
            texts |= dict.fromkeys(found.texts)
            column = f"{len(found.texts):,} texts in column {printable(found.column)}"
            said.append(f"list   {printable(found.path.name)}: {column}")
        except InputError as error:
            hint = "" if given.column or "--column" not in str(error) else f"; of a file of pairs --pairs {printable(name)}"
            problems.append(f"{error}{hint}")
    for name in given.pairs:
        try:
            of_both, left_out = _read_pairs(resolve(name), given.columns)
            texts |= of_both
            said.append(f"pairs  {printable(resolve(name).name)}: {len(of_both):,} distinct texts of both sides")
            if left_out:
                lines = f"{', '.join(map(str, left_out[:SHOWN]))}{' ...' * (len(left_out) > SHOWN)}"
                said.append(f"       {len(left_out):,} rows do not have two texts for certain and are left out: {lines}")
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    if len(texts) < 2:
        raise InputError("\n".join([*said, "There are fewer than 2 distinct texts to learn from"]))
    return list(texts), said


def _read_pairs(path: Path, columns: str) -> tuple[dict[str, None], list[int]]:
    """Return the distinct texts of a pair file, and the lines of rows without two texts. A row needs no label."""
    from connection.data.pair_file import PairFile

    texts: dict[str, None] = {}
    file = PairFile.open(path, columns)

    def bad_lines(file: PairFile) -> set[int]:
        bad: set[int] = set()
        for chunk in file.chunks():
            texts.update(dict.fromkeys([*chunk.sentence1, *chunk.sentence2]))
            bad.update(row.line for row in chunk.bad)
        return bad

    left_out = bad_lines(file)
    if left_out:
        left_out &= bad_lines(file.without_labels())
    file.require_unchanged()
    return texts, sorted(left_out)


def _checked_usage(given: argparse.Namespace) -> Path:
    """Return the folder to write. Raises `InputError` that lists values out of range, and a folder that can't be written."""
    from connection.model.checks.model_folder import model_of

    problems: list[str] = []
    for flag, value, low, high in (
        ("--epochs", given.epochs, 1, 1_000_000), ("--batch-size", given.batch_size, 1, 1_000_000),
        ("--seed", given.seed, 0, 2**31 - 1),
    ):  # fmt: skip
        if not low <= value <= high:
            problems.append(f"{flag} {value}: give a number from {low:,} to {high:,}")
    if not (math.isfinite(given.learning_rate) and 0 < given.learning_rate <= 1):
        problems.append(f"--learning-rate {given.learning_rate:g}: give a number above 0, 1 at most")
    if not given.files and not given.pairs:
        problems.append("FILE: give a list of texts, or --pairs FILE")
    for flag, value, files, needed in (
        ("--column", given.column, given.files, "lists (FILE)"), ("--columns", given.columns, given.pairs, "--pairs FILE"),
    ):  # fmt: skip
        if value and not files:
            problems.append(f"{flag} {value} is of {needed}, and none is given")
    if started_together():
        problems.append("torchrun: this command trains in one process; start it without torchrun")
    target = expand(given.output)
    try:
        read = [resolve(name) for name in given.files + given.pairs]
        problem = _output_problem(target, model_of(resolve(given.model_dir)), read)
    except InputError as error:
        problems.append(str(error))
    except (OSError, ValueError, RuntimeError) as error:
        problems.append(f"-o {printable(target)[:200]} can't be written: {getattr(error, 'strerror', None) or error}")
    else:
        problems += [f"-o {printable(target)} {problem}: give another folder"] if problem else []
    if problems:
        raise InputError("\n".join(problems))
    return target


def _output_problem(target: Path, model: Path, files: list[Path]) -> str:
    """Return why a folder can't be written, or "". One that is there is replaced as a whole, with all that is in it.

    Raises `OSError`, `ValueError` or `RuntimeError` for a name that can't be, and where nothing can be written: better now
    than after hours of training.
    """
    from connection.model.checks.model_folder import output_problem

    whole = target.resolve()
    require_utf8(whole)
    if problem := output_problem(target):
        return problem
    if whole.name == "model" and (whole.parent / "settings.json").is_file():
        return "is the model of a run"
    if whole == model:
        return "is --model-dir"
    if held := next((path for path in (model, *files) if path.is_relative_to(whole)), None):
        return f"would be replaced, and {printable(held)}, which is read, is in it"
    there = next(path for path in whole.parents if path.exists())
    with tempfile.TemporaryDirectory(dir=there, prefix="."):
        return ""


if __name__ == "__main__":
    run_to_the_end(main)
