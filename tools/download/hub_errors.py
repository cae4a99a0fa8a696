"""What went wrong while a hub was asked, in words: each cause with what helps against it."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator

from connection.system.errors import InputError, RunError
from tools.download.bounded_http import NotTheFileError

LATER = "The same command goes on with what had come."


@contextlib.contextmanager
def hub_errors(name: str, by_hand: str = "") -> Iterator[None]:
    """Its errors as ours: `InputError` for an impossible name, else `RunError` with what helps.

    by_hand: how else the files can be had; it ends every message.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        yield
    except HFValidationError as error:
        raise InputError(f"{name!r} is no model name: {error}") from None
    except (HTTPError, OSError) as error:
        raise RunError(" ".join([in_words(error), by_hand]).strip()) from None


def in_words(error: Exception) -> str:
    """Returns one line: what happened, and what helps."""
    from httpx2 import ProxyError, TimeoutException
    from huggingface_hub.errors import GatedRepoError, HTTPError, OfflineModeIsEnabled

    said = first_line(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    causes = causes_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        return f"{said} Can this machine reach the hub? Then unset HF_HUB_OFFLINE."
    if isinstance(error, GatedRepoError):
        return f"{said} Its publisher asks you to accept terms on its page first; then set HF_TOKEN to your token."
    if status in (401, 404):
        return f"{said} Is the name right? A private one needs HF_TOKEN."
    if status is not None:
        helps = "It is a fault of the hub: try again later." if status >= 500 else "The hub refuses: look at HF_TOKEN."
        return f"{said} {'The hub asks for fewer requests: try again later.' if status in (408, 429) else helps} {LATER}"
    if isinstance(error, ProxyError):
        return f"the proxy does not let this through ({said}). Look at HTTPS_PROXY and NO_PROXY."
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return (
            f"the hub's name can't be looked up ({said}). Can this machine reach the hub? Look at the network and HF_ENDPOINT."
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return (
            f"the connection is not secure ({said}). A proxy or a sign-in page may stand between; if your organisation has a "
            f"certificate of its own, set SSL_CERT_FILE to its file."
        )
    if isinstance(error, NotTheFileError):
        return f"{said} Is there a network to sign in to first? {LATER}"
    if isinstance(error, (TimeoutException, TimeoutError)):
        return f"{said} Can this machine reach the hub? {LATER}"
    if isinstance(error, HTTPError):
        return f"the connection failed ({said}). Can this machine reach the hub? Look at HF_ENDPOINT and the proxy. {LATER}"
    return said


def first_line(error: Exception) -> str:
    """Returns an error's first line, of at most 300 characters, each of which can be printed: the hub may have chosen them."""
    line = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in line[:300])


def causes_of(error: BaseException) -> list[BaseException]:
    """Returns the error and those that it came from."""
    causes: list[BaseException] = []
    while error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__ or error
    return causes
