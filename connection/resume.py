"""Going on with a run: from its newest checkpoint, with its own settings, on the same data and model, or not at all."""

from __future__ import annotations

from typing import Any

from connection import environment
from connection.checkpoints import Checkpoints, Kept
from connection.errors import InputError
from connection.flags import check_values, flag_of
from connection.settings import TrainSettings, as_json

# Settings that change nothing in what is trained; those that each start has anew; those that name files, whose content is
# compared.
MAY_DIFFER = {"cache_dir", "log_steps", "num_workers", "checkpoint_steps", "keep_checkpoints", "on_nonfinite"}
OF_THIS_START = {"output_dir", "overwrite", "resume", "extend", "print_model"}
FILES = {"model_dir", "train_file", "dev_file", "test_file"}
AS_USED = ("device", "precision", "threads")  # what "auto" came to: it stays so


def continued(settings: TrainSettings) -> tuple[TrainSettings, Kept]:
    """The settings of the run in `settings.output_dir`, and its newest checkpoint.

    A flag that is not given now is as it was; so is an unchanged constant. Raises `InputError` that lists the settings which
    differ and could change the result, or when there is no whole checkpoint.
    """
    output = environment.expand(settings.output_dir).resolve()
    kept = Checkpoints(output / "checkpoints", settings.keep_checkpoints).newest()
    try:
        then, given = kept.values["settings"], set(kept.values["given"])
        used = {name: kept.values["used"][name] for name in AS_USED}
        values, problems = check_values({name: then[name] for name in as_json(settings)})
    except (KeyError, TypeError) as error:
        raise InputError(f"{kept.folder} is of another version of this project: it lacks {error}") from None
    for name, value in as_json(settings).items():
        # What came from a flag then and has none now is meant to be as it was; else a constant has been edited.
        asked = name in settings.given or name not in given
        if name in OF_THIS_START or (asked and name in MAY_DIFFER) or (name in FILES and name in settings.given):
            values[name] = value
        elif name in AS_USED and value in ("auto", 0, used[name]):
            values[name] = used[name]
        elif asked and name not in FILES and value != values[name]:
            more = name == "epochs" and value > values[name]
            if more and settings.extend:
                values[name] = value
            else:
                also = "; for more of them give --extend too" if more else ""
                problems.append(f"{flag_of(name)}: {value!r} now, {values[name]!r} in the run so far{also}")
    if settings.extend and not problems and values["epochs"] <= then["epochs"]:
        problems.append(f"--extend: --epochs must be above the {then['epochs']} of the run so far")
    if problems:
        title = f"The run in {output} can't be resumed with other settings. Leave these out, or begin a new run elsewhere:"
        raise InputError.listing(title, problems, limit=len(problems))
    return TrainSettings(**values, given=frozenset(given | set(settings.given))), kept


def require_same(kept: Kept, story: dict[str, Any]) -> list[str]:
    """Remarks on a run that goes on in other circumstances; `story` is what settings.json says of it now.

    Raises `InputError` where a pair file, the model or what was understood of them is not as it was.
    """
    then = kept.values["used"]
    files = {"a pair file": "data_sha256", "the model in --model-dir": "model_sha256"}
    problems = []
    for what, key in files.items():
        before, now = (list(value.values()) if isinstance(value := told[key], dict) else value for told in (then, story))
        if before != now:
            problems.append(f"{what} has another content than when the run began")
    for key in ("label_min", "label_max", "pooling", "loss", "matryoshka_dims", "device"):
        if then[key] != story[key]:
            problems.append(f"{key} is {story[key]} now, {then[key]} in the run so far")
    if problems:
        raise InputError.listing(f"The run can't be resumed from {kept.folder}:", problems)
    versions = [
        f"{name} {then['versions'].get(name)} -> {version}"
        for name, version in story["versions"].items()
        if then["versions"].get(name) != version
    ]
    remark = "note: other versions than at the start, so not equal to the last bit: " + ", ".join(versions)
    return [*(f"note: {note}" for note in kept.notes), *([remark] if versions else [])]
