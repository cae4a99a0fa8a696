"""Standard output and error that are closed, full or gone: reading commands end quietly, training goes on without them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

from connection.system.escapes import tell


class _LastingFile(io.FileIO):
    """An open file whose writing never fails: after the first error it writes to the null device."""

    def write(self, data: Any) -> int:
        """Writes bytes, and returns their number."""
        try:
            return super().write(data) or 0
        except OSError:
            _to_null_device(self.fileno())
            return len(data)


def keep_streams() -> None:
    """Let this process go on when its terminal, pipe or log file is closed or full: what it prints then is lost.

    A stream that was closed before the start is opened as the null device. Else the next file that is opened would get its
    number, and the libraries' warnings be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the system gives the lowest free number
    replace_missing_streams()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(_raw(stream)) is io.FileIO:
            flush(stream)
            file: Any = _LastingFile(stream.fileno(), "w", closefd=False)
            unbuffered = _raw(stream) is stream.buffer  # PYTHONUNBUFFERED, python -u
            file = file if unbuffered else io.BufferedWriter(file)
            how = {"line_buffering": stream.line_buffering, "write_through": unbuffered}
            setattr(sys, name, io.TextIOWrapper(file, stream.encoding, stream.errors, **how))


def _raw(stream: Any) -> Any:
    """Returns the open file under a text stream; None where there is none."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def is_kept(stream: Any) -> bool:
    """Returns whether `keep_streams` made this stream: writing to it never fails."""
    return isinstance(_raw(stream), _LastingFile)


def replace_missing_streams() -> None:
    """Open the null device as standard output and error where Python has none: they were closed, or Windows gave none."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the end of the process


def flush(stream: Any) -> bool:
    """Write out what a stream holds, and return whether that succeeded. After a failure all of it goes to the null device."""
    try:
        stream.flush()
        return True
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            _to_null_device(stream.fileno())  # else Python would try again at its end, and change the exit status
        return False
    except ValueError:  # closed by the program itself
        return True


def say(text: str) -> None:
    """Print a line to standard error, if it can be written."""
    with contextlib.suppress(OSError, ValueError):
        tell(text)
    flush(sys.stderr)


def _to_null_device(number: int) -> None:
    """Make the open file of this number the null device, for this process and those that it starts."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
