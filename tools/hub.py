"""What downloads from the Hugging Face hub share: errors in words, a file's digest, and going on where one broke off."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from connection.environment import file_sha256
from connection.errors import InputError, RunError


@contextlib.contextmanager
def hub_errors(name: str, otherwise: str) -> Iterator[None]:
    """Its errors as ours: `InputError` for an impossible name, else `RunError` that ends in `otherwise`."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub.errors import HFValidationError, HTTPError, XetDownloadError

    try:
        yield
    except HFValidationError as error:
        raise InputError(f"{name!r} is no model name: {error}") from None
    except (HTTPError, XetDownloadError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"{first} {otherwise}") from None


@contextlib.contextmanager
def kept_between_tries(folder: Path, revision: str) -> Iterator[Path]:
    """Yields the part of `folder` for a revision: it stays when the download breaks off, for the next try.

    It is removed at the end, and when what came was no use: files that are not the real ones (`InputError`, `RunError`), or
    of another revision. Two downloads into one folder exclude each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY) if fcntl else -1
    try:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise RunError(f"another process is fetching it into {folder}.") from None
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
    finally:
        if fcntl:
            os.close(handle)


def fetch_large(model: str, name: str, revision: str, size: int | None, folder: Path) -> None:
    """A large file of a model into `folder`, from where an earlier try broke off (an HTTP range request).

    The hub library's own download begins anew each time. Its part that reads over HTTP is used: it honours the proxy variables.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if (folder / name).is_file():
        return
    with open(folder / f"{name}.part", "ab") as stream:
        http_get(
            hf_hub_url(model, name, revision=revision),
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(),
            expected_size=size,
            displayed_filename=name,
        )
    (folder / f"{name}.part").replace(folder / name)


def check_digest(file: Path, sha256: str) -> None:
    """Raises `RunError` unless the file is there and has that SHA-256."""
    if not file.is_file():
        raise RunError(f"the download holds no {file.name}.")
    found = file_sha256(file)
    if found != sha256:
        raise RunError(f"{file.name} has the SHA-256 {found}, not {sha256}: the download is damaged or not the real file.")
