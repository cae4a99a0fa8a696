"""Text of strangers on the terminal: what would move the cursor, colour, reorder or fake lines is shown as escapes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

# Control characters, line and paragraph separators, the marks that change the direction of writing, and lone surrogates.
RAW = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
UNPRINTABLE = re.compile(f"[{RAW}]")
# Lines that a terminal shows in a colour, by how they begin: ANSI's codes for green, yellow and red, 1 for bold.
GREEN, YELLOW, RED = "1;32", "33", "31"
COLOURS = (
    (re.compile(r".*which may be chance \("), YELLOW),
    (re.compile(r"\S+ gained .*\(95% interval"), GREEN),
    (re.compile(r"\S+ lost .*\(95% interval"), RED),
    (re.compile(r"error +[a-z-]+: "), RED),
    (re.compile(r"warning +[a-z-]+: |(    )?note: "), YELLOW),
)
COMMAND = re.compile(r"  (cd |\S*python\S* |\"?[A-Z]:\\)")  # a line to copy stays one line
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
    """A stream that prints through `printable_lines`: what slips through unescaped elsewhere does no harm either.

    On a terminal, long lines are broken between words, and a few kinds of lines have a colour: see `COLOURS`. Files and pipes
    get every line whole and plain.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.width = shutil.get_terminal_size().columns if stream.isatty() else 0
        self.colours = self.width and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        if self.colours and os.name == "nt":
            os.system("")  # makes the console of Windows read escapes

    def write(self, text: str) -> int:
        shown = printable_lines(text)
        if self.width:
            shown = "\n".join(self._line(line) for line in shown.split("\n"))
        self.stream.write(shown)
        return len(text)

    def _line(self, line: str) -> str:
        colour = next((code for pattern, code in COLOURS if pattern.match(line)), "") if self.colours else ""
        if len(line) > self.width and not COMMAND.match(line):
            line = "\n".join(_broken(line, self.width))
        return f"\x1b[{colour}m{line}\x1b[0m" if colour else line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _broken(line: str, width: int) -> list[str]:
    """Returns a line in parts of at most `width`, broken between words; the next parts stand under the first one's text."""
    indent = " " * (len(line) - len(line.lstrip()))
    title = re.match(r" *\w+ {2,}|( *\w+:) (?=\S)", line)
    hanging = " " * len(title[0]) if title and len(title[0]) < width // 2 else indent
    options: Any = {"break_long_words": False, "break_on_hyphens": False, "drop_whitespace": True}
    start = title[0] if title and hanging != indent else indent
    return textwrap.wrap(line[len(start) :], width, initial_indent=start, subsequent_indent=hanging, **options) or [line]


def tell(*lines: object) -> None:
    """Prints lines to standard error, as `_PrintableStream` does: what is no part of a command's result."""
    print(*lines, sep="\n", file=_PrintableStream(sys.stderr))


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Makes standard output a `_PrintableStream` in this block. (Progress bars move the cursor, on standard error.)"""
    before = sys.stdout
    sys.stdout = _PrintableStream(before)
    try:
        yield
    finally:
        sys.stdout = before
