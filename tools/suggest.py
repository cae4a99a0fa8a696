# PYTHON_ARGCOMPLETE_OK
"""Suggest which pairs to label next: spread over the labels that the model predicts, of many texts, no two about the same."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable, tell
from connection.system.flags import Flags
from connection.system.paths import expand, resolve
from connection.system.plain_files import output_problem
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    import numpy as np

    from connection.search.suggestion import Pool
    from connection.search.texts import Texts
    from ConnectionBert import ConnectionBert

EXAMPLES = (
    "python -m tools.suggest output/run requirements.csv tests.xlsx --labelled my-pairs.csv -o to-label.csv",
    "python -m tools.suggest output/run unlabelled-pairs.csv --count 50 -o to-label.csv",
)
COUNT = 100
NEAREST = 100  # candidates of each row of A: its nearest rows of B, and others, which the model may rate too low
AT_RANDOM = 20
NO_THRESHOLD = (0.5, "this model has no threshold of its own: one trained on some labels, with dev pairs, knows better")


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 the pairs could not be written, 2 bad usage, model folder or file."""
    parser = Flags("python -m tools.suggest", __doc__, EXAMPLES)
    parser.add_argument("model", help="a run's folder, its model/, or any BERT folder")
    parser.add_argument("a", metavar="A", help="a list of texts; or, without B, a file of unlabelled pairs")
    parser.add_argument("b", metavar="B", nargs="?", help="the other list")
    parser.add_argument("--count", type=int, default=COUNT, metavar="N", help=f"pairs to suggest (default: {COUNT})")
    parser.add_argument("--by", choices=("scale", "threshold", "random"), default="scale",
                        help="over the label scale, near the decision threshold, or at random (default: scale)")  # fmt: skip
    parser.add_argument("--labelled", action="append", default=[], metavar="FILE", help="pair files: not suggested again")
    parser.add_argument("-o", "--output", metavar="FILE", help="the pairs as CSV, with an empty score column (default: stdout)")
    for side in "ab":
        name = side.upper()
        parser.add_argument(f"--column-{side}", default="", metavar="COLUMN",
                            help=f"name or number of the column of {name}'s texts")  # fmt: skip
        parser.add_argument(f"--id-{side}", default="", metavar="COLUMN", help=f"name or number of {name}'s column of ids")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPU if there is one")
    parser.add_argument("--json", action="store_true", help="print the pairs as JSON")
    given = parser.parse_args(argv)
    return exit_status(lambda: suggest_pairs(given), failed="The pairs could not be written")


def suggest_pairs(given: argparse.Namespace) -> int:
    """Write the pairs to label; say on stderr how they were chosen. Returns the exit status."""
    target = _checked_usage(given)
    require_libraries()
    import numpy as np

    from connection.data.text_hashes import plain
    from connection.search.linking import decision_threshold
    from connection.search.row_files import print_rows
    from connection.search.suggestion import near_threshold, over_scale
    from connection.search.texts import read_texts
    from connection.search.vectors import about
    from connection.system.csv_output import new_csv
    from connection.system.devices import pick_device
    from ConnectionBert import ConnectionBert

    if given.b:
        a = read_texts(resolve(given.a), given.column_a, given.id_a, flags=("--column-a", "--id-a"))
        b = read_texts(resolve(given.b), given.column_b, given.id_b, flags=("--column-b", "--id-b"))
    else:
        a, b = _sides(resolve(given.a), given)
    number: dict[str, int] = {}  # equal texts have the same
    of_a, of_b = (np.array([number.setdefault(plain(text), len(number)) for text in side.texts], np.int64) for side in (a, b))
    labelled = _labelled(given.labelled, number)
    model = ConnectionBert.load(given.model).to(pick_device(given.device))
    tell(*about(model))
    pool = _pool(model, a, b, both_lists=bool(given.b))
    new = _unlabelled(of_a[pool.a], of_b[pool.b], labelled, len(number))
    tell(f"pairs  {len(pool):,} candidates, {len(pool) - len(new):,} of them labelled already or given twice")
    if not len(new):
        raise InputError("No pair is left: each is labelled already, or twice the same text. Give other lists.")
    pool = pool.only(new)
    if given.by == "scale":
        chosen, how = over_scale(pool, given.count), "spread over the predicted labels"
    elif given.by == "random":
        chosen, how = np.random.default_rng(0).permutation(len(pool))[: given.count], "at random"
    else:
        threshold, source = decision_threshold(model.calibration, model.labels)
        if threshold is None:
            threshold, source = NO_THRESHOLD
        chosen, how = near_threshold(pool, given.count, threshold), f"near the cosine {threshold:.4f} ({source})"
    tell(f"chosen {len(chosen):,} of {len(pool):,}, {how}")
    header, rows = _rows(model, a, b, pool.only(chosen))
    if target:
        with new_csv(target) as output:
            output.rows([header, *rows])
        tell(f"{printable(target)}: fill in the score column, and add its rows to the training file")
    if given.json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2, ensure_ascii=False))
    elif not target:
        print_rows([header, *rows])
    return 0


def _checked_usage(given: argparse.Namespace) -> Path | None:
    """Returns the file to write. Raises `InputError` for flags that can't be used, and for a file that can't be written."""
    problems = [] if given.count > 0 else [f"--count {given.count}: give 1 or more"]
    target = expand(given.output) if given.output else None
    inputs = [resolve(name) for name in (given.a, given.b, *given.labelled) if name]
    if target and (problem := output_problem(target, inputs)):
        problems.append(f"-o {problem}")
    if not given.b:
        problems += [
            f"--id-{side} is of two lists; a file of pairs has no ids" for side in "ab" if getattr(given, f"id_{side}")
        ]
    if problems:
        raise InputError(problems[0]) if len(problems) == 1 else InputError.listing("These flags can't be used:", problems)
    return target


