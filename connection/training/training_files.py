"""One value of --train-file, PATH[:RATIO][:OBJECTIVE]: which part of it is what. Imports nothing heavy."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from connection.system.errors import InputError
from connection.system.paths import resolve
from connection.training.loss_choice import FITS, parse_loss

MOST_RATIO = 1000.0
OBJECTIVES = (*FITS, "auto")


class TrainingFile(NamedTuple):
    """A training file, how much of it an epoch has, and what its batches are trained towards."""

    path: str
    ratio: float = 1.0  # how many times an epoch shows each row, on average
    loss: str = ""  # as --loss; "": the run's --loss


def parse_training_file(text: str) -> TrainingFile:
    """Parse `nli.csv:0.5:multiple-negatives`, from the right: the path may have colons itself.

    The last parts are an objective if `parse_loss` knows its first name, and a ratio if it is a number above 0. A path that is
    there as it stands, and a URL, is never divided. Raises `InputError` for what is nearly one of them.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) or ":" not in text or _is_there(text):
        return TrainingFile(text)
    parts = text.split(":")
    start, loss = _objective(parts)
    path = ":".join(parts[:start])
    ratio = 1.0
    if start > 1 and not _is_there(path) and (number := _number(parts[start - 1])) is not None:
        before = ":".join(parts[: start - 1])
        if not _is_drive(before):
            if not 0 < number <= MOST_RATIO:
                raise InputError(f"{text}: {parts[start - 1]} is no ratio; write a number above 0, at most {MOST_RATIO:g}")
            return TrainingFile(before, number, loss)
    if re.fullmatch(r"[^+:]+:[^+:]+", loss):  # a weight alone: perhaps a ratio in the wrong place
        name, _, weight = loss.partition(":")
        raise InputError(f"{text}: is {weight} the ratio? It stands before the objective: {path}:{weight}:{name}")
    if not loss and not _is_drive(path.rpartition(":")[0]):
        _require_no_near_miss(text, parts)
    return TrainingFile(path, ratio, loss)


def parse_training_files(value: str | Sequence[str]) -> tuple[TrainingFile, ...]:
    """Parse one value or several. Raises `InputError` that says all problems, also for a file that is given twice."""
    files: list[TrainingFile] = []
    problems: list[str] = []
    for text in [value] if isinstance(value, str) else value:
        try:
            files.append(parse_training_file(text))
            if not files[-1].path.strip():
                problems.append("a path is empty" if text.strip() else "is empty")
        except InputError as error:
            problems.append(str(error))
    if len(files) > 1:  # of one file alone, nothing is looked at here
        there = [str(resolve(file.path)) if file.path.strip() else "" for file in files]
        problems += [
            f"{file.path} is given twice; a ratio shows it more often ({file.path}:2), a sum of objectives trains both"
            for number, file in enumerate(files)
            if there[number] and there[number] in there[:number]
        ]
    if problems:
        raise InputError("; ".join(problems))
    return tuple(files)


def _objective(parts: list[str]) -> tuple[int, str]:
    """Return where the objective begins among the parts of a value, and its text; their number and "" if there is none.

    A weighted sum has colons too, so the longest end that is an objective counts. Raises `InputError` for a sum with a mistake.
    """
    wrong: InputError | None = None
    for start in range(1, len(parts)):
        name = parts[start].split("+")[0].strip()
        if name not in OBJECTIVES or _is_drive(":".join(parts[:start])):
            continue
        loss = ":".join(parts[start:])
        try:
            parse_loss(loss)
        except InputError as error:
            wrong = InputError(f"{':'.join(parts)}: {error}")
        else:
            return start, loss.strip()
    if wrong:
        raise wrong
    return len(parts), ""


def _require_no_near_miss(text: str, parts: list[str]) -> None:
    """Raises `InputError` if the last part is no objective, but was meant to be one."""
    last = parts[-1].split("+")[0].strip()
    near = difflib.get_close_matches(last.lower().replace("_", "-"), OBJECTIVES, n=1, cutoff=0.8)
    before = parts[:-2] if len(parts) > 2 and _number(parts[-2]) is not None else parts[:-1]
    if near or _is_there(":".join(before)):
        meant = f"did you mean {near[0]}?" if near else f"they are {', '.join(OBJECTIVES)}"
        raise InputError(f"{text}: {last!r} is no ratio and no objective; {meant}")


def _is_there(path: str) -> bool:
    try:
        return bool(path.strip()) and resolve(path).exists()
    except (InputError, OSError, ValueError):
        return False


def _is_drive(path: str) -> bool:
    """Return whether this is the letter of a Windows drive, whose colon belongs to the path, and not a file here."""
    return len(path) == 1 and path.isalpha() and not _is_there(path)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if "_" in text else math.inf if math.isnan(number) else number
