# PYTHON_ARGCOMPLETE_OK
"""Show why two texts are similar for a model: what each pair of words adds to their cosine."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable, tell
from connection.system.flags import Flags
from connection.system.paths import expand, resolve
from connection.system.plain_files import open_plain, output_problem
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    from connection.search.explanation import Explanation
    from ConnectionBert import ConnectionBert

EXAMPLES = (
    'python -m tools.explain output/run "The porch locks at night." "Check that guests have no access at 23:00."',
    "python -m tools.explain output/run --row 1 --base transformers/bert/all-MiniLM-L6-v2 -o why.html",
)
ERRORS = "errors.csv"
SHOWN = 12
WIDTH = 100  # columns of the terminal


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 the page could not be written, 2 bad usage, model folder or text."""
    parser = Flags("python -m tools.explain", __doc__, EXAMPLES)
    parser.add_argument("model", help="a run's folder, its model/, or any BERT folder with mean or max pooling")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="the two texts")
    parser.add_argument("--row", type=int, metavar="N", help=f"instead of texts: the pair of rank N in the run's {ERRORS}")
    parser.add_argument("--base", default="", metavar="MODEL", help="another model: what is different from it, pair by pair")
    parser.add_argument("-o", "--output", metavar="FILE", help="write all pairs of words as a page, a heat map (.html)")
    parser.add_argument("--top", type=int, default=SHOWN, metavar="N", help=f"pairs of words shown (default: {SHOWN})")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON instead")
    given = parser.parse_intermixed_args(argv)  # texts may stand after flags
    return exit_status(lambda: explain_texts(given), failed="The page could not be written")


def explain_texts(given: argparse.Namespace) -> int:
    """Print the strongest pairs of words and each word's share; write -o. Returns the exit status."""
    target = _checked_usage(given)
    pair = _row(given.model, given.row) if given.row is not None else {}
    first, second = (pair["sentence1"], pair["sentence2"]) if pair else given.texts
    require_libraries()
    from connection.search.explanation import explain, require_words
    from connection.search.vectors import about
    from ConnectionBert import ConnectionBert

    models = [ConnectionBert.load(folder) for folder in (given.model, given.base) if folder]
    for model in models:
        tell(*about(model))
        require_words(model)
    explanation, base = [*(explain(model, first, second) for model in models), None][:2]
    assert explanation is not None
    change = explanation.minus(base) if base else None
    if target:
        from connection.search.explanation_page import write_page

        write_page(target, (first, second), explanation, base)
    if given.json:
        print(json.dumps(_as_json(models, pair, (first, second), explanation, base), indent=2, ensure_ascii=False))
    else:
        _show(models[0], pair, (first, second), explanation, base, change, given.top)
        if target:
            print(f"\nAll pairs of words, as a page for the browser: {printable(target)}")
    return 0


def _checked_usage(given: argparse.Namespace) -> Path | None:
    """Returns the file to write. Raises `InputError` for flags that can't be used together, and for a file that can't be."""
    problems = []
    if given.row is None and len(given.texts) != 2:
        problems.append(f"{len(given.texts)} texts were given: give two, each in quotes, or --row N of a run's {ERRORS}")
    if given.row is not None and given.texts:
        problems.append("give two texts, or --row N, not both")
    if given.row is not None and given.row < 1:
        problems.append(f"--row {given.row}: ranks in {ERRORS} begin at 1")
    if given.top < 1:
        problems.append(f"--top {given.top}: give 1 or more")
    target = expand(given.output) if given.output else None
    if target and (problem := output_problem(target)):
        problems.append(f"-o {problem}")
    elif target and target.suffix.lower() not in (".html", ".htm"):
        problems.append(f"-o {printable(target)}: a page is written; end its name in .html")
    if problems:
        raise InputError(problems[0]) if len(problems) == 1 else InputError.listing("These flags can't be used:", problems)
    return target


def _row(model: str, rank: int) -> dict[str, str]:
    """Returns the row of this rank in a run's errors.csv. Raises `InputError` if there is none."""
    import pandas as pd

    from connection.system.csv_output import from_cell

    folder = resolve(model)
    file = (folder if (folder / ERRORS).is_file() or folder.name != "model" else folder.parent) / ERRORS
    if not file.is_file():
        raise InputError(f"--row {rank}: {printable(file)} is not there; give the folder of a run that had dev or test pairs.")
    try:
        with open(open_plain(file), "rb") as stream:
            table = pd.read_csv(stream, nrows=rank, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        found = {name: from_cell(cell) for name, cell in table.iloc[rank - 1].items()} if len(table) == rank else {}
        known = found["rank"] == str(rank) and bool(found["sentence1"] and found["sentence2"]) if found else False
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{printable(file)} is not as a run writes it: {printable(error):.300}") from None
    if not found:
        raise InputError(f"--row {rank}: {printable(file)} has {len(table)} rows.")
    if not known:
        raise InputError(f"--row {rank}: {printable(file)} has no texts of that rank; give the two texts themselves.")
    return found


def _as_json(
    models: list[ConnectionBert],
    pair: dict[str, str],
    texts: tuple[str, str],
    explanation: Explanation,
    base: Explanation | None,
) -> dict[str, Any]:
    content = {"texts": list(texts), "cut": explanation.cut, "model": str(models[0].folder)} | explanation.as_json()
    if pair:
        content["row"] = {name: pair[name] for name in pair if name not in ("sentence1", "sentence2")}
    if base:
        content["base"] = {"model": str(models[1].folder)} | base.as_json()
    return content


def _show(
    model: ConnectionBert, pair: dict[str, str], texts: tuple[str, str], explanation: Explanation, base: Explanation | None,
    change: Explanation | None, top: int,
) -> None:  # fmt: skip
    """Print both texts, the cosine, the strongest pairs of words and each word's share."""
    from connection.search.explanation import shown

    if pair:
        facts = ("split", "line", "label", "predicted", "residual")
        print(f"row {pair['rank']}: " + ", ".join(f"{name} {printable(pair[name])}" for name in facts if name in pair))
    for text in texts:
        print(textwrap.shorten(printable(text), 3 * WIDTH, placeholder=" ..."))
    if explanation.cut:
        print(f"{explanation.cut} of the two texts cut at {model.max_length} tokens; the rest does not count")
    said = f"cosine {explanation.cosine:.4f}"
    print(f"\n{said}" + (f", base {base.cosine:.4f}, change {change.cosine:+.4f}" if base and change else ""))
    ordered = change or explanation
    places = ordered.strongest(top)
    what = "the pairs of words that changed most" if change else "the pairs of words that add or take away most"
    print(f"\n{what} ({len(places)} of {explanation.contributions.size}):")
    if base and change:
        print("    now    base  change")
    for place in places:
        numbers = [part.contributions[place] for part in (explanation, base, change) if part]
        both = f"{shown(explanation.first[place[0]])} | {shown(explanation.second[place[1]])}"
        print("".join(f"{number:+8.4f}" for number in numbers) + f"  {both}")
    for name, words, shares in zip(("first", "second"), (explanation.first, explanation.second), ordered.shares, strict=True):
        print(f"\n{'change of ' if change else ''}each word's share, {name} text:")
        listed = "  ".join(
            f"{shown(word)}\xa0{round(share, 3) + 0.0:+.3f}" for word, share in zip(words, shares.tolist(), strict=True)
        )
        filled = textwrap.fill(listed, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        print(filled.replace("\xa0", " "))  # textwrap leaves a word and its number together for it


if __name__ == "__main__":
    sys.exit(main())
