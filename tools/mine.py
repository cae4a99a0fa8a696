# PYTHON_ARGCOMPLETE_OK
"""Mine hard negatives: for each first sentence of connected pairs, the nearest second sentences that are not linked to it.

They are guesses: some may be right answers that the file does not link. Those nearly as near as the right answer are left out.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from connection.data.label_words import parse_label_map
from connection.search.row_files import ENDINGS
from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable, tell
from connection.system.flags import Flags, add_encoder_flags
from connection.system.paths import expand, resolve
from connection.system.plain_files import output_problem
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    import numpy as np

    from connection.search.negatives import LinkedTexts, Negatives
    from connection.search.vectors import Encoder

EXAMPLES = (
    "python -m tools.mine links.csv --model-dir output/run -o triplets.csv",
    "python -m tools.mine links.csv --model-dir output/run --corpus answers.csv --negatives 3 --as pairs -o pairs.csv",
)
FORMS = ("triplets", "pairs")

ROWS_AT_ONCE = 10_000
SHOWN = 3  # examples
LONGEST = 70  # characters of a text in an example


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 the file could not be written, 2 bad usage, model folder or file."""
    parser = Flags("python -m tools.mine", __doc__ or "", EXAMPLES)
    parser.add_argument("file", help="pairs: connected ones alone, labelled ones, or triplets")
    parser.add_argument("--model-dir", required=True, help="whose cosines say what is near: a run's folder, or any BERT folder")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=".csv, .tsv, .jsonl, .parquet or .xlsx")
    parser.add_argument("--as", dest="form", choices=FORMS, default=FORMS[0], help="what is written (default: triplets)")
    parser.add_argument("--negatives", type=int, default=1, metavar="N", help="of each first sentence, at most (default: 1)")
    parser.add_argument(
        "--corpus", default="", metavar="FILE", help="a list of texts to look in (default: FILE's second sentences)"
    )
    parser.add_argument("--corpus-column", default="", metavar="COLUMN", help="name or number of the corpus's column of texts")
    parser.add_argument(
        "--margin",
        type=float,
        default=0.95,
        metavar="X",
        help="largest cosine, as a share of the right answer's (default: 0.95)",
    )
    parser.add_argument(
        "--margin-absolute",
        type=float,
        default=0.0,
        metavar="X",
        help="least distance from the right answer's cosine (default: 0)",
    )
    parser.add_argument(
        "--range-min", type=int, default=0, metavar="N", help="leave out as many of the nearest that are left (default: 0)"
    )
    parser.add_argument("--columns", default="", help="sentence1=NAME,sentence2=NAME,label=NAME (or 1-based numbers)")
    parser.add_argument("--sheet", default="", help="sheet of a workbook, by name or number (default: found by itself)")
    parser.add_argument(
        "--header-row", type=int, default=0, metavar="N", help="row of the column names (default: found by itself)"
    )
    parser.add_argument("--label-min", type=float, metavar="X", help="label that means no connection (default: of the file)")
    parser.add_argument("--label-max", type=float, metavar="X", help="label that means full connection (default: of the file)")
    parser.add_argument("--label-map", default="", metavar="TEXT", help="numbers of label words: low=0,medium=0.5,high=1")
    parser.add_argument("--on-bad-rows", choices=("stop", "skip"), default="stop", help="skip: leave bad rows out")
    add_encoder_flags(parser)
    given = parser.parse_args(argv)
    return exit_status(lambda: mine(given), failed="The negatives could not be written")


