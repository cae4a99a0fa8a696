"""What every download from the Hugging Face hub shares: its errors in words, and the check of a file's digest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

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


def check_digest(file: Path, sha256: str) -> None:
    """Raises `RunError` unless the file is there and has that SHA-256."""
    if not file.is_file():
        raise RunError(f"the download holds no {file.name}.")
    found = file_sha256(file)
    if found != sha256:
        raise RunError(f"{file.name} has the SHA-256 {found}, not {sha256}: the download is damaged or not the real file.")
