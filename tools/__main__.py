"""Starts every command by its name, from any folder: python PATH/tools check FILE."""

from __future__ import annotations

import pkgutil
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Run the command that is named, as `python -m tools.NAME` in the project's folder does; without a name, list all."""
    sys.path[:0] = [str(FOLDER.parent)]  # where `connection` and `tools` are
    names = sorted(module.name for module in pkgutil.iter_modules([str(FOLDER)]) if not module.name.startswith("_"))
    name, *words = sys.argv[1:] or [""]
    if name not in names:
        print(f"usage: python {sys.argv[0]} COMMAND ...", f"commands: {', '.join(names)}", sep="\n", file=sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    sys.argv = [name, *words]
    runpy.run_module(f"tools.{name}", run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
