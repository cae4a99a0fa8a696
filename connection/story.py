"""What settings.json says of a run: everything that its figures follow from."""

from __future__ import annotations

from typing import Any

from connection.environment import describe
from connection.prepare import Prepared
from connection.settings import TrainSettings, as_json


def run_story(settings: TrainSettings, prepared: Prepared, model_sha256: str, used: dict[str, Any]) -> dict[str, Any]:
    """The settings, with `used` in place of what was asked for; what was asked; the pairs, the model, and the versions."""
    described = describe([store.path for store in prepared.stores.values()])
    parts = {part: described["data_sha256"][str(store.path)] for part, store in prepared.stores.items()}
    asked = as_json(settings)
    scale = {"label_min": prepared.scale.low, "label_max": prepared.scale.high}
    digests = {"model_sha256": model_sha256, "parts_sha256": parts}
    return asked | scale | used | described | digests | {"asked": asked, "given": sorted(settings.given)}
