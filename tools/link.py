# PYTHON_ARGCOMPLETE_OK
"""Link two lists: which rows of A connect to which rows of B. With A alone, find the rows of A that say the same."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import sys
from collections import Counter
from pathlib import Path

from connection.search.sharing import shared_encoding
from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable
from connection.system.flags import Flags, add_encoder_flags
from connection.system.paths import expand, resolve
from connection.system.plain_files import output_problem
from connection.system.versions import require_libraries

EXAMPLES = (
    "python -m tools.link output/run requirements.csv tests.xlsx -o links.csv --html review.html",
    "python -m tools.link output/run tickets.csv -o duplicates.csv --threshold 0.9",
)
UNCOVERED = "uncovered.csv"
FILES = {
    "--output": "the candidates",
    UNCOVERED: "the rows without a link, each with its best candidate",
    "--html": "a page to accept and reject them with the keyboard: open it in a browser",
}
SHOWN = 3  # ids that repeat, rows of --known that are not used


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 a file could not be written, 2 bad usage, model folder or list."""
    parser = Flags("python -m tools.link", __doc__, EXAMPLES)
    parser.add_argument("model", help="a run's folder, its model/, or any BERT folder")
    parser.add_argument("a", metavar="A", help="a list of texts: a file in any form of the data reader")
    parser.add_argument("b", metavar="B", nargs="?", help="the other list; without it, A is compared with itself")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help=f"the candidates, as CSV; beside it {UNCOVERED} (default: stdout)"
    )
    parser.add_argument("--html", metavar="FILE", help="a page on which to accept and reject the candidates")
    parser.add_argument("--json", metavar="FILE", help="counts and figures for a program")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="candidates of each row of A (default: 5)")
    parser.add_argument("--threshold", type=float, metavar="COSINE", help="connected from here on (default: the model's own)")
    rule = parser.add_mutually_exclusive_group()
    for name, meaning in (
        ("one-to-one", "each row is in one link at most: the best assignment of all"),
        ("mutual", "links are the pairs that are each other's best"),
    ):
        rule.add_argument(f"--{name}", dest="rule", action="store_const", const=name, default="", help=meaning)
    for side in "ab":
        name = side.upper()
        parser.add_argument(
            f"--column-{side}", default="", metavar="COLUMN", help=f"name or number of {name}'s column of texts"
        )
        parser.add_argument(f"--id-{side}", default="", metavar="COLUMN", help=f"name or number of {name}'s column of ids")
    parser.add_argument("--other-columns", action="store_true", help="keep the lists' other columns in the output")
    parser.add_argument("--known", action="append", default=[], metavar="FILE", help="pairs known already, by id or by text")
    parser.add_argument(
        "--known-as",
        choices=("mark", "exclude", "evaluate"),
        default="mark",
        help="mark them, leave them out, or measure the links against them (default: mark)",
    )
    add_encoder_flags(parser)
    given = parser.parse_args(argv)
    return exit_status(lambda: shared_encoding(given, lambda: link(given)), failed="The links could not be written")


