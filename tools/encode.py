# PYTHON_ARGCOMPLETE_OK
"""Encode a column of texts to a file of vectors. Killed and started again, it goes on where it was."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from connection.search.sharing import shared_encoding
from connection.system.errors import InputError, exit_status
from connection.system.escapes import printable
from connection.system.flags import Flags, add_encoder_flags
from connection.system.paths import expand, resolve
from connection.system.plain_files import output_problem
from connection.system.versions import require_libraries

EXAMPLES = (
    "python -m tools.encode output/run requirements.csv -o vectors.npy",
    "python -m tools.encode output/run texts.parquet --column text -o v.parquet --dtype int8",
)
ENDINGS = (".npy", ".safetensors", ".parquet")


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 the file could not be written, 2 bad usage, model folder or file."""
    parser = Flags("python -m tools.encode", __doc__ or "", EXAMPLES)
    parser.add_argument("model", help="a run's folder, its model/, or any BERT folder")
    parser.add_argument("file", help="a list of texts: a file in any form of the data reader")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=f"the vectors: {', '.join(ENDINGS)}")
    parser.add_argument("--column", default="", help="name or number of the column of texts (default: by its name or content)")
    parser.add_argument("--dtype", choices=("float32", "float16", "int8"), default="float32", help="(default: float32)")
    parser.add_argument("--dim", type=int, default=0, metavar="N", help="the first N numbers alone, for Matryoshka models")
    parser.add_argument("--normalize", action="store_true", help="vectors of length 1 (default: as the model folder says)")
    parser.add_argument("--side", type=int, choices=(1, 2), help="1: with the prompt of first sentences, 2: of second ones; "
                        "needed where these differ")  # fmt: skip
    add_encoder_flags(parser)
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    given = parser.parse_args(argv)
    return exit_status(lambda: shared_encoding(given, lambda: encode(given)), failed="The vectors could not be written")


def encode(given: argparse.Namespace) -> int:
    """Write the vectors of a file's texts. Returns the exit status."""
    target, source = expand(given.output), resolve(given.file)
    if target.suffix.lower() not in ENDINGS:
        raise InputError(f"-o {printable(target)}: the name should end in {', '.join(ENDINGS)}")
    if problem := output_problem(target):
        raise InputError(f"-o {problem}")
    if target.resolve() == source:
        raise InputError(f"-o {printable(target)} would replace the file that is read: give another name")
    if given.dim < 0:
        raise InputError(f"--dim {given.dim}: give the number of numbers to keep")
    require_libraries()
    import numpy as np

    from connection.search.row_files import unique
    from connection.search.texts import open_texts
    from connection.search.vector_files import Form, encode_to_file, write_vectors
    from connection.search.vectors import load_encoder

    source_file = open_texts(source, given.column)
    model = load_encoder(given.model, given.backend, given.device)
    if given.side is None and not model.one_prompt:
        raise InputError(
            f"The model has the prompt {model.prompts[1]!r:.100} before first sentences and {model.prompts[2]!r:.100} before "
            "second ones: say which of them the texts are, by --side 1 or --side 2"
        )
    side = given.side or 1
    form = Form(given.dtype, given.dim, given.normalize)
    npy = target if target.suffix.lower() == ".npy" else target.with_name(f".{target.name}.npy")
    vectors, scales, cut = encode_to_file(model, source_file.texts, side, form, npy)
    try:
        source_file.require_unchanged()
    except InputError:
        npy.unlink()
        raise
    written = [target]
    if target.suffix.lower() == ".npy":
        if scales is not None:
            from connection.system.atomic_files import atomic_file

            written.append(target.with_suffix(".scales.npy"))
            with atomic_file(written[1]) as file:
                np.save(file, scales)
    else:
        names = unique([*source_file.names, "vector"])[:-1]
        write_vectors(target, vectors, scales, names, (cells for _, cells in source_file.rows()))
        npy.unlink()
    column = source_file.names[source_file.place]
    told: dict[str, Any] = {"files": [str(file) for file in written], "texts": len(vectors), "cut": cut}
    told |= {"shape": list(vectors.shape), "dtype": given.dtype, "column": column, "prompt": model.prompts[side]}
    if given.json:
        print(json.dumps(told))
    else:
        shape = f"{vectors.shape[0]:,} x {vectors.shape[1]} {given.dtype}"
        print(f"{', '.join(map(printable, written))}: {shape}, of column {printable(column)}")
        print(f"{cut:,} texts cut at {model.max_length} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
