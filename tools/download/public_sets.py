"""The public pair sets: where each is published; downloads a set to data/<name>/, and finds its folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from connection.system.atomic_files import atomic_folder
from connection.system.errors import InputError, RunError
from connection.system.paths import ROOT, expand
from tools.download.hub import open_hub

SIZE_LIMIT = 64 << 20  # bytes per file


class PublicSet(NamedTuple):
    """A set in a dataset repository on the hub, at a commit for which the file names were confirmed."""

    repository: str
    commit: str
    files: dict[str, str]  # path in the repository -> name in data/<name>/
    remark: str


SETS = {
    # The publisher's own repository. This commit, "Convert dataset to Parquet (#4)" on main, lists the three files:
    # huggingface.co/datasets/PhilipMay/stsb_multi_mt/commit/e1b7f8617fa83b90b4e7530dac02f1583cc61415
    "stsb": PublicSet(
        "PhilipMay/stsb_multi_mt",
        "e1b7f8617fa83b90b4e7530dac02f1583cc61415",
        {f"en/{split}-00000-of-00001.parquet": f"stsb-en-{split}.parquet" for split in ("train", "dev", "test")},
        "the STS benchmark in English, with its own three splits; licence of the scores: CC BY-SA 4.0",
    ),
    # The copy that the MTEB benchmark evaluates on; for RobZamp/sick, an author's own, no file name could be confirmed.
    # huggingface.co/datasets/mteb/sickr-sts/tree/main lists the file, at the commit that MTEB pins:
    "sick": PublicSet(
        "mteb/sickr-sts",
        "20a6d6f312dd54037fe07a32d58e5e168867909d",
        {"test.jsonl.gz": "sick.jsonl.gz"},
        "SICK's pairs in one file, as MTEB evaluates on them, without the authors' splits; licence: CC BY-NC-SA 3.0",
    ),
}
# Sets that no dataset repository holds completely.
WITHOUT_HOME = {
    # The cards of dkoterwa/kor-sts and mteb/KorSTS give 5,691 / 1,465 / 1,376 pairs; the first: pairs were lost in conversion.
    "korsts": "The copies of KorSTS on the hub lack pairs that the publisher's own files have. Place sts-train.tsv, "
    "sts-dev.tsv and sts-test.tsv from github.com/kakaobrain/kor-nlu-datasets in data/korsts/.",
}


def fetch_public(name: str, target: Path, overwrite: bool = False) -> None:
    """Download a set's files to the folder `target`, all of them or none. Raises `InputError` or `RunError`."""
    if name in WITHOUT_HOME:
        raise InputError(f"{WITHOUT_HOME[name]}\nWhat can be fetched: {', '.join(SETS)}.")
    wanted = SETS[name]
    if target.exists() and not overwrite:
        try:
            open_all(target, wanted)
        except InputError as error:
            raise InputError(f"{error}\nOr give --overwrite to replace the folder {target}.") from None
        print(f"{target} is there already.")
        return
    with atomic_folder(target) as new, open_hub(wanted.repository, "dataset") as hub:
        _, there = hub.listing(wanted.commit)
        if missing := [path for path in wanted.files if path not in there]:
            raise RunError(f"{wanted.repository} has no {', '.join(missing)} at {wanted.commit}.")
        for path, file in wanted.files.items():
            hub.fetch_file(there[path], wanted.commit, new / file, SIZE_LIMIT)
        try:
            open_all(new, wanted)
        except InputError as error:
            raise RunError(f"what came is no pair file: {error}") from None
    print(f"{name} is in {target}: {wanted.remark}. Next: python -m tools.check {target / next(iter(wanted.files.values()))}")


def open_all(folder: Path, wanted: PublicSet) -> None:
    """Raises `InputError` unless every file of the set exists and is a pair file."""
    from connection.data.pair_file import PairFile

    for file in wanted.files.values():
        PairFile.open(folder / file)


def find_public(name: str, data_dir: Path | None = None) -> Path:
    """Return the folder of a public set: in `data_dir` if given, else data/<name>, else ../shared/data/<name>.

    Raises `InputError` if there is none.
    """
    given = [expand(data_dir) / name, expand(data_dir)] if data_dir else []
    places = given or [ROOT / "data" / name, ROOT.parent / "shared" / "data" / name]
    for place in places:
        if place.is_dir():
            return place
    how = WITHOUT_HOME.get(name, f"Type: python -m tools.download {name}")
    raise InputError(f"The public set {name} is neither {' nor '.join(map(str, places))}. {how}")