def link(given: argparse.Namespace) -> int:
    """Write the candidates and what was asked for beside them; print what was found. Returns the exit status."""
    outputs = checked_usage(given)
    require_libraries()
    from connection.search.known_links import NONE_KNOWN, named_rows, read_known
    from connection.search.link_tables import LinkedLists, names_of
    from connection.search.linking import ALL_PAIRS, decision_threshold, find_links
    from connection.search.review import write_review
    from connection.search.row_files import print_rows
    from connection.search.texts import read_texts
    from connection.search.vectors import about, encode_texts, load_encoder
    from connection.system.atomic_files import write_json
    from connection.system.csv_output import new_csv

    tell = functools.partial(print, file=sys.stdout if given.output else sys.stderr)  # stdout may hold the candidates
    a = read_texts(resolve(given.a), given.column_a, given.id_a, given.other_columns, ("--column-a", "--id-a"))
    flags_b = ("--column-b", "--id-b")
    b = read_texts(resolve(given.b), given.column_b, given.id_b, given.other_columns, flags_b) if given.b else None
    model = load_encoder(given.model, given.backend, given.device)
    tell(*about(model), sep="\n")
    known = NONE_KNOWN
    if given.known:
        one, two = (named_rows(names_of(side), side.texts) for side in (a, b or a))
        known = read_known([resolve(name) for name in given.known], one, two, len((b or a).texts), model.labels)
        tell(f"known  {len(known.links)} links, {len(known.others)} pairs that are none; {len(known.unused)} rows not used")
        for text in known.unused[:SHOWN]:
            tell(f"       not used: {printable(text)}")
    vectors, cut = [], []
    for number, side in enumerate(filter(None, (a, b)), 1):
        encoded, too_long = encode_texts(model, side.texts, number, what=side.path.name)
        vectors.append(encoded)
        cut.append(too_long)
        column = f"{len(side.texts)} texts in column {printable(side.column)}"
        tell(f"list   {printable(side.path.name)}: {column}, {too_long} cut at {model.max_length} tokens")
        if repeated := [name for name, count in Counter(side.ids or ()).items() if count > 1]:
            shown = ", ".join(repeated[:SHOWN])
            tell(f"       {printable(side.path.name)}: {len(repeated)} ids are there more than once ({printable(shown)})")
    threshold, source = given.threshold, ""
    if threshold is None:
        threshold, source = decision_threshold(model.calibration, model.labels)
    rule = rule_in_words(given.rule, threshold, source, within=len(a.texts) * len((b or a).texts) <= ALL_PAIRS)
    tell(f"rule   {rule}")
    found = find_links(vectors[0], vectors[1] if b else None, given.top, threshold, given.rule, known, given.known_as)
    predicted = None
    if model.labels and model.calibration.knots:
        predicted = model.calibration.predicted_label(found.candidates.cosine, *model.labels)
    lists = LinkedLists(a, b, found, predicted, known, known_counts=given.known_as != "evaluate")
    for target, rows in ((outputs["--output"], lists.candidate_rows), (outputs[UNCOVERED], lists.uncovered_rows)):
        if target:
            with new_csv(target) as output:
                output.rows(rows())
    if not outputs["--output"]:
        print_rows(lists.candidate_rows())
    if outputs["--html"]:
        write_review(outputs["--html"], lists, model.labels, threshold, f"model {given.model}; connected: {rule}")
    tell("", *lists.summary(given.top), sep="\n")
    for flag, what in FILES.items():
        if outputs[flag]:
            tell(f"{printable(outputs[flag])}: {what}")
    if outputs["--json"]:
        more = {"model": str(model.folder), "threshold": threshold, "rule": rule, "cut": sum(cut), "figures": found.figures}
        write_json(outputs["--json"], lists.counts() | more)
    return 0


def checked_usage(given: argparse.Namespace) -> dict[str, Path | None]:
    """Returns the files to write, by flag. Raises `InputError` for flags that contradict, and files that can't be written."""
    problems = []
    if given.top < 1:
        problems.append(f"--top {given.top}: give 1 or more")
    if given.threshold is not None and not (math.isfinite(given.threshold) and -1 <= given.threshold <= 1):
        problems.append(f"--threshold {given.threshold}: a cosine is from -1 to 1")
    if not given.b:
        problems += [f"{flag} needs a second list" for flag, value in
                     (("--one-to-one", given.rule == "one-to-one"), ("--column-b", given.column_b), ("--id-b", given.id_b))
                     if value]  # fmt: skip
    if given.rule == "one-to-one" and importlib.util.find_spec("scipy") is None:
        problems.append("--one-to-one needs scipy. Type: pip install -r requirements-search.txt")
    if given.known_as != "mark" and not given.known:
        problems.append(f"--known-as {given.known_as} needs --known FILE")
    names = {"--output": given.output, "--html": given.html, "--json": given.json}
    outputs = {flag: expand(name) if name else None for flag, name in names.items()}
    outputs[UNCOVERED] = outputs["--output"].parent / UNCOVERED if outputs["--output"] and given.b else None
    inputs = [resolve(name) for name in (given.a, given.b, *given.known) if name]
    places: dict[Path, str] = {}
    for flag, target in outputs.items():
        if target is None:
            continue
        if problem := output_problem(target, inputs):
            problems.append(f"{flag} {problem}")
        elif (other := places.setdefault(target.resolve(), flag)) != flag:
            problems.append(f"{flag} and {other} are the same file, {printable(target)}")
    if problems:
        raise InputError(problems[0] if len(problems) == 1 else "\n".join(problems))
    return outputs


def rule_in_words(rule: str, threshold: float | None, source: str, within: bool) -> str:
    """Returns which candidates are links. source: where the threshold is from; within: one-to-one looks at all pairs."""
    from connection.search.linking import NEAREST

    if threshold is not None:
        words = f"cosine {threshold:.4f} or more" + (f" ({source})" if source else "")
    else:
        words = "as many rows as possible" if rule == "one-to-one" else "the best candidate of each row"
        words += " (the model has no threshold: give --threshold)"
    if rule == "one-to-one":
        return f"{words}; one-to-one: the best of {'all pairs' if within else f'{NEAREST} candidates a row'}"
    return f"{words}; each other's best" if rule else words


if __name__ == "__main__":
    sys.exit(main())