def mine(given: argparse.Namespace) -> int:
    """Find the negatives and write them with their pairs. Returns the exit status."""
    target = _checked_usage(given)
    require_libraries()
    import numpy as np

    from connection.data.pair_file import PairFile
    from connection.search.negatives import find_negatives, pair_rows, read_linked, triplet_rows
    from connection.search.row_files import new_rows
    from connection.search.texts import read_texts
    from connection.search.vectors import about, load_encoder

    file = PairFile.open(resolve(given.file), given.columns, given.sheet, given.header_row, given.label_map)
    corpus = None
    if given.corpus:
        corpus = read_texts(resolve(given.corpus), given.corpus_column, flags=("--corpus-column", "")).texts
    linked = read_linked(file, given.label_min, given.label_max, corpus, given.on_bad_rows == "skip")
    model = load_encoder(given.model_dir, given.backend, given.device)
    tell(*about(model))
    u, v, cut = _encode(model, linked)
    found = find_negatives(linked, u, v, given.negatives, given.margin, given.margin_absolute, given.range_min)
    cosine = np.einsum("ph,ph->p", u[linked.first], v[linked.second])
    right, there = linked.target > 0.5, found.texts >= 0
    tell(
        f"{printable(file.path)}: {right.sum():,} connected pairs of {len(found.anchors):,} first sentences, "
        f"{len(linked.candidates):,} candidates, {cut:,} texts cut at {model.max_length} tokens"
    )
    if not there.any():
        raise InputError("No candidate is far enough from every right answer: give a larger --margin, or a --corpus")
    tell(
        f"{there.sum():,} negatives of {there.any(axis=1).sum():,} first sentences; mean cosine "
        f"{found.cosine[there].mean():.3f}, of the connected pairs {cosine[right].mean():.3f}"
    )
    without = int((~there.any(axis=1)).sum())
    if without:
        kept = "their pairs are left out" if given.form == "triplets" else "their pairs are written alone"
        tell(f"{without:,} first sentences have no negative that is far enough: {kept}")
    _show(linked, found)
    names, rows = ["sentence1", "sentence2", "label", "cosine"], pair_rows(linked, found, cosine)
    if given.form == "triplets":
        names = ["anchor", "positive", *(f"mined_negative_{number}" for number in range(1, given.negatives + 1))]
        rows = triplet_rows(linked, found)
    written = 0
    with new_rows(target, names, 2 * (given.form == "pairs")) as output:
        while block := list(itertools.islice(rows, ROWS_AT_ONCE)):
            output.write(block)
            written += len(block)
    tell(f"{printable(target)}: {written:,} {given.form}")
    return 0


def _encode(model: Encoder, linked: LinkedTexts) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the vectors of the T texts as first and as second sentences, (T, H) each, and how many were cut.

    With two prompts, texts that are not on a side have zeros there.
    """
    import numpy as np

    from connection.search.vectors import encode_texts

    if model.one_prompt:
        vectors, cut = encode_texts(model, linked.texts, 1)
        return vectors, vectors, cut
    sides, total = [], 0
    for side, numbers in ((1, linked.first), (2, np.concatenate([linked.second, linked.candidates]))):
        there = np.unique(numbers)
        vectors = np.zeros((len(linked.texts), model.hidden_size), np.float32)
        vectors[there], cut = encode_texts(model, [linked.texts[number] for number in there], side)
        sides.append(vectors)
        total += cut
    return sides[0], sides[1], total


def _show(linked: LinkedTexts, found: Negatives) -> None:
    """Print the nearest negatives of all: the first to look at."""
    nearest = (-found.cosine[:, 0]).argsort(kind="stable")[:SHOWN]  # NaN last
    from connection.data.row_texts import shorten

    tell("nearest, to be looked at: are they really no answers?")
    for number in nearest[found.texts[nearest, 0] >= 0].tolist():
        one, two = (linked.texts[text] for text in (found.anchors[number], found.texts[number, 0]))
        tell(f"  {found.cosine[number, 0]:.3f}  {shorten(one, LONGEST)} | {shorten(two, LONGEST)}")


def _checked_usage(given: argparse.Namespace) -> Path:
    """Returns the file to write. Raises `InputError` for values out of range, and for a file that can't be written."""
    problems = []
    for flag, value, low, high in (
        ("--negatives", given.negatives, 1, 1000), ("--range-min", given.range_min, 0, 1_000_000),
        ("--header-row", given.header_row, 0, 1_048_576), ("--margin", given.margin, -10, 10),
        ("--margin-absolute", given.margin_absolute, -2, 2),
    ):  # fmt: skip
        if not low <= value <= high:  # also true for NaN
            problems.append(f"{flag} {value}: give a number from {low:,} to {high:,}")
    ends = [end for end in (given.label_min, given.label_max) if end is not None]
    if not all(map(math.isfinite, ends)):
        problems.append("--label-min and --label-max: give finite numbers")
    try:
        parse_label_map(given.label_map)
    except InputError as error:
        problems.append(f"--label-map: {error}")
    target = expand(given.output)
    inputs = [resolve(name) for name in (given.file, given.corpus) if name]
    if problem := output_problem(target, inputs):
        problems.append(f"-o {problem}")
    elif target.suffix.lower() not in ENDINGS:
        problems.append(f"-o {printable(target)}: the name should end in {', '.join(ENDINGS)}")
    if problems:
        raise InputError("\n".join(problems))
    return target


if __name__ == "__main__":
    sys.exit(main())
