"""The two ways a command ends badly. Both carry a message written for the person at the terminal."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(Exception):
    """Bad usage, file or folder: the command prints the message and exits with status 2."""

    @classmethod
    def listing(cls, title: str, problems: Sequence[str], limit: int = 20) -> InputError:
        """One error for all `problems`: the first `limit` of them, a line each, then how many more there are."""
        lines = [title, *(f"  - {problem}" for problem in problems[:limit])]
        if len(problems) > limit:
            lines.append(f"  ... and {len(problems) - limit} more")
        return cls("\n".join(lines))


class RunError(Exception):
    """A run that started well and failed: the command prints the message and exits with status 1."""
