# PYTHON_ARGCOMPLETE_OK
"""Check pair files before training: print how they are read, and every finding, exactly as training would.

The first file is the training file; the second and third are dev and test.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from connection.settings_reader import check_values
from connection.system.atomic_files import plain_json
from connection.system.errors import InputError, exit_status
from connection.system.flags import Flags
from connection.system.paths import ROOT, resolve
from connection.system.versions import require_libraries

MODELS = ("transformers/bert/bert-base-uncased", "transformers/bert/all-MiniLM-L6-v2")  # the first that exists is used
CHECKED = (
    "label_min",
    "label_max",
    "label_map",
    "max_length",
    "allow",
    "header_row",
)  # flags that are validated as in training


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 no errors found (warnings are possible), 2 errors found, or bad usage."""
    parser = Flags(
        "python -m tools.check",
        __doc__,
        (
            "python -m tools.check my_pairs.csv",
            "python -m tools.check train.csv dev.csv test.csv --allow leaked-pair",
        ),
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="pair files: the training file, then dev and test")
    parser.add_argument("--model-dir", default="", help=f"whose vocabulary to check against (default: {' or '.join(MODELS)})")
    parser.add_argument("--columns", default="", help="sentence1=NAME,sentence2=NAME,label=NAME (or 1-based numbers)")
    parser.add_argument("--sheet", default="", help="sheet of a workbook, by name or number (default: found by itself)")
    parser.add_argument("--header-row", metavar="N", default=0, help="row of the column names (default: found by itself)")
    parser.add_argument("--label-min", metavar="X", help="label that means no connection (default: from the first file)")
    parser.add_argument("--label-max", metavar="X", help="label that means full connection (default: from the first file)")
    parser.add_argument("--label-map", default="", metavar="TEXT", help="numbers of label words: low=0,medium=0.5,high=1")
    parser.add_argument("--max-length", metavar="N", default=128, help="longest sentence in tokens (default: 128)")
    parser.add_argument(
        "--cache-dir", default="output/cache", help="where tokens of large files are kept (default: output/cache)"
    )
    parser.add_argument("--on-bad-rows", choices=("stop", "skip"), default="stop", help="skip: bad rows are no errors")
    parser.add_argument("--allow", default="", help="findings that are no errors, comma-separated")
    parser.add_argument("--json", action="store_true", help="print audit.json instead of the table")
    given = parser.parse_args(argv)
    return exit_status(lambda: check(given))


def check(given: argparse.Namespace) -> int:
    """Print how the files are read and what is found. Returns 2 if training would be blocked, else 0."""
    values, problems = check_values({name: getattr(given, name) for name in CHECKED})
    if problems:
        raise InputError.listing("These flags can't be used:", problems)
    require_libraries()
    from connection.data.prepare import prepare
    from ConnectionBert import load_tokenizer

    if len(given.files) > 3:
        raise InputError("Three files at the most: training, dev and test")
    model = given.model_dir or next((name for name in MODELS if (ROOT / name).is_dir()), MODELS[1])
    files = dict(zip(("train", "dev", "test"), given.files, strict=False))
    label_range, cache = (values["label_min"], values["label_max"]), resolve(Path(given.cache_dir))
    prepared = prepare(
        files, load_tokenizer(model), values["max_length"], given.columns, label_range, cache, not given.json,
        given.sheet, values["header_row"], values["label_map"],
    )  # fmt: skip
    blocking = prepared.blocking(given.on_bad_rows, given.allow)
    if given.json:
        print(json.dumps(plain_json(prepared.audit), indent=2, ensure_ascii=False))
    else:
        print(prepared)
        warnings = sum(finding.severity == "warning" for finding in prepared.findings)
        said = f"{len(blocking)} errors that block" if len(blocking) != 1 else "1 error that blocks"
        print(f"{said} training, {warnings} warning{'s' * (warnings != 1)}")
    return 2 if blocking else 0


if __name__ == "__main__":
    sys.exit(main())
