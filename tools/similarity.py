# PYTHON_ARGCOMPLETE_OK
"""The earlier name of tools.score."""

from __future__ import annotations

import sys

from tools.score import main

if __name__ == "__main__":
    sys.exit(main())
