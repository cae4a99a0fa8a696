"""Reads training settings from flags, from Python and from the driver's constants, and checks every value."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from connection.data.findings import KINDS
from connection.settings import BUNDLED, EXAMPLES, GROUPS, TrainSettings, flag_of, setting_fields
from connection.system.errors import InputError
from connection.system.flags import Flags, flag_words, nearest
from connection.system.paths import ROOT, resolve
from connection.training.flag_habits import translate
from connection.training.training_files import parse_training_files

SEVERAL = "str | tuple[str, ...]"  # a flag that may be given more than once
TYPES = {"str": str, "str | None": str, SEVERAL: str, "int": int, "float": float, "float | None": float, "int | None": int,
         "bool": bool}  # fmt: skip
NOT_GIVEN = object()  # stored by argparse for a flag without its value: `--epochs --seed 1`


def read_settings(argv: Sequence[str], constants: Mapping[str, Any], description: str) -> TrainSettings:
    """Read the settings from the flags in `argv`; a setting without a flag takes the constant of its name from `constants`.

    Raises `InputError` that lists all unknown flags, wrong types and values out of range at once. `--help` prints and exits.
    """
    parser = _flag_parser(constants, description)
    words, remarks, refused = translate(flag_words(argv), constants)
    words, unknown = parser.known_words(words)
    given, stray = parser.parse_known_args(words)
    problems = refused + unknown + [f"{word}: belongs to no flag" for word in stray]
    return _settings(vars(given), constants, problems, remarks)


def make_settings(given: Mapping[str, Any], constants: Mapping[str, Any]) -> TrainSettings:
    """Return settings with the values `given` by name, and the others from `constants`. Raises as `read_settings` does."""
    names = [field.name for field in setting_fields()]
    problems = [f"{name}: no such setting{nearest(name, names)}" for name in given if name not in names]
    paths = {name: _as_text(value) for name, value in given.items() if name in names}
    return _settings(paths, constants, problems)


def _as_text(value: Any) -> Any:
    """Return a path, or each of several, as text; anything else as it is."""
    if isinstance(value, list | tuple):
        return [_as_text(part) for part in value]
    return str(value) if isinstance(value, os.PathLike) else value


def _settings(
    given: Mapping[str, Any], constants: Mapping[str, Any], problems: list[str], remarks: Sequence[str] = ()
) -> TrainSettings:
    """Check the values that are given and the constants for the others. Raises `InputError` for all problems at once."""
    raw = {field.name: given.get(field.name, constants[field.name.upper()]) for field in setting_fields()}
    values, wrong = check_values(raw)
    problems = problems + wrong
    problems += [f"{flag_of(name)}: is empty" for name in ("model_dir", "train_file", "output_dir") if values[name] == ""]
    if not problems and values["dev_fraction"] + values["test_fraction"] >= 1:
        problems.append("--dev-fraction: with --test-fraction it leaves no pairs for training; their sum must be below 1")
    if values["resume"] and values["overwrite"]:
        problems.append("--resume: does not go with --overwrite")
    if values["soup"] and (values["seeds"] or 2) < 2:
        problems.append("--soup: averages the models of several --seeds, such as --seeds 5")
    if values["extend"] and (not values["resume"] or (values["seeds"] or 1) > 1):
        problems.append("--extend: goes with --resume, of one seed at a time")
    if problems:
        raise InputError.listing("These settings can't be used (--help lists all of them):", problems, limit=len(problems))
    first = parse_training_files(values["train_file"])[0]
    if resolve(first.path) != ROOT / BUNDLED["train_file"]:  # whose dev and test pairs say nothing about others
        values |= {name: "" for name in ("dev_file", "test_file") if name not in given and values[name] == BUNDLED[name]}
    for remark in () if values["quiet"] else remarks:
        print(remark)
    return TrainSettings(**values, given=frozenset(given))


def check_values(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Convert the values in `raw`, text or not, to the settings' types. Returns the values, and all problems found."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in setting_fields():
        if field.name in raw:
            values[field.name], problem = _checked(field, raw[field.name])
            problems += [f"{flag_of(field.name)}: {problem}"] * bool(problem)
    low, high = values.get("label_min"), values.get("label_max")
    if low is not None and low == high:
        problems.append(
            f"--label-min: {low:g} is --label-max too: a scale has two ends, the higher one first if less is nearer"
        )
    unknown = {name.strip() for name in (values.get("allow") or "").split(",") if name.strip()} - set(KINDS)
    problems += [f"--allow: {name} is no finding; they are {', '.join(KINDS)}" for name in sorted(unknown)]
    return values, problems


def _flag_parser(constants: Mapping[str, Any], description: str) -> Flags:
    parser = Flags(
        "python bertFineTuningWithConnectionData.py", description, EXAMPLES,
        usage="python bertFineTuningWithConnectionData.py [flags]", argument_default=argparse.SUPPRESS,
    )  # fmt: skip
    fields = {field.name: field for field in setting_fields()}
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names.split():
            field, default = fields[name], constants[name.upper()]
            help_text = field.metadata["help"].replace("%", "%%")
            if field.metadata["choices"]:
                help_text += f": {', '.join(field.metadata['choices'])}"
            help_text += f" (default: {default!r})" if isinstance(default, str) else f" (default: {default})"
            if field.type == "bool":
                group.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, help=help_text)
            else:  # values stay text here, so that all invalid ones can be reported together
                metavar = {"str": "TEXT", "str | None": "TEXT", "int": "N", SEVERAL: "TEXT"}.get(str(field.type), "X")
                action = "append" if field.type == SEVERAL else "store"
                flag: Any = group.add_argument(
                    flag_of(name), nargs="?", const=NOT_GIVEN, metavar=metavar, help=help_text, action=action
                )
                if choices := field.metadata["choices"]:
                    flag.completer = lambda choices=choices, **_: choices  # at the tab key
    return parser


def _checked(field: Any, raw: Any) -> tuple[Any, str]:
    """Return `raw` in the field's type, and the problem with it ('' if there is none)."""
    meta, kind = field.metadata, TYPES[field.type]
    if field.type == SEVERAL and isinstance(raw, list | tuple):
        if not raw or any(text is NOT_GIVEN for text in raw):
            return None, "needs a value"
        if other := [text for text in raw if not isinstance(text, str)]:
            return None, f"{other[0]!r:.100} is not text"
        raw = tuple(raw) if len(raw) > 1 else raw[0]
    if raw is NOT_GIVEN:
        return None, "needs a value"
    if raw is None and field.type.endswith("None"):
        return None, ""
    if kind is bool or kind is str:
        if not isinstance(raw, (kind, tuple) if field.type == SEVERAL else kind):
            return None, f"{raw!r} is not {'True or False' if kind is bool else 'text'}"
        if meta["choices"] and raw not in meta["choices"]:
            return None, f"{raw!r} is none of {', '.join(meta['choices'])}"
        try:
            meta["check"](raw)
        except InputError as error:
            return None, str(error)
        return raw, ""
    try:
        if isinstance(raw, bool) or "_" in str(raw) or (kind is int and isinstance(raw, float) and not raw.is_integer()):
            raise ValueError
        value = kind(raw)
        if not math.isfinite(value):
            return None, f"{raw!r} is not a finite number"
    except (TypeError, ValueError, OverflowError):
        return None, f"{str(raw)[:40]!r} is not {'a whole number' if kind is int else 'a number'} that can be used"
    if value < meta["low"]:
        return None, f"{value:g} is below the smallest value, {meta['low']:g}"
    if value <= meta["above"]:
        return None, f"{value:g} is not above {meta['above']:g}"
    if value > meta["high"]:
        return None, f"{value:g} is above the largest value, {meta['high']:g}"
    return value, ""
