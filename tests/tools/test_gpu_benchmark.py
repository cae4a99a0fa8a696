"""`benchmarks.gpu` on the CPU with a tiny model: every section runs, and its checks hold."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import gpu


def test_gpu_benchmark_runs_small_on_the_cpu(tmp_path: Path):
    gpu.main(["--device", "cpu", "--small", "--seconds", "0", "--json", str(tmp_path / "gpu.json")])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert not [name for name, section in found.items() if "failed" in section]
    for precision, cosine, error in (("fp32", 0.99999, 1e-4), ("bf16", 0.99, 0.05)):
        checked = found["correctness"][f"tiny, {precision}"]
        assert checked["least cosine of vectors"] > cosine
        assert checked["error of a layer's gradient"] < error
        assert found["resume"][precision] == {"same losses": True, "same weights to the last bit": True}
    assert found["training"]["tiny, batch 4"]["pairs/s"] > 0