def _sides(path: Path, given: argparse.Namespace) -> tuple[Texts, Texts]:
    """Both sides of a file of pairs. Raises `InputError` unless its columns have known names or are given."""
    from connection.search.pair_rows import open_pairs
    from connection.search.texts import Texts

    columns = (given.column_a, given.column_b)
    if any(columns) and not all(columns):
        raise InputError("--column-a and --column-b: of a file of pairs, give both")
    declared = f"sentence1={columns[0]},sentence2={columns[1]}" if all(columns) else ""
    pairs = open_pairs(path, declared, "--column-a NAME --column-b NAME (or numbers); or give a second list")
    chunks = list(pairs.chunks())
    if problems := [why for chunk in chunks for why in chunk.wrong if why]:
        raise InputError.listing(f"{path}: rows without two texts; fill or remove them", problems)
    rows = [number for chunk in chunks for number in chunk.numbers]
    first, second = ([text for chunk in chunks for text in side(chunk)] for side in (lambda c: c.first, lambda c: c.second))
    one, two = (pairs.names[place] for place in pairs.places)
    return Texts(first, rows, None, {}, path, one), Texts(second, rows, None, {}, path, two)


def _labelled(files: list[str], number: dict[str, int]) -> np.ndarray:
    """The keys of the pairs that have a label, (L,) int64. A row without one, as suggested before, is none of them.

    number: of each text in the lists, by its form in which texts are compared.
    """
    import numpy as np

    from connection.data.pair_file import PairFile
    from connection.data.text_hashes import plain

    found = [np.zeros(0, np.int64)]
    for name in files:
        for chunk in PairFile.open(resolve(name)).chunks():
            one, two = (np.array([number.get(plain(text), -1) for text in side], np.int64)
                        for side in (chunk.sentence1, chunk.sentence2))  # fmt: skip
            found.append(_keys(one, two, len(number))[(one >= 0) & (two >= 0)])
    return np.unique(np.concatenate(found))


def _keys(one: np.ndarray, two: np.ndarray, texts: int) -> np.ndarray:
    """A number for each pair of text numbers, (N,) and (N,) -> (N,) int64, the same in both orders."""
    import numpy as np

    keys: np.ndarray = np.minimum(one, two) * texts + np.maximum(one, two)
    return keys


def _unlabelled(one: np.ndarray, two: np.ndarray, labelled: np.ndarray, texts: int) -> np.ndarray:
    """Which of N pairs of text numbers have no label, (N,) and (N,) -> rows (R,): each pair once, no text with itself."""
    import numpy as np

    keys = _keys(one, two, texts)
    first = np.zeros(len(keys), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return np.flatnonzero(first & (one != two) & ~np.isin(keys, labelled))


def _pool(model: ConnectionBert, a: Texts, b: Texts, both_lists: bool) -> Pool:
    """The candidates: rows of A and B that are near each other, or the rows of a file of pairs."""
    import numpy as np

    from connection.search.suggestion import Pool
    from connection.search.top_k import top_k
    from connection.search.vectors import encode_texts

    vectors = []
    for number, side in enumerate((a, b), 1):
        encoded, cut = encode_texts(model, side.texts, number, what=side.path.name)
        vectors.append(encoded)
        texts = f"{len(side.texts):,} texts in column {printable(side.column)}"
        tell(f"texts  {printable(side.path.name)}: {texts}, {cut} cut at {model.max_length} tokens")
    u, v = vectors
    if both_lists:
        cosine, rows = top_k(u, v, NEAREST)
        if len(v) > NEAREST:  # else all pairs are there
            others = np.random.default_rng(0).integers(len(v), size=(len(u), AT_RANDOM))
            cosine = np.hstack([cosine, np.column_stack([(u * v[column]).sum(axis=1) for column in others.T])])
            rows = np.hstack([rows, others])
        one, two, cosine = np.repeat(np.arange(len(u)), rows.shape[1]), rows.ravel(), cosine.ravel()
    else:
        one = two = np.arange(len(u))
        cosine = (u * v).sum(axis=1)
    low, high = model.labels or (0, 1)
    predicted = (model.calibration.predicted_label(cosine, low, high) - low) / (high - low)
    return Pool(one, two, cosine, predicted, u, v)


def _rows(model: ConnectionBert, a: Texts, b: Texts, pool: Pool) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the pairs: the suite's own form, and after it the model's guess, and where the texts are from."""
    from connection.search.link_tables import names_of

    header = ["sentence1", "sentence2", "score", "predicted", "cosine"]
    header += [f"{'id' if side.ids is not None else 'line'}{number}" for number, side in ((1, a), (2, b))]
    guesses = [""] * len(pool)
    if model.labels and model.calibration.knots:
        guesses = [round(label, 2) for label in model.calibration.predicted_label(pool.cosine, *model.labels).tolist()]
    names, rows = [names_of(a), names_of(b)], []
    for one, two, guess, cosine in zip(pool.a.tolist(), pool.b.tolist(), guesses, pool.cosine.tolist(), strict=True):
        rows.append([a.texts[one], b.texts[two], "", guess, round(cosine, 4), names[0][one], names[1][two]])
    return header, rows


if __name__ == "__main__":
    sys.exit(main())
