"""Event files for TensorBoard (--tensorboard): the lines of metrics.jsonl as scalars, written while the run trains."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from connection.system.bounded_json import parse_json
from connection.system.errors import InputError
from connection.system.plain_files import read_plain

FOLDER = "tensorboard"  # in a run folder
LONGEST = 1 << 32  # bytes of a metrics.jsonl that is read again


def require_tensorboard() -> None:
    """Raises `InputError` with the command that installs the package, if it is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard needs the package of that name. Type: pip install -r requirements-tensorboard.txt")


class EventFiles:
    """New event files beside `metrics`, a run's metrics.jsonl, whose lines come first: a resumed run has one curve, not two."""

    def __init__(self, metrics: Path):
        require_tensorboard()
        from tensorboard.summary import Writer

        folder = metrics.with_name(FOLDER)
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = Writer(str(folder))
        for number, line in enumerate(read_plain(metrics, most=LONGEST).splitlines(), 1):
            try:
                self._add(parse_json(line))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{metrics}, line {number} is not of a run: {error!r:.100}") from None
        self.writer.flush()

    def add(self, figures: Mapping[str, Any]) -> None:
        """Add the figures of a line of metrics.jsonl, and write them out."""
        self._add(figures)
        self.writer.flush()

    def _add(self, figures: Mapping[str, Any]) -> None:
        split = figures.get("split", "train")
        for name, value in scalars(figures):
            self.writer.add_scalar(f"{split}/{name}", value, figures["step"])

    def close(self) -> None:
        """Write out what is left and end the thread that writes."""
        self.writer.close()


def scalars(figures: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers among a line's figures by name, those of a dict as "binary/f1"; not step, texts and undefined ones."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{within}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            yield within + name, float(value)
