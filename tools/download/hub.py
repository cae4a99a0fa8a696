"""Downloads files from the Hugging Face hub: resumes interrupted downloads, checks sizes and digests, explains errors.

No path is made from a hub's answers unchecked, and no more bytes are written than it lists.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.system.errors import InputError, RunError
from connection.system.folder_lock import try_lock
from connection.system.paths import file_sha256

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

NEXT = "Try again later; if it comes again, look at HF_ENDPOINT and the proxy settings."


@contextlib.contextmanager
def hub_errors(name: str, otherwise: str) -> Iterator[None]:
    """Raises the hub's errors as `InputError` for an invalid name, else as a `RunError` whose text ends in `otherwise`."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        yield
    except HFValidationError as error:
        raise InputError(f"{name!r} is no model name: {error}") from None
    except (HTTPError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"{first} {otherwise}") from None


@contextlib.contextmanager
def kept_between_tries(folder: Path, revision: str) -> Iterator[Path]:
    """Yields the subfolder of `folder` for a revision. It is kept if the download is interrupted, so that the next try resumes.

    `folder` is removed after success, and after `InputError` or `RunError`: its files are not the real ones. Subfolders of
    other revisions are removed at the start. Raises `RunError` if another process downloads to `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with try_lock(folder) as locked:
        if locked is False:
            raise RunError(f"another process is fetching it into {folder}.")
        try:
            for path in folder.iterdir():
                if path.name != revision:
                    shutil.rmtree(path, ignore_errors=True)
            (folder / revision).mkdir(exist_ok=True)
            yield folder / revision
            shutil.rmtree(folder)
        except (InputError, RunError):
            shutil.rmtree(folder, ignore_errors=True)
            raise


def listing(repository: str, repo_type: str = "model", revision: str | None = None) -> tuple[str, dict[str, RepoSibling]]:
    """Return the commit that the hub names, and its files by name. Raises `RunError` if the answer is not a hub's."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        info = HfApi().repo_info(repository, repo_type=repo_type, revision=revision, files_metadata=True)
        commit, files = str(info.sha), {file.rfilename: file for file in info.siblings or []}
    except (HFValidationError, OSError):
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunError(f"what answered is no hub ({type(error).__name__}: {error!s:.100}). {NEXT}") from None
    if not re.fullmatch("[0-9a-f]{40}", commit):  # it is used as a folder name
        raise RunError(f"the hub names no commit of 40 hexadecimal digits, but {commit!r:.100}. {NEXT}")
    return commit, files


def fetch_file(repository: str, listed: RepoSibling, revision: str, target: Path, limit: int, repo_type: str = "model") -> None:
    """Download a file of at most `limit` bytes to `target`, resuming an earlier try (HTTP range request), and check it.

    The hub library's own download starts again each time, checks no digest, and makes paths from the hub's answers. Only its
    function that reads over HTTP is used here: it honours the proxy variables.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    name, size = listed.rfilename, listed.size
    if not isinstance(size, int) or not 0 <= size <= limit:
        raise RunError(f"the hub lists {name} with {size!s:.100} bytes, where {limit:,} are the most that are fetched. {NEXT}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    if not target.is_file():
        with AtMost(part, size) as stream:
            http_get(
                hf_hub_url(repository, name, revision=revision, repo_type=repo_type),
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers() | {"Accept-Encoding": "identity"},  # a range counts uncompressed bytes
                expected_size=size,
                displayed_filename=name,
            )
        part.replace(target)
    check_digest(target, listed)


class AtMost(io.BufferedWriter):
    """A file opened for appending. Raises `RunError` before it would exceed `limit` bytes in total."""

    def __init__(self, file: Path, limit: int) -> None:
        super().__init__(io.FileIO(file, "ab"))
        self.limit = limit

    def write(self, chunk: Any) -> int:
        if self.tell() + len(chunk) > self.limit:
            raise RunError(f"more came for {self.name} than the {self.limit:,} bytes that the hub lists. {NEXT}")
        return super().write(chunk)


def check_digest(file: Path, listed: RepoSibling) -> None:
    """Raises `RunError` unless the file has the digest that the hub lists: SHA-256 for large files, git's blob id otherwise."""
    if listed.lfs:
        kind, wanted, found = "SHA-256", listed.lfs.sha256, file_sha256(file)
    elif listed.blob_id:
        blob = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 20):
                blob.update(chunk)
        kind, wanted, found = "git blob id", listed.blob_id, blob.hexdigest()
    else:
        raise RunError(f"the hub lists no digest of {listed.rfilename}, so that what came can't be checked. {NEXT}")
    if found != wanted:
        raise RunError(
            f"{listed.rfilename} has the {kind} {found}, not {wanted!s:.100}: "
            f"the download is damaged or not the real file. {NEXT}"
        )
