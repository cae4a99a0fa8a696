"""torchrun --max-restarts: a run that is started anew after a failure goes on from its newest checkpoint."""

from __future__ import annotations

import dataclasses

from connection.settings import TrainSettings
from connection.system.errors import InputError
from connection.system.paths import output_folder
from connection.system.processes import is_restarted, started_together


def as_restarted(settings: TrainSettings) -> TrainSettings:
    """Return the settings with which a run begins, or goes on after a failure of one of its processes.

    A run that has no checkpoint yet begins anew in its folder. Raises `InputError` for --seeds with several processes.
    """
    if settings.seeds > 1 and started_together():
        raise InputError(
            "--seeds trains one run after the other in one process: leave out torchrun, or leave out --seeds and give each run "
            "its own --seed and --output-dir."
        )
    if not is_restarted():
        return settings
    from connection.runs.checkpoints import Checkpoints

    goes_on = bool(Checkpoints(output_folder(settings.output_dir) / "checkpoints", 0).steps())
    return dataclasses.replace(settings, resume=goes_on, overwrite=not goes_on)
