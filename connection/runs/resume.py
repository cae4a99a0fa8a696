"""Resumes a run from its newest checkpoint, with its own settings; refuses other data or another model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from connection.data.prepare import Prepared
from connection.data.split import training_splits
from connection.runs.checkpoints import Checkpoint, Checkpoints
from connection.runs.output_folder import ENTRIES, SEEDS
from connection.settings import CONTENT, MACHINE, NEUTRAL, START, TrainSettings, as_json, flag_of, names_of
from connection.settings_reader import check_values
from connection.system.errors import InputError
from connection.system.folder_lock import Lock, lock_folder
from connection.system.paths import output_folder, resolve
from connection.system.plain_files import require_no_links
from connection.system.processes import copy_from_first, from_first, is_restarted, rank
from connection.system.versions import describe
from connection.training.training_files import parse_training_files

# key in settings.json whose value must be the same when a run is resumed: its name in messages
SAME = {
    "model_sha256": "the model in --model-dir (SHA-256)", "label_min": "label scale from", "label_max": "label scale to",
    "pooling": "pooling", "loss": "objective", "matryoshka_dims": "Matryoshka dimensions", "device": "device",
    "prompt1": "prompt of first sentences", "prompt2": "prompt of second sentences",
    "train_ratios": "ratios of the training files",
}  # fmt: skip
DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


def read_checkpoint(settings: TrainSettings, held: contextlib.ExitStack) -> tuple[TrainSettings, Checkpoint, Lock]:
    """Return the settings of the run in `settings.output_dir`, its newest complete checkpoint, and the folder's lock.

    `held` releases the lock. Flags that are not given now and constants that were not edited keep the run's values. Raises
    `InputError` if there is no complete checkpoint, or with a list of differing settings that could change the result.
    """
    output = output_folder(settings.output_dir)
    if not output.is_dir():
        raise InputError(f"There is no checkpoint to resume from: --output-dir {output} is not there.")
    require_no_links(output, ENTRIES)
    # The lock comes first: a run that is about to end may still write and remove checkpoints.
    lock = held.enter_context(lock_folder(output))
    if (output / SEEDS).is_file():
        raise InputError(f"{output} is a run of several seeds: give --seeds too, or the folder of one seed in it.")
    checkpoint = Checkpoints(output / "checkpoints", settings.keep_checkpoints).newest()
    return settings_then(settings, checkpoint.values.get("settings", {}), checkpoint.folder), checkpoint, lock


def resumed_together(settings: TrainSettings, held: contextlib.ExitStack) -> tuple[Any, ...]:
    """Return what `read_checkpoint` does, with `held`, in the order of a TrainingRun's arguments.

    Of several processes, the first one reads the checkpoint and has the lock; the others, on other machines too, get the rest.
    """
    lock, tensors = None, {}

    def read() -> tuple[TrainSettings, Checkpoint]:
        nonlocal lock, tensors
        then, checkpoint, lock = read_checkpoint(settings, held)
        tensors = checkpoint.tensors
        return then, checkpoint._replace(tensors={name: tensor.to("meta") for name, tensor in tensors.items()})

    then, checkpoint = from_first(read)
    if rank():
        tensors = {name: torch.empty_like(tensor, device="cpu") for name, tensor in checkpoint.tensors.items()}
    copy_from_first([*tensors.values()])
    return then, held, checkpoint._replace(tensors=tensors), lock


def settings_then(settings: TrainSettings, record: dict[str, Any], place: Path) -> TrainSettings:
    """Return the settings in an earlier run's `record`, read from `place`, updated with those that are given now."""
    try:
        values, problems = _values(settings, record)
    except DAMAGED as error:
        raise InputError(f"{place} is of another version of this project, or changed: {error!r:.200}") from None
    if problems:
        output = output_folder(settings.output_dir)
        title = (
            f"The run in {output} can't be resumed with these settings. Leave out what differs, or begin a new run elsewhere:"
        )
        raise InputError.listing(title, problems, limit=len(problems))
    return TrainSettings(**values, given=frozenset({*record["given"], *settings.given}))


