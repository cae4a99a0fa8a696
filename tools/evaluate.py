# PYTHON_ARGCOMPLETE_OK
"""Evaluate a model on labelled pairs: correlations with 95% intervals, and further figures that the labels allow.

On pairs without labels, and on triplets: retrieval, each first sentence among all second ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.data.label_words import parse_label_map
from connection.settings_reader import check_values
from connection.system.devices import pick_device
from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable
from connection.system.flags import Flags
from connection.system.paths import expand, resolve
from connection.system.plain_files import is_link
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from connection.data.agreement import Agreement
    from connection.data.pair_file import PairFile
    from connection.evaluation.evaluate import LabelledPairs
    from connection.model.calibration import Calibration
    from ConnectionBert import ConnectionBert

KINDS = ("spearman", "pearson")  # of correlation
PEER = "sentence-transformers"


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 the figures could not be written, 2 bad usage, model folder or file."""
    parser = Flags(
        "python -m tools.evaluate",
        __doc__,
        (
            "python -m tools.evaluate output/run my_test.csv",
            "python -m tools.evaluate output/run my_test.csv --base output/other-run",
        ),
    )
    parser.add_argument("model", help="folder of the model: a run's model/, or any BERT folder")
    parser.add_argument("files", nargs="+", metavar="FILE", help="pair files, or folders of them")
    parser.add_argument("--base", default="", metavar="MODEL", help="another model to compare with, by paired bootstrap")
    parser.add_argument("--similarity", default="cosine", help="cosine,dot,euclidean,manhattan: those asked (default: cosine)")
    parser.add_argument(
        "--dev-file", default="", help="pairs to fit threshold and calibration on (default: as the model has them)"
    )
    parser.add_argument("--columns", default="", help="sentence1=NAME,sentence2=NAME,label=NAME (or 1-based numbers)")
    parser.add_argument("--sheet", default="", help="sheet of a workbook, by name or number (default: found by itself)")
    parser.add_argument("--header-row", metavar="N", default=0, help="row of the column names (default: found by itself)")
    parser.add_argument("--label-min", type=float, help="label that means no connection (default: of the model, else the file)")
    parser.add_argument("--label-max", type=float, help="label that means full connection (default: likewise)")
    parser.add_argument("--label-map", default="", metavar="TEXT", help="numbers of label words: low=0,medium=0.5,high=1")
    parser.add_argument("--on-bad-rows", choices=("stop", "skip"), default="stop", help="skip: leave bad rows out")
    parser.add_argument("--cache-dir", default="output/cache", help="where tokens of large files are kept")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPU if there is one")
    parser.add_argument("--json", default="", metavar="FILE", help="write all figures to this file")
    parser.add_argument(
        "--format", choices=(PEER,), help="also write similarity_evaluation_NAME_results.csv of each file, as that library does"
    )
    parser.add_argument("-o", "--output", default=".", metavar="FOLDER", help="where --format writes (default: this folder)")
    given = parser.parse_args(argv)
    return exit_status(lambda: evaluate_files(given), failed="The figures could not be written")


