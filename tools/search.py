# PYTHON_ARGCOMPLETE_OK
"""Search a list of texts for those nearest to a query. The texts are encoded once, to an index beside the list."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable, tell
from connection.system.flags import Flags, add_encoder_flags
from connection.system.paths import expand, resolve
from connection.system.plain_files import output_problem
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    import numpy as np

    from connection.search.texts import Texts
    from connection.search.vectors import Encoder

EXAMPLES = (
    'python -m tools.search output/run tests.csv "the door shall lock"',
    "python -m tools.search output/run tests.csv --queries requirements.csv -o found.csv",
)
QUERIES_AT_ONCE = 10_000
HEADER = ("query", "query text", "rank", "cosine", "predicted", "row", "id", "text")


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 a file could not be written, 2 bad usage, model folder or file."""
    parser = Flags("python -m tools.search", __doc__ or "", EXAMPLES)
    parser.add_argument("model", help="a run's folder, its model/, or any BERT folder")
    parser.add_argument("corpus", help="a list of texts: a file in any form of the data reader")
    parser.add_argument("query", nargs="?", help="what to look for; without it, and without --queries, you are asked")
    parser.add_argument("--queries", metavar="FILE", help="a list of queries")
    parser.add_argument("-o", "--output", metavar="FILE", help="what was found for --queries, as CSV (default: stdout)")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="texts for each query (default: 10)")
    parser.add_argument("--index", metavar="FOLDER", help="where the vectors are kept (default: CORPUS.index)")
    parser.add_argument("--column", default="", help="name or number of the corpus's column of texts")
    parser.add_argument("--id", default="", metavar="COLUMN", help="name or number of its column of ids")
    parser.add_argument("--query-column", default="", metavar="COLUMN", help="name or number of the queries' column")
    parser.add_argument("--approximate", action="store_true", help="through faiss: faster above a million texts, not exact")
    parser.add_argument("--json", action="store_true", help="print what was found as a line of JSON for each query")
    add_encoder_flags(parser)
    given = parser.parse_args(argv)
    return exit_status(lambda: search(given), failed="What was found could not be written")


