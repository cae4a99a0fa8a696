"""Prints the start and the end of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from connection.reports.results import RunResults
from connection.reports.tables import (
    before_and_after,
    epoch_table,
    errors_sentence,
    figures_table,
    gain_sentence,
    gain_table,
    render,
)
from connection.system.escapes import printable
from connection.system.paths import ROOT, shell_line
from connection.system.processes import count, local_count
from connection.system.quiet import aloud


def print_start(
    model: str, notes: Sequence[str], data: Mapping[str, str], remarks: Sequence[str], why: str, record: Mapping[str, Any]
) -> None:
    """Print what a run trains: the model with its `notes`, and a line for each pair file; then how, from settings.json's
    `record`. `why` is the reason for the precision."""
    print(f"model  {printable(model)}", *(f"       note: {printable(note)}" for note in notes), sep="\n")
    print(*(f"{name:5}  {summary}" for name, summary in data.items()), *map(printable, remarks), sep="\n")
    rows = "packed rows" if record["packing"] else "padded rows"
    machine = (
        f"{record['device']}, {record['precision']} ({why}), {rows}, {record['threads']} thread{'s' * (record['threads'] != 1)}"
    )
    dims = f", at the dimensions {record['matryoshka_dims'].replace(',', ', ')}" if record["matryoshka_dims"] else ""
    print(f"device {machine}, seed {record['seed']}", f"loss   {record['loss']} ({record['loss_reason']}){dims}", sep="\n")


def print_end(results: RunResults, steps: int, ended_by: str) -> None:
    """Print the tables of a run of `steps` planned steps, and the signal if one ended it early."""
    if results["epoch_figures"]:
        print("", render(epoch_table(results["epoch_figures"])), sep="\n")
    if results["base"]:
        print("", render(gain_table(results)), sep="\n")
    else:
        said = "Nothing was measured: there are no dev and no test pairs. Give --dev-file and --test-file, or more pairs."
        print(f"\n{said}", file=aloud())
    if "gain" in results:
        print("", render(figures_table(before_and_after(results))), "", gain_sentence(results["gain"]["test"]), sep="\n")
    if "slices" in results:
        print("", errors_sentence(results["slices"]), sep="\n")
    if results["interrupted"]:
        held = f"model/ holds the weights of step {results['best_step']}"
        print(f"\nEnded by {ended_by} after step {results['steps']} of {steps}; {held}.", file=aloud())


def print_resume(output: Path, seeds: int = 1) -> None:
    """Print the command that goes on with an interrupted run, of one seed or several."""
    print("To go on from there:", file=aloud())
    words = [sys.executable, "bertFineTuningWithConnectionData.py", "--output-dir", str(output), "--resume"]
    if 1 < count() == local_count():
        words[1:1] = ["-m", "torch.distributed.run", f"--nproc-per-node={count()}"]
    words += ["--seeds", str(seeds)] * (seeds > 1)
    print(f"  {shell_line(words, ROOT)}", file=aloud())


def print_next(model: Path) -> None:
    """Print where the model is, and the next command to type."""
    said = f"The fine-tuned model is in {model}; report.html beside it has the figures. Next, compare two sentences:"
    print(f"\n{said}", file=aloud())
    command = [sys.executable, "-m", "tools.score", str(model), "one sentence", "another sentence"]
    print(f"  {shell_line(command, ROOT)}", file=aloud())