def evaluate_files(given: argparse.Namespace) -> int:
    """Print a table of all files and, for each file, the further figures; write --json. Returns the exit status."""
    require_libraries()
    from connection.data.evaluation_files import expand_folders
    from connection.data.pair_file import PairFile
    from connection.evaluation.similarity import SIMILARITIES
    from connection.reports.tables import render
    from connection.search.vectors import about
    from connection.system.atomic_files import plain_json, write_json
    from ConnectionBert import ConnectionBert

    names = [name.strip() for name in given.similarity.split(",")]
    if unknown := [name for name in names if name not in SIMILARITIES]:
        raise InputError(f"--similarity: {', '.join(map(repr, unknown))}: give some of {', '.join(SIMILARITIES)}")
    parse_label_map(given.label_map)  # raises InputError
    if not all(math.isfinite(end) for end in (given.label_min, given.label_max) if end is not None):
        raise InputError("--label-min and --label-max: give finite numbers")
    values, wrong = check_values({"header_row": given.header_row})
    if wrong:
        raise InputError(wrong[0])
    header_row = values["header_row"]
    target = expand(given.json) if given.json else None
    stream = bool(target and target.exists() and not target.is_file())  # a pipe, /dev/stdout
    if target and (target.is_dir() or not target.parent.is_dir() or (is_link(target) and not stream)):
        raise InputError(f"--json {target}: it should be a file, not a link, in a folder that is there")
    names = list(dict.fromkeys(names))
    device = pick_device(given.device)
    folders = {"model": given.model} | ({"base": given.base} if given.base else {})
    models = {name: ConnectionBert.load(folder).to(device) for name, folder in folders.items()}
    opened, problems = [], []
    files = expand_folders(given.files)
    exports = _exports(files, expand(given.output)) if given.format else []
    inputs = [*files, *map(resolve, folders.values()), *([resolve(given.dev_file)] if given.dev_file else [])]
    if target and any(target.resolve().is_relative_to(path) for path in inputs):
        raise InputError(f"--json {target} would replace what is evaluated: give another file")
    for path in files:
        try:
            opened.append(PairFile.open(path, given.columns, given.sheet, header_row, given.label_map))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    for model in models.values():
        print(*about(model), sep="\n")
    fitted = {name: (model.calibration, model.labels) for name, model in models.items()}
    if given.dev_file:
        dev = PairFile.open(resolve(given.dev_file), given.columns, given.sheet, header_row, given.label_map)
        fitted = {name: _fit(model, dev, given) for name, model in models.items()}
    rows = [_evaluate(models, fitted, file, given, names) for file in opened]
    if given.format and any(_kinds(row["model"][names[0]]) != KINDS for row in rows):
        raise InputError(f"--format {PEER} writes correlations, and pairs without labels have none")
    if len({_kinds(row["model"][names[0]]) for row in rows}) > 1:
        raise InputError("some of the files have labels and others have none: evaluate them one after the other")
    table, mean = overview(rows)
    print("", render(table), sep="\n")
    print(*details(rows), sep="\n")
    if target:
        content = {name: str(model.folder) for name, model in models.items()} | {"files": rows, "mean": mean}
        if stream:
            target.write_text(json.dumps(plain_json(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            write_json(target, content)
    for export, row in zip(exports, rows, strict=True) if exports else ():
        _write_export(export, row["model"])
    return 0


def _exports(files: list[Path], folder: Path) -> list[Path]:
    """Return the file of --format for each pair file. Raises `InputError` if two have one name, or one is there already."""
    if not folder.is_dir():
        raise InputError(f"--output {folder} is no folder that is there")
    names = [Path(re.sub(r"\.(gz|bz2|xz|zip)$", "", file.name, flags=re.IGNORECASE)).stem for file in files]
    exports = [folder / f"similarity_evaluation_{name}_results.csv" for name in names]
    if len(set(exports)) < len(exports):
        raise InputError(f"--format {PEER}: two of the pair files have one name; evaluate them one after the other")
    if there := [export for export in exports if export.exists() or is_link(export)]:
        raise InputError(f"{there[0]} is there already: give another folder, --output FOLDER")
    return exports


def _write_export(target: Path, found: dict[str, Any]) -> None:
    """Write a file's correlations as sentence-transformers' EmbeddingSimilarityEvaluator does outside of a training."""
    from connection.system.csv_output import new_csv

    columns = {f"{name}_{kind}": found[name][kind] for name in found for kind in reversed(KINDS)}
    with new_csv(target, encoding="utf-8") as output:
        output.rows([["epoch", "steps", *columns], [-1, -1, *columns.values()]])
    print(f"\nAs {PEER} writes it: {printable(target)}")


def _similarities(
    model: ConnectionBert, file: PairFile, given: argparse.Namespace, of_model: tuple[float, float] | None, names: list[str]
) -> tuple[LabelledPairs, dict[str, np.ndarray], str, Agreement | None]:
    """Return a file's pairs, a model's similarities of them by name, a remark on how the file was read, and the agreement of
    its annotators, if it has several."""
    from connection.data.evaluation_files import read_scored
    from connection.evaluation.evaluate import LabelledPairs
    from connection.evaluation.retrieval import search_answers
    from connection.evaluation.similarity import pair_similarities

    declared, cache = (given.label_min, given.label_max), resolve(Path(given.cache_dir))
    store, scale = read_scored(
        file, model.tokenizer, model.max_length, declared, of_model, cache, skip_bad=given.on_bad_rows == "skip"
    )
    cut = store.cut_sentences
    remark = f"labels {scale}; {cut} sentences cut at {model.max_length} tokens; {len(store.bad)} bad rows left out"
    if not scale.is_retrieval:
        return LabelledPairs.of(store, scale), pair_similarities(model, store, names=names), remark, store.agreement
    if names != ["cosine"]:
        raise InputError(f"--similarity: pairs without labels, as in {file.path}, are searched by cosine alone")
    everywhere = slice(None)
    found = search_answers(model, store, everywhere, store.label == scale.high, "encode")
    return LabelledPairs.of(store, scale), {"cosine": found}, remark.replace("labels ", "", 1), store.agreement


def _fit(model: ConnectionBert, dev: PairFile, given: argparse.Namespace) -> tuple[Calibration, tuple[float, float] | None]:
    """Return the calibration of a model fitted on --dev-file, and its label scale."""
    from connection.evaluation.calibration import fit_calibration

    pairs, similarity, *_ = _similarities(model, dev, given, model.labels, ["cosine"])
    return fit_calibration(similarity["cosine"], pairs.label, pairs.scale), (pairs.scale.low, pairs.scale.high)


def _evaluate(
    models: dict[str, ConnectionBert],
    fitted: dict[str, tuple[Calibration, tuple[float, float] | None]],
    file: PairFile,
    given: argparse.Namespace,
    names: list[str],
) -> dict[str, Any]:
    """Return all figures of one file: {"file", "pairs", "understood", "model": {similarity: figures}, "base", "gain", ...}.

    A fitted calibration is used only if the file's labels are on the scale that it was fitted on.
    """
    from connection.evaluation.bootstrap import intervals, resampled
    from connection.evaluation.evaluate import evaluate, with_intervals

    row: dict[str, Any] = {"file": str(file.path)}
    found: dict[str, dict[str, np.ndarray]] = {}
    for who, model in reversed(models.items()):
        # One scale for both models' figures: that of the evaluated model's calibration.
        pairs, found[who], remark, agreement = _similarities(model, file, given, fitted["model"][1], names)
        known, scale = fitted[who]
        usable = known if scale == (pairs.scale.low, pairs.scale.high) else None
        row[who] = {name: evaluate(pairs, values, usable if name == "cosine" else None) for name, values in found[who].items()}
    row |= {"pairs": len(pairs.label), "label_min": pairs.scale.low, "label_max": pairs.scale.high, "understood": remark}
    if agreement:
        row["agreement"] = dataclasses.asdict(agreement)
    if "base" not in models:
        for name, values in found["model"].items():
            if pairs.scale.is_retrieval:  # compared with itself, for its interval
                with_intervals(pairs, {**row["model"][name]}, values, row["model"][name], values)
            else:
                row["model"][name] |= intervals(resampled(pairs.rising, [values])[:, 0])
        return row
    row["gain"] = {
        name: with_intervals(pairs, row["base"][name], found["base"][name], row["model"][name], found["model"][name])
        for name in names
    }
    return row


def overview(rows: list[dict[str, Any]]) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Return the table, a row for each file and similarity, and the means over the files, {similarity: {figure: mean}}.

    All files have labels, or none has. A figure's mean is undefined if the figure is undefined for one of the files.
    """
    import numpy as np
    import pandas as pd

    lines, means = [], {}
    for similarity in rows[0]["model"]:
        for row in rows:
            gain = row.get("gain", {}).get(similarity)
            figures = [row[who][similarity] for who in ("model", "base") if who in row]
            lines.append({"file": Path(row["file"]).name} | _line(similarity, figures, gain))
        kinds = _kinds(rows[0]["model"][similarity])
        mean = {kind: float(np.mean([row["model"][similarity][kind] for row in rows])) for kind in kinds}
        base = {}
        if "base" in rows[0]:
            base = {kind: float(np.mean([row["base"][similarity][kind] for row in rows])) for kind in kinds}
        means[similarity] = mean | {f"base_{kind}": value for kind, value in base.items()}
        if len(rows) > 1:
            total = {"pairs": sum(row["pairs"] for row in rows)}
            lines.append({"file": f"mean of {len(rows)}"} | _line(similarity, [mean | total, base], None))
    return pd.DataFrame(lines).fillna(""), means


def _kinds(figures: dict[str, Any]) -> tuple[str, ...]:
    """Return the figures of the table; the first one is that of the gain."""
    return ("mrr",) if "mrr" in figures else KINDS


def _line(similarity: str, figures: list[dict[str, Any]], gain: dict[str, Any] | None) -> dict[str, Any]:
    """Return a row of the table. `figures`: the model's and, if there is a base model, its figures."""
    from connection.reports.tables import METRIC_FORMATS, format_number, gain_keys

    model, base = (*figures, {})[:2]
    line = {"similarity": similarity, "pairs": model["pairs"]}
    kinds = _kinds(model)
    for kind in kinds:
        title = METRIC_FORMATS[kind][0]
        line[title] = format_number(100 * model[kind], "{:.2f}")
        line[f"95% of {title.removesuffix(' x 100')}"] = _range(model, f"{kind}_low", f"{kind}_high", "{:.2f}")
    if base:
        measure, low, high, p = gain_keys(kinds[0])
        line[f"base {METRIC_FORMATS[measure][0].removesuffix(' x 100')}"] = format_number(100 * base[measure], "{:.2f}")
        line["gain"] = format_number(100 * (model[measure] - base[measure]), "{:+.2f}")
        line["95% of gain"] = _range(gain or {}, low, high, "{:+.2f}")
        line["p"] = format_number(gain[p], "{:.4f}") if gain else ""
    return line


def _range(figures: dict[str, Any], low: str, high: str, form: str) -> str:
    from connection.reports.tables import format_number

    return f"{format_number(100 * figures[low], form)} to {format_number(100 * figures[high], form)}" if low in figures else ""


def details(rows: list[dict[str, Any]]) -> list[str]:
    """Return, for each file, remark and gain as text; for its first similarity, the further figures and calibration curve."""
    from connection.data.agreement import Agreement
    from connection.reports.tables import curve_table, figures_table, gain_sentence, render

    parts = []
    for row in rows:
        name = Path(row["file"]).name
        parts.append(f"\n{name}: {row['understood']}")
        parts += [str(Agreement(**row["agreement"]))] if "agreement" in row else []
        parts += [
            gain_sentence(gain, "The model", f"against the base on {name}" + (f" ({kind})" if kind != "cosine" else ""))
            for kind, gain in row.get("gain", {}).items()
        ]
        first = next(iter(row["model"]))
        columns: dict[str, dict[str, Any]] = {who: row[who][first] for who in ("base", "model") if who in row}
        if any(key in columns["model"] for key in ("binary", "graded", "ranking", "retrieval")):
            parts.append(render(figures_table(columns)))
        if curve := columns["model"].get("calibration"):
            parts += ["What a cosine stands for, fitted on dev, and how these pairs are labelled:", render(curve_table(curve))]
    return parts


if __name__ == "__main__":
    sys.exit(main())
