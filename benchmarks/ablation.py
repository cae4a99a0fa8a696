"""Measures what each optimisation of a training step brings: alternates the full step with steps that lack one of them.

python -m benchmarks.ablation
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.data import train_file
from benchmarks.turns import MINILM, PARAMETERS, machine, show_rates, take_turns, train_spec
from benchmarks.undo import UNDO
from connection.system.devices import pick_device, pick_precision
from connection.system.errors import exit_status
from tools.download.public_sets import find_public

WHOLE = "as it is"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder with stsb/ (default: data, then ../shared/data)")
    parser.add_argument("--work-dir", type=Path, default=Path("output/benchmark-ablation"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--precisions", nargs="+", choices=("bf16", "fp32"), help="default: what `--precision auto` takes here")
    parser.add_argument("--only", nargs="+", choices=tuple(UNDO), default=list(UNDO))
    parser.add_argument("--pooling", help="default: the model's own")
    parser.add_argument("--freeze-layers", type=int, nargs="+", default=[], help="also steps with this many frozen layers")
    given = parser.parse_args()
    given.work_dir.mkdir(parents=True, exist_ok=True)
    data = str(train_file(find_public("stsb", given.data_dir)))
    results: dict[str, object] = {"machine": machine() | {"parameters": PARAMETERS["MiniLM-L6"]}}
    for precision in given.precisions or [pick_precision("auto", pick_device("cpu"))[0]]:
        for batch in given.batches:
            whole = train_spec(MINILM, data, given.work_dir, batch, precision, pooling=given.pooling)
            specs = {WHOLE: whole} | {f"without {name}": whole | {"undo": name} for name in given.only}
            specs |= {f"{number} layers frozen": whole | {"freeze": number} for number in given.freeze_layers}
            found = take_turns(specs, dict.fromkeys(specs, max(2, 320 // batch)), given.rounds)
            show_rates(f"train MiniLM-L6, batch {batch}, {precision} (pairs/s)", found, WHOLE)
            results[f"batch {batch}, {precision}"] = found
            (given.work_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
