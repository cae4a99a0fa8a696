# PYTHON_ARGCOMPLETE_OK
"""Write docs/flags.md: every flag of the training command with its default and meaning, from its constants and settings."""

from __future__ import annotations

import sys
from typing import Any

from connection.runs.training_command import driver_constants
from connection.settings import GROUPS, flag_of, setting_fields
from connection.system.errors import exit_status
from connection.system.flags import Flags
from connection.system.paths import ROOT

TARGET = ROOT / "docs" / "flags.md"
HEAD = """# All flags of the training command

Made by `python -m tools.flags`. Each flag is a constant of the same name at the top of `bertFineTuningWithConnectionData.py`
(`--batch-size` is `BATCH_SIZE`): edit it there, or give the flag. `--learning-rate` and `--learning_rate` are the same. A flag
whose default is `True` or `False` is given alone, `--packing`, or `--no-packing` for the opposite. From
Python each is an argument: `train(train_file="my-pairs.csv", epochs=1)`.
"""
FOOT = """## The tab key
The tab key can complete flags, their values and files, of this command and of every `python -m tools.NAME`. In the active
environment, once: `pip install argcomplete==3.7.2`. Then in each shell, or in its start-up file:
`eval "$(activate-global-python-argcomplete --dest=-)"`. Tried in bash; argcomplete knows zsh too. (`tools.learning_curve` and
`tools.suspects` complete their own flags only.)

## Exit status
0 done, 1 the run failed, 2 bad usage or input, 130 ended by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal. A
command whose output nobody reads any more (`| head -1`) ends with 141; a training goes on.
"""


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0 done, 2 bad usage."""
    Flags("python -m tools.flags", __doc__ or "").parse_args(argv)
    return exit_status(write)


def write() -> int:
    TARGET.write_text(page(), encoding="utf-8", newline="\n")
    return 0


def page() -> str:
    """Return the text of docs/flags.md."""
    constants, fields = driver_constants(), {field.name: field for field in setting_fields()}
    lines = [HEAD]
    for title, names in GROUPS.items():
        lines += [f"## {title.capitalize()}", "| flag | default | meaning |", "|---|---|---|"]
        lines += [_row(fields[name], constants[name.upper()]) for name in names.split()]
        lines.append("")
    return "\n".join([*lines, FOOT])


def _row(field: Any, default: Any) -> str:
    choices = ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
    meaning = field.metadata["help"].replace("|", "\\|") + (f": {choices}" if choices else "")
    return f"| `{flag_of(field.name)}` | {f'`{default}`' if default != '' else 'empty'} | {meaning} |"


if __name__ == "__main__":
    sys.exit(main())
