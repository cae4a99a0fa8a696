"""Text of strangers on the terminal: what would move the cursor, colour, reorder or fake lines is shown as escapes."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

# Control characters, line and paragraph separators, the marks that change the direction of writing, and lone surrogates.
RAW = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
UNPRINTABLE = re.compile(f"[{RAW}]")
UNPRINTABLE_IN_LINES = re.compile(rf"(?![\n\t])[{RAW}]")


def printable(text: object) -> str:
    r"""Returns a text from a file, a folder or a server as one line to print: "\x1b" for an escape, "\n" for a line break.

    Ordinary text of any language stays as it is.
    """
    return UNPRINTABLE.sub(_escape, str(text))


def printable_lines(text: object) -> str:
    """Returns a message of several lines likewise; its line breaks and tabs stay."""
    return UNPRINTABLE_IN_LINES.sub(_escape, str(text))


def _escape(found: re.Match[str]) -> str:
    r"""Returns the escape of a character; above \x1f as \u007f, which JSON knows too."""
    code = ord(found[0])
    return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(found[0]) or (f"\\x{code:02x}" if code < 32 else f"\\u{code:04x}")


class _PrintableStream:
    """A stream that prints through `printable_lines`: what slips through unescaped elsewhere does no harm either."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(printable_lines(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Makes standard output a `_PrintableStream` in this block. (Progress bars move the cursor, on standard error.)"""
    before = sys.stdout
    sys.stdout = _PrintableStream(before)
    try:
        yield
    finally:
        sys.stdout = before
