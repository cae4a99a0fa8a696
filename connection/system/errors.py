"""The two ways a command ends badly. Both carry a message written for the person at the terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence


class InputError(Exception):
    """Bad usage, file or folder: the command prints the message and exits with status 2."""

    @classmethod
    def listing(cls, title: str, problems: Sequence[str], limit: int = 20, total: int = 0) -> InputError:
        """One error for all `problems`: the first `limit` of them, a line each, then how many more there are.

        total: how many there are, where `problems` are the first only.
        """
        total = max(total, len(problems))
        lines = [title, *(f"  - {problem}" for problem in problems[:limit])]
        if total > limit:
            lines.append(f"  ... and {total - limit} more")
        return cls("\n".join(lines))


class RunError(Exception):
    """A run that started well and failed: the command prints the message and exits with status 1."""


def exit_status(work: Callable[[], int], failed: str = "The run stopped", stopped: str = "Stopped.") -> int:
    """The status of a command's work, or with a message 2 for bad input, 1 for a failed run, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding can't hold is shown as \\u....
            stream.reconfigure(errors="backslashreplace")
    try:
        return work()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        said = (str(error).splitlines() or [""])[0]
        if not isinstance(error, MemoryError) and "allocate memory" not in said and "out of memory" not in said:
            raise
        print(f"{failed}: the memory is full ({said:.200}). Fewer or shorter sentences at a time need less.", file=sys.stderr)
        return 1
    except (RunError, OSError) as error:
        print(f"{failed}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
