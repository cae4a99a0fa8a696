"""The two kinds of errors that end a command. Their messages are written for the person at the terminal."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable, Sequence

from connection.system.escapes import printable, printable_lines, printable_output
from connection.system.streams import flush, is_kept, replace_missing_streams


class InputError(Exception):
    """Says what is wrong with the command's flags, files or folders. The command prints it and exits with status 2."""

    @classmethod
    def listing(cls, title: str, problems: Sequence[str], limit: int = 20, total: int = 0) -> InputError:
        """Returns one error for all `problems`: a line for each of the first `limit`, then the number of the others.

        total: the number of all problems, if `problems` holds only the first ones.
        """
        total = max(total, len(problems))
        lines = [title, *(f"  - {printable(problem)}" for problem in problems[:limit])]
        if total > limit:
            lines.append(f"  ... and {total - limit} more")
        return cls("\n".join(lines))


class RunError(Exception):
    """Says why a run failed after it had started. The command prints it and exits with status 1."""


def is_memory_full(error: BaseException) -> bool:
    """Returns whether an error, which may be a library's own, says that the memory is full."""
    said = (str(error).splitlines() or [""])[0].lower()
    if isinstance(error, MemoryError) or getattr(error, "errno", 0) == errno.ENOMEM:
        return True
    return any(words in said for words in ("allocate memory", "out of memory", "memory allocation"))


def exit_status(work: Callable[[], int], failed: str = "The run stopped", stopped: str = "Stopped.") -> int:
    """Run a command's work and return its exit status; after an error, print its message and return the error's status.

    These are 2 for bad input, 1 for a failed run, a full memory and errors of the system, 130 for Ctrl-C. A reader that wants
    no more of the output (`| head -1`) ends the command quietly, with 141 as SIGPIPE would. `failed` begins the message of a
    failure, and `stopped` is that of Ctrl-C.
    """
    from connection.system.processes import say_once  # late: it raises the errors of this module

    replace_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal's encoding lacks are shown as \\u....
            stream.reconfigure(errors="backslashreplace")
    try:
        with printable_output():
            status = work()
        sys.stdout.flush()
        return status
    except InputError as error:
        say_once(printable_lines(error))
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_memory_full(error):
            raise
        said = (str(error).splitlines() or [""])[0]
        say_once(f"{failed}: the memory is full ({printable(said[:200])}). Fewer or shorter sentences at a time need less.")
        return 1
    except (RunError, OSError) as error:
        if isinstance(error, BrokenPipeError) and not is_kept(sys.stdout):  # then it is no other pipe's
            return 141
        say_once(f"{failed}: {printable_lines(error)}")
        return 1
    except KeyboardInterrupt:
        say_once(stopped)
        return 130
    finally:
        flush(sys.stdout)