def search(given: argparse.Namespace) -> int:
    """Open or make the index, and answer the queries. Returns the exit status."""
    target = _checked_usage(given)
    require_libraries()
    from connection.search.index import open_index
    from connection.search.texts import read_texts
    from connection.search.top_k import top_k
    from connection.search.vectors import about, load_encoder

    source = resolve(given.corpus)
    corpus = read_texts(source, given.column, given.id)
    queries = read_texts(resolve(given.queries), given.query_column, flags=("--query-column", "")) if given.queries else None
    model = load_encoder(given.model, given.backend, given.device)
    tell(*about(model))
    folder = expand(given.index) if given.index else source.with_name(f"{source.name}.index")
    index = open_index(folder, model, corpus.texts)
    tell(
        f"index  {printable(folder)}: {len(corpus.texts):,} texts of column {printable(corpus.column)}, "
        f"{len(index.vectors):,} distinct, {index.new:,} encoded now, {index.cut:,} of them cut at {model.max_length} tokens"
    )

    def find(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return top_k(vectors, index.vectors, given.top)

    if given.approximate:
        from connection.search.approximate import open_graph, recall, search_graph

        graph = open_graph(index)
        tell(f"faiss  recall@10 on a sample of the corpus: {100 * recall(graph, index):.1f}%")
        nearest = min(given.top, len(index.vectors))

        def find(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return search_graph(graph, vectors, nearest)

    finder = Finder(model, corpus, index.rows, find, given.top)
    if queries:
        return _answer_all(finder, queries, target, given.json)
    if given.query:
        _answer(finder, given.query, given.json)
        return 0
    tell("Type a query, and Enter; an empty line ends.")
    while query := _asked():
        _answer(finder, query, given.json)
    return 0


class Finder:
    """Answers queries: encodes them, finds the nearest distinct texts, and names the rows of the corpus that hold them."""

    def __init__(
        self,
        model: Encoder,
        corpus: Texts,
        rows: np.ndarray,
        find: Callable[..., tuple[np.ndarray, np.ndarray]],
        top: int,
    ):
        import numpy as np

        self.model, self.corpus, self.find, self.top = model, corpus, find, top
        self.order = np.argsort(rows, kind="stable")  # the corpus's rows by their distinct text
        self.starts = np.searchsorted(rows[self.order], np.arange(rows.max() + 2))
        self.cut = 0

    def __call__(self, names: list[str], queries: list[str]) -> list[list[dict[str, Any]]]:
        """Returns the `top` rows for each query, as {key of `HEADER`: cell}; equal texts in the corpus's order."""
        from connection.search.vectors import encode_texts

        vectors, cut = encode_texts(self.model, queries, 1, what="queries")
        self.cut += cut
        scores, found = self.find(vectors)
        labels = None
        if self.model.labels and self.model.calibration.knots:
            labels = self.model.calibration.predicted_label(scores, *self.model.labels)
        answers = []
        for number, (name, query) in enumerate(zip(names, queries, strict=True)):
            places = [
                (int(row), column)
                for column, text in enumerate(found[number].tolist())
                if text >= 0
                for row in self.order[self.starts[text] : self.starts[text + 1]][: self.top]
            ][: self.top]
            answers.append([
                {
                    "query": name, "query text": query, "rank": rank, "cosine": round(float(scores[number, column]), 4),
                    "predicted": None if labels is None else round(float(labels[number, column]), 2),
                    "row": self.corpus.rows[row], "id": self.corpus.ids[row] if self.corpus.ids else "",
                    "text": self.corpus.texts[row],
                }
                for rank, (row, column) in enumerate(places, 1)
            ])  # fmt: skip
        return answers


def _answer_all(finder: Finder, queries: Texts, target: Path | None, as_json: bool) -> int:
    """Write the answers to all queries."""
    from connection.search.row_files import print_rows
    from connection.system.csv_output import new_csv

    names = queries.ids or [str(row) for row in queries.rows]

    def answers() -> Iterator[list[dict[str, Any]]]:
        for start in range(0, len(names), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            yield from finder(names[part], queries.texts[part])

    def rows() -> Iterator[list[Any]]:
        yield list(HEADER)
        for answer in answers():
            yield from ([found[key] if found[key] is not None else "" for key in HEADER] for found in answer)

    if as_json:
        for answer in answers():
            print(json.dumps(answer, ensure_ascii=False))
    elif target:
        with new_csv(target) as output:
            output.rows(rows())
        tell(f"{printable(target)}: the {finder.top} nearest of {len(names):,} queries")
    else:
        print_rows(rows())
    tell(f"{finder.cut:,} queries cut at {finder.model.max_length} tokens")
    return 0


def _answer(finder: Finder, query: str, as_json: bool) -> None:
    """Print the answer to one query, and say if the query was cut."""
    before = finder.cut
    _show(finder(["1"], [query])[0], as_json)
    if finder.cut > before:
        tell(f"the query was cut at {finder.model.max_length} tokens")


def _show(answer: list[dict[str, Any]], as_json: bool) -> None:
    """Print the answer to one query."""
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
        return
    for found in answer:
        predicted = "" if found["predicted"] is None else f"  {found['predicted']:5.2f}"
        name = printable(found["id"] or f"row {found['row']}")
        print(f"{found['rank']:3}  {found['cosine']:.4f}{predicted}  {name}: {printable(found['text'])}")


def _asked() -> str:
    """Returns the next line that is typed, "" at the end."""
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _checked_usage(given: argparse.Namespace) -> Path | None:
    """Returns the file to write. Raises `InputError` for flags that contradict, and for a file that can't be written."""
    problems = []
    if given.top < 1:
        problems.append(f"--top {given.top}: give 1 or more")
    if given.query is not None and not given.query.strip():
        problems.append("the query is empty")
    if given.query and given.queries:
        problems.append("give a query or --queries, not both")
    if given.output and not given.queries:
        problems.append("-o goes with --queries")
    target = expand(given.output) if given.output else None
    inputs = [resolve(name) for name in (given.corpus, given.queries) if name]
    if target and (problem := output_problem(target, inputs)):
        problems.append(f"-o {problem}")
    if problems:
        raise InputError("\n".join(problems))
    return target


if __name__ == "__main__":
    sys.exit(main())
