"""Training settings from command-line flags and the constants at the top of the driver: read, checked, all problems at once."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from connection.errors import InputError
from connection.findings import KINDS
from connection.settings import TrainSettings, setting_fields

TYPES = {"str": str, "int": int, "float": float, "float | None": float, "int | None": int, "bool": bool}
NOT_GIVEN = object()  # what argparse stores for a flag whose value is missing: `--epochs --seed 1`


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_settings(argv: Sequence[str], constants: Mapping[str, Any], description: str) -> TrainSettings:
    """Settings from the flags in `argv`; a setting without a flag takes the constant of its name from `constants`.

    Raises `InputError` that lists every unknown flag, wrong type and value out of range at once. `--help` prints and exits.
    """
    given, unknown = _flag_parser(constants, description).parse_known_args(flag_words(argv))
    raw = {field.name: getattr(given, field.name, constants[field.name.upper()]) for field in setting_fields()}
    values, problems = check_values(raw)
    problems = [f"{word}: no such flag" for word in unknown] + problems
    problems += [f"{flag_of(name)}: is empty" for name in ("model_dir", "train_file", "output_dir") if values[name] == ""]
    if not problems and values["dev_fraction"] + values["test_fraction"] >= 1:
        problems.append("--dev-fraction: with --test-fraction it leaves no pairs for training; their sum must be below 1")
    if values["resume"] and values["overwrite"]:
        problems.append("--resume: does not go with --overwrite")
    if values["extend"] and (not values["resume"] or (values["seeds"] or 1) > 1):
        problems.append("--extend: goes with --resume, of one seed at a time")
    if problems:
        raise InputError.listing("These settings can't be used (--help lists all of them):", problems, limit=len(problems))
    if hasattr(given, "train_file"):
        # The bundled dev and test pairs say nothing about a person's own training file.
        values |= {name: "" for name in ("dev_file", "test_file") if not hasattr(given, name)}
    return TrainSettings(**values, given=frozenset(vars(given)))


def check_values(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Some settings' values in their types, from text or as they are; and what is wrong with any of them."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in setting_fields():
        if field.name in raw:
            values[field.name], problem = _checked(field, raw[field.name])
            problems += [f"{flag_of(field.name)}: {problem}"] * bool(problem)
    low, high = values.get("label_min"), values.get("label_max")
    if low is not None and high is not None and not low < high:
        problems.append(f"--label-min: {low:g} is not below --label-max {high:g}")
    unknown = {name.strip() for name in (values.get("allow") or "").split(",") if name.strip()} - set(KINDS)
    problems += [f"--allow: {name} is no finding; they are {', '.join(KINDS)}" for name in sorted(unknown)]
    return values, problems


def _flag_parser(constants: Mapping[str, Any], description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for field in setting_fields():
        default = constants[field.name.upper()]
        help_text = field.metadata["help"].replace("%", "%%")
        if field.metadata["choices"]:
            help_text += f": {', '.join(field.metadata['choices'])}"
        help_text += f" (default: {default!r})" if isinstance(default, str) else f" (default: {default})"
        if field.type == "bool":
            parser.add_argument(flag_of(field.name), action=argparse.BooleanOptionalAction, help=help_text)
        else:  # values stay text here, so that all wrong ones can be reported together
            metavar = {"str": "TEXT", "int": "N"}.get(str(field.type), "X")
            parser.add_argument(flag_of(field.name), nargs="?", const=NOT_GIVEN, metavar=metavar, help=help_text)
    return parser


def flag_words(argv: Sequence[str]) -> list[str]:
    """--learning_rate -> --learning-rate; and --label-min -1e3 -> --label-min=-1e3, which argparse would take for a flag."""
    words: list[str] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            words.append(name.replace("_", "-") + equals + value)
        elif re.match(r"-[\d.]", word) and words and words[-1].startswith("--") and "=" not in words[-1]:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _checked(field: Any, raw: Any) -> tuple[Any, str]:
    """`raw` in the field's type, and what is wrong with it ('' when nothing is)."""
    meta, kind = field.metadata, TYPES[field.type]
    if raw is NOT_GIVEN:
        return None, "needs a value"
    if raw is None and field.type.endswith("None"):
        return None, ""
    if kind is bool or kind is str:
        if not isinstance(raw, kind):
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
