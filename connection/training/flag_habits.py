"""Flags that people type from habit, of the transformers library's scripts, as the flags here. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SAME = {
    "--per-device-train-batch-size": "--batch-size",
    "--per-device-batch-size": "--batch-size",
    "--train-batch-size": "--batch-size",
    "--num-train-epochs": "--epochs",
    "--num-epochs": "--epochs",
    "--max-seq-length": "--max-length",
    "--lr-scheduler-type": "--schedule",
    "--warmup-proportion": "--warmup-ratio",
}
VALUES = {("--schedule", "constant_with_warmup"): "constant"}
ALONE = {"--bf16": ("--precision", "bf16"), "--fp32": ("--precision", "fp32")}
REFUSED = {
    "--do-lower-case": "the model's tokenizer decides it: do_lower_case in its tokenizer_config.json",
    "--fp16": "there is no fp16 here; --precision bf16 has the range of fp32 and needs no loss scaling",
}


def translate(words: Sequence[str], constants: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Return the words with flags of this project, remarks on what was replaced, and problems with what can't be.

    words: after `flag_words`. constants: of the training command, for the batch size if no flag gives it.
    """
    found: list[str] = []
    remarks: list[str] = []
    problems: list[str] = []
    words = [part for word in words for part in _parts(word)]
    steps, place = "", 0
    while place < len(words):
        word = words[place]
        value = words[place + 1] if place + 1 < len(words) and not words[place + 1].startswith("--") else ""
        place += 1
        if word in ALONE:
            found += ALONE[word]
            remarks.append(f"{word} is {' '.join(ALONE[word])} here")
        elif word in REFUSED:
            problems.append(f"{word}: {REFUSED[word]}")
            place += bool(value)
        elif word in SAME:
            found += [SAME[word], *([VALUES.get((SAME[word], value), value)] if value else [])]
            remarks.append(f"{word} is {SAME[word]} here")
            place += bool(value)
        elif word == "--gradient-accumulation-steps":
            steps = value
            place += 1
        elif word == "--warmup-steps":
            place += bool(value)
            if _is_share(value):
                found += ["--warmup-ratio", value]
                remarks.append("--warmup-steps below 1 is --warmup-ratio here")
            else:
                problems.append(
                    f"{word}: --warmup-ratio takes the share of all steps, {value or 'N'} / (epochs x pairs / batch size)"
                )
        else:
            found.append(word)
    if steps:
        size = next((after for before, after in zip(found[-2::-1], found[::-1], strict=False) if before == "--batch-size"), "")
        size = size or str(constants["BATCH_SIZE"])
        if not (steps.isdecimal() and size.isdecimal() and int(steps)):
            problems.append(f"--gradient-accumulation-steps: {steps!r:.50} is no number of steps")
        else:
            whole = int(steps) * int(size)
            found += ["--batch-size", str(whole), "--part-size", size]
            remarks.append(
                f"--gradient-accumulation-steps {steps}: a batch of {whole} pairs, {size} at a time (--batch-size {whole} "
                f"--part-size {size}); the objective is that of the whole batch"
            )
    return found, remarks, problems


def _parts(word: str) -> list[str]:
    """A flag of habit and its value as two words; any other word as it is."""
    name, equals, value = word.partition("=")
    ours = name in SAME or name in ("--gradient-accumulation-steps", "--warmup-steps")
    return [name, value] if equals and ours else [word]


def _is_share(value: str) -> bool:
    try:
        return 0 <= float(value) < 1
    except ValueError:
        return False
