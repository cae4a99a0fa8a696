"""The libraries that a run needs: whether they are installed, and in which versions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connection.system.errors import InputError
from connection.system.paths import ROOT, shell_line

LIBRARIES = ("torch", "transformers", "pandas", "tqdm", "numpy", "safetensors", "huggingface_hub", "tokenizers")
UNRECORDED = ("filelock", "jinja2")  # no figure depends on its version
OLDEST_TORCH = (2, 10)


def require_libraries() -> None:
    """Raises `InputError` that names the libraries which are not installed, and the command that installs them.

    Without the transformers library, `import transformers` succeeds all the same: it finds this repository's folder of weights,
    as an empty namespace package. So a package without an __init__ file counts as missing.
    """
    specs = {name: importlib.util.find_spec(name) for name in (*LIBRARIES, *UNRECORDED)}
    missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]
    if missing:
        raise InputError(f"Not installed: {', '.join(missing)}. {_way_out()}")
    require_torch()


def _way_out() -> str:
    """Returns what to type where libraries are missing: also the command for this folder's .venv, where one is not in use."""
    typed = {"bin": "source", "Scripts": "call"}
    there = [folder for folder in typed if (ROOT / ".venv" / folder).is_dir()]
    if not there or Path(sys.prefix).resolve() == (ROOT / ".venv").resolve():
        return "Type: pip install -r requirements.txt"
    activate = shell_line([typed[there[0]], f".venv/{there[0]}/activate"], ROOT)
    return f"If they are in this folder's .venv: {activate} Otherwise: pip install -r requirements.txt"


def require_torch() -> None:
    """Raises `InputError` for a PyTorch so old that a file of weights can run code when it is loaded."""
    version = importlib.metadata.version("torch")
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise InputError(
            f"PyTorch {version} is too old to read weights safely: {oldest} or later is needed. "
            "Type: pip install -r requirements.txt"
        )


def describe(data_sha256: Mapping[Path, str]) -> dict[str, Any]:
    """Returns versions, platform, git commit (None outside a checkout) and the data files' SHA-256, for settings.json."""
    commit = None
    try:
        asked = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        commit = asked.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        pass
    return {
        "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}},
        "platform": platform.platform(),
        "git_commit": commit,
        "data_sha256": {str(path): digest for path, digest in data_sha256.items()},
    }
