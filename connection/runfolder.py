"""The folder of one run: settings.json, metrics.jsonl, results.json, report.html and model/."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from connection.errors import InputError

FILES = ("settings.json", "metrics.jsonl", "results.json", "report.html")
FOLDERS = ("model", "checkpoints")


class RunFolder:
    """Opens the folder for a new run.

    Raises `InputError` when it is not empty and `overwrite` is off, or can't be written. With `overwrite`, what an earlier
    run wrote there is removed, and nothing else.
    """

    def __init__(self, path: Path, overwrite: bool):
        self.path = path
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise InputError(
                f"--output-dir {path} is not empty. Give another folder, or --overwrite to replace the earlier run in it."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                (path / name).unlink(missing_ok=True)
            for name in FOLDERS:
                if (path / name).is_dir():
                    shutil.rmtree(path / name)
            (path / "metrics.jsonl").touch()
        except OSError as error:
            raise InputError(f"--output-dir {path} can't be written: {error.strerror}") from None

    @property
    def model(self) -> Path:
        return self.path / "model"

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
        (self.path / name).write_text(text + "\n", encoding="utf-8")

    def log(self, **figures: Any) -> None:
        """Append one line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(figures), allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity: an undefined figure is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
