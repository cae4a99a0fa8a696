# PYTHON_ARGCOMPLETE_OK
"""Score pairs: the cosine, the label that it stands for and the decision, for two sentences or for each row of a file."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.search.sharing import shared_encoding
from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable, tell
from connection.system.flags import Flags, add_encoder_flags
from connection.system.paths import expand, resolve
from connection.system.plain_files import output_problem
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    from connection.search.pair_rows import PairRows
    from connection.search.vectors import Encoder

EXAMPLES = (
    'python -m tools.score output/run "The door shall lock" "Check the lock"',
    "python -m tools.score output/run pairs.xlsx -o scored.xlsx",
)
DIGITS = 4
SHOWN = 5


def main(argv: list[str] | None = None, name: str = "score") -> int:
    """Return the exit status: 0 done, 1 the file could not be written, 2 bad usage, model folder or file."""
    parser = Flags(f"python -m tools.{name}", __doc__ or "", EXAMPLES)
    parser.add_argument("model", help="a run's folder, its model/, or any BERT folder")
    parser.add_argument("pairs", nargs="+", metavar="PAIRS", help="a file of pairs; or two sentences")
    parser.add_argument("-o", "--output", metavar="FILE", help="the scored rows: .csv, .tsv, .jsonl, .parquet or .xlsx")
    parser.add_argument("--columns", default="", help="sentence1=NAME,sentence2=NAME (or 1-based numbers)")
    parser.add_argument("--json", action="store_true", help="print JSON: of two sentences, or a line for each row")
    add_encoder_flags(parser)
    given = parser.parse_args(argv)
    return exit_status(lambda: shared_encoding(given, lambda: score(given)), failed="The scores could not be written")


def score(given: argparse.Namespace) -> int:
    """Score two sentences, or the rows of a file. Returns the exit status."""
    if len(given.pairs) > 2:
        raise InputError("Give one file of pairs, or two sentences")
    two = given.pairs if len(given.pairs) == 2 else None
    target = expand(given.output) if given.output else None
    if two and target:
        raise InputError("-o is of a file of pairs; the score of two sentences is printed")
    for sentence in two or ():
        if not sentence.strip() or any("\ud800" <= letter <= "\udfff" for letter in sentence):  # bytes that are not UTF-8
            raise InputError(f"{sentence!r} is no sentence")
    if target and (problem := output_problem(target)):
        raise InputError(f"-o {problem}")
    if target and target.resolve() == resolve(given.pairs[0]):
        raise InputError(f"-o {printable(target)} would replace the file that is read: give another name")
    require_libraries()
    from connection.search.pair_rows import open_pairs
    from connection.search.row_files import ENDINGS, require_openpyxl
    from connection.search.vectors import load_encoder

    if target and target.suffix.lower() not in ENDINGS:
        raise InputError(f"-o {printable(target)}: the name should end in {', '.join(ENDINGS)}")
    if target and target.suffix.lower() == ".xlsx":
        require_openpyxl()
    file = None if two else open_pairs(resolve(given.pairs[0]), given.columns)
    model = load_encoder(given.model, given.backend, given.device)
    if two:
        return _score_two(model, two, given.json)
    assert file
    return _score_file(model, file, target, given.json)


def added_columns(model: Encoder) -> list[str]:
    """Returns the names of the columns that a model can fill."""
    predicted = ["predicted"] * bool(model.labels and model.calibration.knots)  # without dev pairs no label is known
    return ["cosine", *predicted, *["connected"] * (threshold_of(model)[0] is not None)]


def threshold_of(model: Encoder) -> tuple[float | None, str]:
    """Returns the cosine from which a model calls a pair connected, and how it is known; None and "" if it is not."""
    from connection.search.linking import decision_threshold

    return decision_threshold(model.calibration, model.labels)


def scores_of(model: Encoder, cosine: Any) -> list[list[Any]]:
    """Returns the cells of `added_columns` for cosines (N,), N rows."""
    columns: list[list[Any]] = [[round(float(value), DIGITS) for value in cosine]]
    if model.labels and model.calibration.knots:
        columns.append([round(float(label), DIGITS) for label in model.calibration.predicted_label(cosine, *model.labels)])
    threshold, _ = threshold_of(model)
    if threshold is not None:
        columns.append(["yes" if value >= threshold else "no" for value in cosine])
    return [list(row) for row in zip(*columns, strict=True)]


def _score_two(model: Encoder, sentences: list[str], as_json: bool) -> int:
    from connection.search.vectors import encode_pairs

    u, v, cut = encode_pairs(model, sentences[:1], sentences[1:], what="sentences")  # (1, H) each
    cosine = (u * v).sum(1).clip(-1, 1)  # (1,)
    if cut:
        tell(f"{cut} of 2 sentences cut at {model.max_length} tokens")
    names = added_columns(model)
    (cells,) = scores_of(model, cosine)
    if as_json:
        print(json.dumps(dict(zip(names, cells, strict=True))))
        return 0
    print(f"cosine {float(cosine[0]):.4f}")
    threshold, how = threshold_of(model)
    if threshold is not None:
        print(f"{'connected' if cosine[0] >= threshold else 'not connected'}: the threshold is {threshold:.4f} ({how})")
    if "predicted" in names and model.labels:
        low, high = model.labels
        print(f"score  {cells[1]:.2f} on the scale {low:g} to {high:g}")
    return 0


def _score_file(model: Encoder, file: PairRows, target: Path | None, as_json: bool) -> int:
    """Write the rows of a file with their scores to `target`, or print them. Says the counts on stderr."""
    from connection.search.row_files import new_rows, print_rows, unique

    names = [*file.names, *added_columns(model)]
    counts = {"rows": 0, "cut": 0, "connected": 0}
    problems: list[str] = []
    rows = _scored(model, file, counts, problems)
    if target:
        with new_rows(target, names, len(added_columns(model))) as output:
            for chunk in rows:
                output.write(chunk)
            _require_rows(file, counts["rows"])  # before the file takes its place
    elif as_json:
        for chunk in rows:
            for row in chunk:
                print(json.dumps(dict(zip(unique(names), row, strict=True)), ensure_ascii=False))
    else:
        print_rows(itertools.chain([unique(names)], itertools.chain.from_iterable(rows)))
    _require_rows(file, counts["rows"])
    said = f"{counts['rows']:,} pairs scored, {counts['cut']:,} sentences cut at {model.max_length} tokens"
    threshold, how = threshold_of(model)
    if threshold is not None:
        said += f", {counts['connected']:,} connected (cosine {threshold:.4f} or more: {how})"
    tell(said, *([f"{printable(target)}: the rows with their scores"] if target else []))
    if problems:
        tell(f"{len(problems):,} rows have no score:", *(f"  {printable(problem)}" for problem in problems[:SHOWN]))
    return 0


def _require_rows(file: PairRows, count: int) -> None:
    if not count:
        raise InputError(f"{printable(file.table.path)} has no rows below its header")


def _scored(model: Encoder, file: PairRows, counts: dict[str, int], problems: list[str]) -> Iterator[list[list[Any]]]:
    """Yields the rows with their scores; those without two sentences have empty ones. Adds to `counts` and `problems`."""
    from connection.search.vectors import encode_pairs

    empty, (threshold, _) = [None] * len(added_columns(model)), threshold_of(model)
    for chunk in file.chunks():
        cells, first, second, wrong = chunk.cells, chunk.first, chunk.second, chunk.wrong
        good = [place for place, why in enumerate(wrong) if not why]
        problems += [f"{file.table.path}, {why}" for why in wrong if why]
        added = [list(empty) for _ in cells]
        if good:
            start = counts["rows"]
            one, two = ([side[place] for place in good] for side in (first, second))
            u, v, cut = encode_pairs(model, one, two, what=f"rows {start + 1:,} on")  # (G, H) each
            cosine = (u * v).sum(1).clip(-1, 1)
            for place, row in zip(good, scores_of(model, cosine), strict=True):
                added[place] = row
            counts["cut"] += cut
            if threshold is not None:
                counts["connected"] += int((cosine >= threshold).sum())
        counts["rows"] += len(cells)
        yield [[*row, *more] for row, more in zip(cells, added, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
