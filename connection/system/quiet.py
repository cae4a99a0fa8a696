"""--quiet: of all that a run prints, warnings, notes, errors and its last lines are shown, and no progress bar."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

# Lines that are shown, by how they begin, and the further lines of a warning, which are indented.
SHOWN = re.compile(r" *(error|warning|note)\b", re.IGNORECASE)
GAIN = re.compile(r"\S+ (gained|lost) ")
FURTHER = re.compile(r" {8}")


class _QuietStream:
    """A stream that drops each line but those of `SHOWN` and `GAIN`. `below` takes every line."""

    def __init__(self, below: Any):
        self.below, self.begun, self.shown = below, "", False

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            kept = bool(SHOWN.match(line))
            self.shown = kept or bool(self.shown and FURTHER.match(line))
            if self.shown or GAIN.match(line):
                self.below.write(f"{line}\n")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)


class _NoTerminal:
    """Standard error as progress bars see it: they are drawn on terminals alone."""

    def __init__(self, below: Any):
        self.below = below

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)


@contextlib.contextmanager
def quiet_output(quiet: bool) -> Iterator[None]:
    """In this block, if it is to be quiet, standard output shows little and progress bars are not drawn."""
    before = sys.stdout, sys.stderr
    if quiet:
        sys.stdout, sys.stderr = _QuietStream(sys.stdout), _NoTerminal(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def aloud() -> Any:
    """Return the stream for a line that a quiet run prints too: print(line, file=aloud())."""
    return getattr(sys.stdout, "below", sys.stdout)
