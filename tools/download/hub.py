"""What downloads from the Hugging Face hub share: its list of files, sizes and digests checked, going on where one broke off.

No path is made from a hub's answers unchecked, and no more bytes are written than it lists.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.system.errors import InputError, RunError
from connection.system.folder_lock import try_lock
from connection.system.paths import file_sha256
from connection.system.plain_files import FLAGS
from tools.download.bounded_http import BoundedRequests, bounded_requests
from tools.download.hub_errors import hub_errors

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

NEXT = "Try again later; if it comes again, look at HF_ENDPOINT and the proxy settings."


@contextlib.contextmanager
def kept_between_tries(folder: Path, revision: str) -> Iterator[Path]:
    """Yields the subfolder of `folder` for a revision. It is kept if the download is interrupted, so that the next try resumes.

    It is removed at the end, and when what came was no use: files that are not the real ones (`InputError`, `RunError`), or
    of another revision. Entries that are not plain files and folders are removed before anything is read or written: a
    link would lead out of the folder. Two downloads into one folder exclude each other.
    """
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with try_lock(folder) as locked:
        if locked is False:
            raise RunError(f"another process is fetching it into {folder}.")
        try:
            remove_links(folder)
            for path in folder.iterdir():
                if path.name != revision:
                    shutil.rmtree(path, ignore_errors=True)
            (folder / revision).mkdir(exist_ok=True)
            yield folder / revision
            shutil.rmtree(folder)
        except (InputError, RunError):
            shutil.rmtree(folder, ignore_errors=True)
            raise


def remove_links(folder: Path) -> None:
    """Remove all entries that are not folders, or plain files of this name alone. What a link leads to is left alone."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in folders + files):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) and (not stat.S_ISREG(status.st_mode) or status.st_nlink > 1):
                path.unlink()


@contextlib.contextmanager
def open_hub(repository: str, repo_type: str = "model", by_hand: str = "") -> Iterator[Hub]:
    """Yields a repository of the hub. Its errors in this block become ours, as `hub_errors` does."""
    with hub_errors(repository, by_hand), bounded_requests() as requests:
        yield Hub(repository, repo_type, requests)


class Hub:
    """A repository of the hub: its list of files, and the files."""

    def __init__(self, repository: str, repo_type: str, requests: BoundedRequests) -> None:
        self.repository, self.repo_type, self.requests = repository, repo_type, requests

    def listing(self, revision: str | None = None) -> tuple[str, dict[str, RepoSibling]]:
        """The commit that the hub answers for, and its files by name. Raises `RunError` where the answer is no hub's."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError

        def ask() -> Any:
            return HfApi().repo_info(self.repository, repo_type=self.repo_type, revision=revision, files_metadata=True)

        try:
            info = self.requests.run(ask, "the list of files")
            commit, files = str(info.sha), {file.rfilename: file for file in info.siblings or []}
        except (HFValidationError, OSError):
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise RunError(f"what answered is no hub ({type(error).__name__}: {error!s:.100}). {NEXT}") from None
        if not re.fullmatch("[0-9a-f]{40}", commit):  # it becomes a folder's name
            raise RunError(f"the hub names no commit of 40 hexadecimal digits, but {commit!r:.100}. {NEXT}")
        return commit, files

    def fetch_file(self, listed: RepoSibling, revision: str, target: Path, limit: int) -> None:
        """A file of at most `limit` bytes to `target`, from where an earlier try broke off (a range request), then checked.

        The hub library's own download begins anew each time, checks no digest, and makes paths of what the hub answers. Its
        part that reads over HTTP is used: it honours the proxy variables.
        """
        name, size = listed.rfilename, listed.size
        if not isinstance(size, int) or not 0 <= size <= limit:
            raise RunError(
                f"the hub lists {name} with {size!s:.100} bytes, where {limit:,} are the most that are fetched. {NEXT}"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        if not target.is_file():
            self._fetch_part(name, size, revision, part)
            part.replace(target)
        check_digest(target, listed)

    def _fetch_part(self, name: str, size: int, revision: str, part: Path) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        with AtMost(part, size) as stream:

            def get() -> None:
                http_get(
                    hf_hub_url(self.repository, name, revision=revision, repo_type=self.repo_type),
                    stream,
                    resume_size=stream.tell(),
                    headers=build_hf_headers(),
                    expected_size=size,
                    displayed_filename=name,
                )

            try:
                self.requests.run(get, name, size)
            except OSError as error:
                if type(error) is OSError and error.errno is None:  # complete, and of another size: not a part of the file
                    stream.truncate(0)
                raise


class AtMost(io.BufferedWriter):
    """A file that is added to, and takes no more than `limit` bytes in all. Raises `RunError` unless it is a plain file."""

    def __init__(self, file: Path, limit: int) -> None:
        super().__init__(io.FileIO(file, "ab", opener=lambda path, flags: os.open(path, flags | FLAGS, 0o644)))
        self.limit = limit
        status = os.fstat(self.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            self.close()
            raise RunError(f"{file} is not a plain file, and nothing was written to it. Remove it.")

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
