"""HTTP requests to a hub within bounds: of silence, of size, of waiting; and no token over plain http.

huggingface_hub sends the requests. Its client waits for an answer without end, keeps an answer of any size in memory, and obeys
a hub that asks to wait for days.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from connection.system.errors import InputError, RunError

if TYPE_CHECKING:
    from httpx2 import Request, Response

T = TypeVar("T")
SPAN = 60.0  # seconds
BYTES_A_SECOND = 1_000  # the least that has to come, over each span
LONGEST_WAIT = 30  # seconds that a hub may ask for before the next try
ANSWER_LIMIT = 16 << 20  # bytes of an answer that is no file: a list of 50,000 files


class NotTheFileError(OSError):
    """What answered is not the hub: a sign-in page of a network, for instance. What had come before is kept."""


class BoundedRequests:
    """The requests of one download, which follow each other: what has come of the present one, and what it may be."""

    def __init__(self) -> None:
        self.received = 0  # bytes of all answers
        self.file_size: int | None = None  # of the file that is asked for; None: a list is

    def run(self, work: Callable[[], T], what: str, file_size: int | None = None) -> T:
        """Returns what `work` returns. Raises `TimeoutError` when too little comes from the hub over a span of time.

        The work is done in a thread, and left there: no bound of a library covers looking up the host's name, or an answer
        whose header comes byte by byte.
        """
        self.file_size = file_size
        done: list[T] = []
        failed: list[BaseException] = []

        def relay() -> None:
            try:
                done.append(work())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=relay, daemon=True)
        thread.start()
        while thread.is_alive():
            before = self.received
            wait_for(thread, SPAN)
            if thread.is_alive() and self.received - before < SPAN * BYTES_A_SECOND:
                raise TimeoutError(
                    f"the hub sent {self.received - before:,} bytes of {what} in {SPAN:g} seconds, and at least "
                    f"{BYTES_A_SECOND:,} a second are waited for."
                )
        if failed:
            raise failed[0]
        return done[0]

    def check_request(self, request: Request) -> None:
        """Raises `InputError` when the request would send a token that anybody on the way can read."""
        request.headers["Accept-Encoding"] = "identity"  # sizes and ranges count the bytes themselves; no bombs
        if "Authorization" in request.headers and request.url.scheme != "https" and not is_loopback(request.url.host):
            raise InputError(
                f"HF_ENDPOINT leads to {request.url.scheme}://{request.url.host}: anybody on the way could read your token. "
                f"Give an https address; or set HF_HUB_DISABLE_IMPLICIT_TOKEN=1, and no token is sent."
            )

    def check_response(self, response: Response) -> None:
        """Check an answer before its content is read, and count what comes of it. Raises `RunError` or `OSError`."""
        response.headers.pop("X-HF-Warning", None)  # the library would print it as it is, control characters too
        asked = [response.headers.get("Retry-After", ""), *re.findall(r"\bt=(\d+)", response.headers.get("RateLimit", ""))]
        seconds = max((float(text) for text in asked if re.fullmatch("[0-9]+", text.strip())), default=0.0)
        if response.status_code >= 400 and seconds > LONGEST_WAIT:
            raise OSError(f"the hub (status {response.status_code}) asks to wait {seconds:,.0f} seconds before the next try.")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise NotTheFileError("what answered is compressed, which was not asked for.")
        limit = ANSWER_LIMIT
        if self.file_size is not None and response.status_code in (200, 206):
            check_file_answer(response, self.file_size)
            limit = max(limit, self.file_size)
        response.stream = self.counted(response.stream, limit)

    def counted(self, stream: Any, limit: int) -> Any:
        """Returns the stream of an answer's bytes, which are counted, and end with `RunError` beyond the limit."""
        from httpx2 import SyncByteStream

        requests = self

        class Counted(SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                come = 0
                for chunk in stream:
                    come += len(chunk)
                    requests.received += len(chunk)
                    if come > limit:
                        raise RunError(f"what answered has more than {limit:,} bytes. Try again later, or look at HF_ENDPOINT.")
                    yield chunk

            def close(self) -> None:
                stream.close()

        return Counted()


@contextlib.contextmanager
def bounded_requests() -> Iterator[BoundedRequests]:
    """Bounds every request that huggingface_hub sends in this block through `BoundedRequests.run`."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    requests = BoundedRequests()

    def client() -> Any:
        bounded = default_client_factory()
        for name, hook in (("request", requests.check_request), ("response", requests.check_response)):
            bounded.event_hooks[name].append(hook)
        return bounded

    set_client_factory(client)
    try:
        yield requests
    finally:
        set_client_factory(default_client_factory)


def wait_for(thread: threading.Thread, seconds: float) -> None:
    """Wait until the thread ends, or the time is over, in short turns: Windows sees Ctrl-C only between two of them."""
    for _ in range(max(1, round(seconds / 0.5))):
        thread.join(min(0.5, seconds))
        if not thread.is_alive():
            return


def check_file_answer(response: Response, size: int) -> None:
    """Raises `NotTheFileError` for an answer that can't be the file, before anything of it is written."""
    kind, length = response.headers.get("Content-Type", ""), response.headers.get("Content-Length", "")
    asked = re.fullmatch(r"bytes=([0-9]+)-", response.request.headers.get("Range", ""))
    start = int(asked[1]) if asked and response.status_code == 206 else 0
    if "html" in kind.lower():
        raise NotTheFileError("what answered is a web page, such as a network's sign-in page, and not the file.")
    if length.isdecimal() and len(length) < 20 and int(length) < size - start:
        raise NotTheFileError(f"what answered has {int(length):,} bytes, where {size - start:,} of the file were asked for.")
    if asked and response.status_code == 200 and not length:
        raise NotTheFileError("what answered does not say its size, where the rest of the file was asked for.")


def is_loopback(host: str) -> bool:
    """Returns whether a host's name stands for this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