def _values(settings: TrainSettings, record: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return all settings of the resumed run, and the problems of those that are asked for now."""
    then, given = record["asked"], set(record["given"])
    if "train_file" in given:  # then the bundled dev and test pairs were not used
        given |= {"dev_file", "test_file"}
    used = {name: record[name] for name in names_of(MACHINE)}
    values, problems = check_values({name: then[name] for name in as_json(settings)} | used)
    for name, value in as_json(settings).items():
        # A flag of the earlier command that is not given now keeps its value. Without one, the constant may have been edited.
        asked = name in settings.given or name not in given
        if name in names_of(START) or (asked and name in names_of(NEUTRAL, CONTENT)):
            values[name] = value
        elif asked and value != values[name] and not (name in names_of(MACHINE) and value in ("auto", 0)):
            more = name == "epochs" and value > values[name]
            if more and settings.extend:
                values[name] = value
            else:
                also = "; for more of them give --extend too" if more else ""
                problems.append(f"{flag_of(name)}: {value!r} now, {values[name]!r} in the run so far{also}")
    problems += [
        f"{flag_of(name)}: {path} is not there, seen from {Path.cwd()}; say where it is now"
        for name in sorted(names_of(CONTENT))
        for path in (_training_paths(values[name]) if name == "train_file" else [values[name]])
        if path and not resolve(path).exists()
    ]
    if settings.extend and not problems and values["epochs"] < then["epochs"] + (not is_restarted()):
        problems.append(f"--extend: --epochs must be above the {then['epochs']} of the run so far")
    return values, problems


def _training_paths(value: Any) -> list[str]:
    return [file.path for file in parse_training_files(value)] if value else []


def require_same(checkpoint: Checkpoint, record: dict[str, Any]) -> list[str]:
    """Return remarks on a resumed run: damaged checkpoints, other versions. `record` is its settings.json now.

    Raises `InputError` if the pairs, the model or a value named in `SAME` have changed.
    """
    try:
        recorded: dict[str, Any] = {"train_ratios": [1.0]} | checkpoint.values["settings"]
        then = {key: recorded[key] for key in (*SAME, "parts_sha256", "versions", "git_commit")}
        parts = {part: then["parts_sha256"].get(part) for part in (*then["parts_sha256"], *record["parts_sha256"])}
        versions = {name: then["versions"].get(name) for name in record["versions"]} | {"git commit": then["git_commit"]}
    except DAMAGED as error:
        raise InputError(f"{checkpoint.folder} is of another version of this project, or changed: {error!r:.200}") from None
    paths = _training_paths(record["train_file"])
    files = {part: record.get(f"{part}_file") for part in ("dev", "test")} | dict(
        zip(training_splits(len(paths)), paths, strict=True)
    )
    problems = [
        f"the {part} pairs ({files.get(part) or 'none'}) are not those of the run so far"
        for part, digest in parts.items()
        if record["parts_sha256"].get(part) != digest
    ]
    problems += [f"{SAME[key]}: {record[key]} now, {then[key]} in the run so far" for key in SAME if then[key] != record[key]]
    if problems:
        raise InputError.listing(f"The run can't be resumed from {checkpoint.folder}:", problems)
    now = record["versions"] | {"git commit": record["git_commit"]}
    known = {name: version for name, version in now.items() if versions[name] is not None or name == "git commit"}
    changed = [f"{name} {versions[name]} -> {version}" for name, version in known.items() if versions[name] != version]
    remark = "note: other versions than at the start, so perhaps not equal to the last bit: " + ", ".join(changed)
    return [*(f"note: {note}" for note in checkpoint.notes), *([remark] if changed else [])]


def run_record(settings: TrainSettings, prepared: Prepared, model_sha256: str, used: dict[str, Any]) -> dict[str, Any]:
    """Return settings.json: settings with the values `used`, settings as asked for, digests of pairs and model, versions."""
    described = describe({store.path: store.sha256 for store in prepared.stores.values()})
    parts = {part: store.sha256 for part, store in prepared.stores.items()}
    asked = as_json(settings)
    scale = {"label_min": prepared.scale.low, "label_max": prepared.scale.high}
    digests = {"model_sha256": model_sha256, "parts_sha256": parts}
    ratios = {"train_ratios": [file.ratio for file in settings.train_files]}
    return asked | scale | used | described | digests | ratios | {"asked": asked, "given": sorted(settings.given)}
