# PYTHON_ARGCOMPLETE_OK
"""Export a model's encoder as a graph for onnxruntime or OpenVINO, in fp32 or int8, and measure what that changes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.export.encoder import FORMATS
from connection.system.errors import InputError, RunError, exit_status
from connection.system.escapes import printable, tell
from connection.system.flags import Flags
from connection.system.paths import resolve
from connection.system.plain_files import is_link
from connection.system.versions import require_libraries

if TYPE_CHECKING:
    from connection.export.verification import Pairs
    from ConnectionBert import ConnectionBert

EXAMPLES = (
    "python -m tools.export output/run --format onnx-int8",
    'python -m tools.score output/run "one sentence" "another" --backend onnx-int8',
)
MAX_LOSS = 0.3  # points of Spearman x 100
ERRORS = "errors.csv"  # of a run
LEAST_GAIN = 1.1  # of int8's speed over fp32's: below it, int8 does not pay


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 too much was lost or nothing could be written, 2 bad usage, model folder or file."""
    parser = Flags("python -m tools.export", __doc__ or "", EXAMPLES)
    parser.add_argument("model", help="a run's folder, its model/, or any BERT folder")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="(default: onnx, in fp32)")
    parser.add_argument("--pairs", metavar="FILE", help="labelled pairs to measure on (default: the run's dev and test pairs)")
    parser.add_argument("--columns", default="", help="of --pairs: sentence1=NAME,sentence2=NAME,label=NAME (or numbers)")
    parser.add_argument("--max-loss", type=float, default=MAX_LOSS, metavar="POINTS",
                        help=f"points of Spearman x 100 that may be lost (default: {MAX_LOSS})")  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FOLDER", help="the exported folder (default: in the model's, by its format)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args(argv)
    return exit_status(lambda: export(given), failed="The model was not exported")


def export(given: argparse.Namespace) -> int:
    """Write the exported folder, or refuse. Returns the exit status."""
    if not 0 <= given.max_loss <= 100:
        raise InputError(f"--max-loss {given.max_loss:g}: give points of Spearman x 100, from 0 to 100")
    require_libraries()
    _require_exporters(given.format)
    from connection.export.encoder import ExportedEncoder
    from connection.export.verification import compare, exported_encode, speeds, torch_encode
    from connection.export.writing import keep_graph, write_graphs, write_settings, write_tokenizer
    from connection.model.checks.model_folder import model_of
    from connection.search.vectors import about
    from connection.system.atomic_files import atomic_folder, remove_leftovers
    from ConnectionBert import ConnectionBert

    source = resolve(given.model)
    folder = model_of(source)
    target = resolve(given.output) if given.output else folder / given.format
    if is_link(target) or (target.exists() and not (target / "export.json").is_file()):
        raise InputError(f"-o {printable(target)} is there and is no exported model: give another name")
    remove_leftovers(target.parent, re.escape(target.name))
    model = ConnectionBert.load(folder)
    tell(*about(model))
    choose, measure = _pairs(given, model, source)
    exact = has_exact_int8()
    runtime = given.format.removesuffix("-int8")
    with atomic_folder(target) as new:
        write_tokenizer(model, new)
        settings = write_settings(model, new, given.format)
        graphs, figures = write_graphs(model, new, settings, given.format, choose, exact, _bar)
        encoders = {name: exported_encode(ExportedEncoder(new, settings, graph, 1)) for name, graph in graphs.items()}
        encoders = {"PyTorch": torch_encode(model)} | encoders
        pairs = measure or choose
        speed = speeds(encoders, pairs.sides(model.one_prompt)[0][1]) if pairs else {}
        pays = len(graphs) == 1 or speed[given.format] >= LEAST_GAIN * speed[runtime]
        kept = given.format if pays else runtime
        if measure:
            found = compare(encoders["PyTorch"], encoders[kept], measure)
            figures |= dataclasses.asdict(found) | {"loss": found.loss, "measured_on": measure.name}
            if found.loss > given.max_loss:
                raise RunError(
                    f"{found.loss:.2f} points of Spearman x 100 are lost on {measure.name} ({found.before:.2f} -> "
                    f"{found.after:.2f}), more than --max-loss {given.max_loss:g}. --format onnx loses none"
                )
        del encoders  # closes the files
        keep_graph(graphs[kept], given.format)
        size = sum(path.stat().st_size for path in new.iterdir()) / 1e6
        figures |= {"texts_per_second": speed, "megabytes": size, "pays": pays}
        write_settings(model, new, given.format if pays else f"{runtime} (int8 did not pay)", figures)
    _show(given, model, target, figures, choose, exact)
    return 0


def has_exact_int8() -> bool:
    """Returns whether this processor adds products of 8 bits without overflow: VNNI or AMX, or none of x86."""
    import torch

    has = torch.cpu.get_capabilities()
    return has.get("architecture") != "x86_64" or any(has.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def _require_exporters(kind: str) -> None:
    from importlib.util import find_spec

    runtime = "openvino" if kind.startswith("openvino") else "export"
    needed = {"export": ("onnx", "onnxruntime", "onnxscript"), "openvino": ("openvino", "nncf")}[runtime]
    if missing := [name for name in needed if find_spec(name) is None]:
        raise InputError(f"Not installed: {', '.join(missing)}. Type: pip install -r requirements-{runtime}.txt")


def _pairs(given: argparse.Namespace, model: ConnectionBert, source: Path) -> tuple[Pairs | None, Pairs | None]:
    """Returns the pairs to choose by and those to measure on; None where there are none."""
    from connection.export.verification import pairs_of_file

    falls = bool(model.labels and model.labels[0] > model.labels[1])
    if given.pairs:
        return pairs_of_file(resolve(given.pairs), given.columns, falls)
    run = source if (source / ERRORS).is_file() else source.parent
    dev, test = _pairs_of_run(run, falls)
    if given.format.endswith("int8") and not (dev and test):
        raise InputError(
            f"{printable(run)} has no dev and test pairs in {ERRORS}: int8 is chosen and measured on labelled pairs. "
            "Give --pairs FILE"
        )
    return dev, test


def _pairs_of_run(folder: Path, falls: bool) -> tuple[Pairs | None, Pairs | None]:
    """Returns the dev and the test pairs of a run whose texts are in errors.csv; None for too few, and where it is no run."""
    from connection.export.verification import FEWEST, Pairs
    from connection.reports.run_files import read_run, read_texts

    if not (folder / ERRORS).is_file():
        return None, None
    found: dict[str, Pairs] = {}
    run = read_run(folder, with_seeds=False)
    for split, table in run.pairs.items():
        texts = read_texts(run, split, table["line"])
        table = table.loc[table["line"].isin(texts)]
        if len(table) >= FEWEST:
            one, two = (list(side) for side in zip(*(texts[line] for line in table["line"]), strict=True))
            labels = table["label"].to_numpy()
            found[split] = Pairs(one, two, -labels if falls else labels, f"the run's {split} pairs")
    return found.get("dev"), found.get("test")


def _bar(done: int, count: int) -> None:
    if sys.stderr.isatty():
        print(f"\rtrying each product in int8: {done + 1} of {count}", end="" if done + 1 < count else "\n", file=sys.stderr)


def _show(
    given: argparse.Namespace, model: ConnectionBert, target: Path, figures: dict[str, Any], choose: Pairs | None, exact: bool
) -> None:
    if given.json:
        print(json.dumps({"folder": str(target), "format": given.format} | figures))
        return
    if "in_fp32" in figures:
        chosen = f"chosen on {choose and choose.name}; the others have {8 if exact else 7} bits"
        print(f"{figures['in_fp32']} of {figures['products']} products stay in fp32, {chosen}")
    if not figures["pays"]:
        print("int8 is not faster than fp32 on this processor: the graph is in fp32")
    for name, rate in figures["texts_per_second"].items():
        print(f"{name:14} {rate:6,.0f} texts/s of one processor core's time")
    if "before" in figures:
        print(
            f"Spearman x 100 {figures['before']:.2f} -> {figures['after']:.2f} on {figures['pairs']} pairs "
            f"({figures['measured_on']}); least cosine to the model's own vectors {figures['least_cosine']:.5f}"
        )
    print(f"{printable(target)}: {figures['megabytes']:.0f} MB. Next:")
    print(f"  python -m tools.score {printable(given.model)} 'one sentence' 'another sentence' --backend {given.format}")


if __name__ == "__main__":
    sys.exit(main())
