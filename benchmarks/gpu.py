"""Checks the training passes on a GPU, and measures them beside the transformers library's: alone, in some minutes.

    python -m benchmarks.gpu --json gpu.json            on a machine with CUDA
    python -m benchmarks.gpu --device cpu --small       the same code, small

Weights are random, of the sizes of MiniLM-L6 and BERT-base; sentences are random tokens, as long as those of the STS benchmark.
No pair file is read, and nothing is needed but torch, transformers, safetensors, filelock and numpy. The peer is transformers'
own module as sentence-transformers trains it, at its best: bf16 autocast, SDPA, padded to the longest, torch's fused AdamW.
Contenders take turns; ratios are of one round. A section that fails is written down, and the next one begins.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import bertFineTuningWithConnectionData as driver
from connection.model.packing import PackedBatch, pack
from connection.model.pooling import mean_pooling
from connection.training.moving_average import WeightAverage
from connection.training.objectives import make_objective
from connection.training.optimizer import make_optimizer
from connection.training.state import Progress, RunState
from ConnectionBert import ConnectionBert

SIZES = {
    "MiniLM-L6": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "BERT-base": {},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
}
WORDS = 30522
LONGEST = 64
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Pairs(NamedTuple):
    """B pairs as the training step takes them: see `ConnectionDataset.PairBatch`, which needs pandas."""

    tokens: PackedBatch
    target: Tensor
    rows: Tensor
    sentences: Tensor
    weight: None = None

    def to(self, device: torch.device) -> Pairs:
        target, rows, sentences = (tensor.to(device, non_blocking=True) for tensor in self[1:4])
        return Pairs(self.tokens.to(device), target, rows, sentences)


def sentences(count: int, seed: int) -> list[np.ndarray]:
    """Random token ids with the lengths of the STS benchmark's sentences: 5 to 64 tokens, 15 in the middle."""
    random = np.random.default_rng(seed)
    lengths = np.clip(np.rint(random.gamma(4.0, 4.0, count)), 5, LONGEST).astype(int)
    return [np.concatenate([[2], random.integers(5, WORDS, length - 2), [3]]).astype(np.int32) for length in lengths]


def pairs(count: int, seed: int, packed: bool = True) -> Pairs:
    target = torch.from_numpy(np.random.default_rng(seed).integers(0, 6, count).astype(np.float32) / 5)
    rows = torch.arange(count)
    return Pairs(pack(sentences(2 * count, seed), 0, packed), target, rows, torch.stack([rows, rows + count]))


def make_model(size: str, folder: Path) -> ConnectionBert:
    """A model of random weights, through a folder as any other."""
    target = folder / size
    if not target.exists():
        target.mkdir()
        config = BertConfig(vocab_size=WORDS, **SIZES[size])
        torch.manual_seed(0)
        BertModel(config).save_pretrained(target)
        names = PIECES + [f"w{number}" for number in range(WORDS - len(PIECES))]
        (target / "vocab.txt").write_text("\n".join(names) + "\n")
    return ConnectionBert.load(target)


class Trainer:
    """This project's training step on a model."""

    def __init__(self, model: ConnectionBert, device: torch.device, precision: str, dropout: float = 0.0, packing: bool = True):
        self.model = model.to(device).train()
        weights = self.model.prepare_training(precision, packing, 7, False, dropout)
        self.objective = make_objective("cosent", 20.0, (), model.hidden_size, (0.0, 1.0)).to(device)
        self.optimizer = make_optimizer(nn.ModuleList([self.model, self.objective]), weights, 0.01)
        self.average = WeightAverage(self.model, 0.0)

    def step(self, batch: Pairs, rate: float = 2e-5) -> Tensor:
        return driver.training_step(self.model, self.objective, self.optimizer, rate, 1.0, [batch])  # type: ignore[list-item]

    def state(self) -> RunState:
        return RunState(self.model, self.objective, self.optimizer, self.average, Progress())


class Peer:
    """The transformers module, trained as sentence-transformers does."""

    def __init__(self, model: ConnectionBert, device: torch.device, precision: str):
        self.encoder = copy.deepcopy(model.encoder).to(device).train()
        self.device, self.bf16 = device, precision == "bf16"
        for module in self.encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.objective = make_objective("cosent", 20.0, (), model.hidden_size, (0.0, 1.0))
        self.adamw = torch.optim.AdamW(self.encoder.parameters(), lr=2e-5, weight_decay=0.01, fused=True)

    def vectors(self, tokens: PackedBatch) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            mask = tokens.attention_mask
            states = self.encoder(tokens.input_ids, attention_mask=mask).last_hidden_state
        return mean_pooling(states.float(), mask)

    def step(self, batch: Pairs) -> Tensor:
        batch = batch.to(self.device)
        u, v = self.vectors(batch.tokens).chunk(2)
        loss: Tensor = self.objective(u, v, batch.target, batch.sentences)
        loss.backward()
        nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.adamw.step()
        self.adamw.zero_grad()
        return loss.detach()


class Bench:
    """The sections; each returns what is written down of it."""

    def __init__(self, given: argparse.Namespace, folder: Path):
        self.device, self.folder, self.small, self.seconds = torch.device(given.device), folder, given.small, given.seconds
        self.sizes = ["tiny"] if given.small else ["MiniLM-L6", "BERT-base"]
        self.batches = [4] if given.small else [16, 64, 256]

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def correctness(self) -> dict[str, Any]:
        """Vectors and gradients of the packed passes beside transformers' module, in fp32 and bf16; encode beside the CPU's."""
        found: dict[str, Any] = {}
        torch.backends.cuda.matmul.allow_tf32 = False
        for size in self.sizes:
            reference = make_model(size, self.folder).to(self.device).train()
            for module in reference.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            packed, padded = pairs(8, 1).to(self.device), pairs(8, 1, packed=False).to(self.device)
            u, v = reference(padded.tokens)
            (u * v).sum().backward()
            wanted = {name: weight.grad for name, weight in reference.encoder.named_parameters() if weight.grad is not None}
            for precision in ("fp32", "bf16"):
                trainer = Trainer(make_model(size, self.folder), self.device, precision)
                a, b = trainer.model(packed.tokens)
                cosine = torch.cosine_similarity(torch.cat([a, b]), torch.cat([u, v])).min().item()
                (a * b).sum().backward()
                weights = trainer.model.packed_bert.weights  # type: ignore[union-attr]
                layer = weights.layers_grad[0].down.float()
                other = wanted["encoder.layer.0.output.dense.weight"]
                error = ((layer - other).norm() / other.norm()).item()
                found[f"{size}, {precision}"] = {"least cosine of vectors": cosine, "error of a layer's gradient": error}
            texts = ["w5 w17 w9 w200", "w33"] * 8
            here, there = make_model(size, self.folder).to(self.device), make_model(size, self.folder)
            one, two = (model.encode(texts, progress=False, precision="fp32") for model in (here, there))
            found[f"{size}, encode, largest difference from the CPU's"] = float(np.abs(one - two).max())
        return found

    def resume(self) -> dict[str, Any]:
        """Three steps, a checkpoint in a file, three more; and the same three from the file in another model. With dropout."""
        found = {}
        for precision in ("fp32", "bf16"):
            first = Trainer(make_model(self.sizes[0], self.folder), self.device, precision, dropout=0.1)
            for seed in range(3):
                first.step(pairs(8, seed))
            file = self.folder / "state.pt"
            torch.save(({name: tensor.cpu() for name, tensor in first.state().tensors().items()}, first.state().values()), file)
            first_losses = [first.step(pairs(8, seed)).item() for seed in range(3, 6)]
            torch.manual_seed(99)
            second = Trainer(make_model(self.sizes[0], self.folder), self.device, precision, dropout=0.1)
            tensors, values = torch.load(file, weights_only=False)
            second.state().restore(tensors, values)
            second_losses = [second.step(pairs(8, seed)).item() for seed in range(3, 6)]
            for trainer in (first, second):
                trainer.model.catch_up()
            one, two = first.model.encoder.state_dict(), second.model.encoder.state_dict()
            same = all(torch.equal(one[name], two[name]) for name in one)
            found[precision] = {"same losses": first_losses == second_losses, "same weights to the last bit": same}
        return found

    def synchronisations(self) -> dict[str, Any]:
        """How often a training step makes the CPU wait for the GPU."""
        if self.device.type != "cuda":
            return {"left out": "there is no GPU"}
        trainer = Trainer(make_model(self.sizes[0], self.folder), self.device, "bf16", dropout=0.1)
        for seed in range(3):
            trainer.step(pairs(16, seed))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                trainer.step(pairs(16, 9))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return {"in a step": len(caught), "where": sorted({f"{Path(one.filename).name}:{one.lineno}" for one in caught})}

    def full_memory(self) -> dict[str, Any]:
        """A batch that fills the memory ends in an error that says so, and the next, smaller one is trained."""
        if self.device.type != "cuda":
            return {"left out": "there is no GPU"}
        trainer = Trainer(make_model(self.sizes[-1], self.folder), self.device, "bf16")
        held = torch.empty(int(0.97 * torch.cuda.mem_get_info()[0]), dtype=torch.uint8, device=self.device)
        try:
            trainer.step(pairs(2048, 1))
            said = "no error"
        except torch.OutOfMemoryError as error:
            said = str(error).split(".")[0]
        trainer.optimizer.discard()
        del held
        torch.cuda.empty_cache()
        return {"error": said, "next step's loss is finite": bool(torch.isfinite(trainer.step(pairs(16, 2))))}

    def ceiling(self) -> dict[str, float]:
        """Speed of matrix products, TFLOP/s: the ceiling of the passes."""
        found = {}
        side = 512 if self.small else 8192
        for name, kind in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            a, b = (torch.randn(side, side, device=self.device, dtype=kind) for _ in range(2))
            found[name] = 2 * side**3 / self._time(partial(torch.mm, a, b), 5) / 1e12
        return found

    def _time(self, work: Callable[[], Any], times: int) -> float:
        """Seconds of one call, in the middle of `times`."""
        work()
        taken = []
        for _ in range(times):
            self.wait()
            clock = time.perf_counter()
            work()
            self.wait()
            taken.append(time.perf_counter() - clock)
        return statistics.median(taken)

    def training(self) -> dict[str, Any]:
        """Pairs per second in turns of some steps, and the ratio of each round."""
        found: dict[str, Any] = {}
        top = self.ceiling()["bf16"]
        for size in self.sizes:
            for batch in self.batches:
                packed = [pairs(batch, seed) for seed in range(8)]
                padded = [pairs(batch, seed, packed=False) for seed in range(8)]
                ours = Trainer(make_model(size, self.folder), self.device, "bf16")
                peer = Peer(make_model(size, self.folder), self.device, "bf16")
                works = {"ours": (ours.step, packed), "peer": (peer.step, padded)}
                rates: dict[str, list[float]] = {name: [] for name in works}
                ends = time.perf_counter() + self.seconds
                rounds = 0
                while rounds < 3 or (rounds < 20 and time.perf_counter() < ends):
                    for name, (step, batches) in works.items():
                        self.wait()
                        clock = time.perf_counter()
                        for one in batches:
                            step(one)
                        self.wait()
                        rates[name] += [len(batches) * batch / (time.perf_counter() - clock)] * (rounds > 0)
                    rounds += 1
                tokens = sum(int(one.tokens.attention_mask.sum()) for one in packed) / len(packed) / batch
                weights = sum(weight.numel() for weight in ours.model.encoder.encoder.parameters())
                rate = statistics.median(rates["ours"])
                ratios = [a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)]
                found[f"{size}, batch {batch}"] = {
                    "pairs/s": rate,
                    "peer, pairs/s": statistics.median(rates["peer"]),
                    "ratio": [min(ratios), statistics.median(ratios), max(ratios)],
                    "share of the ceiling": 6 * weights * tokens * rate / 1e12 / top,
                }
                print(f"  {size}, batch {batch}: {rate:,.0f} pairs/s, {statistics.median(ratios):.2f} x the peer", flush=True)
        return found

    def encoding(self) -> dict[str, Any]:
        """Sentences per second of `encode_tokens`, beside the module in batches of 256, padded, sorted by length."""
        found: dict[str, Any] = {}
        count = 64 if self.small else 8192
        texts = sentences(count, 3)
        by_length = sorted(texts, key=len, reverse=True)
        for size in self.sizes:
            model = make_model(size, self.folder).to(self.device).eval()
            for precision in ("fp32", "bf16"):
                peer = Peer(model, self.device, precision)
                peer.encoder.eval()

                def module(peer: Peer = peer) -> None:
                    with torch.no_grad():
                        for start in range(0, count, 256):
                            peer.vectors(pack(by_length[start : start + 256], 0, packed=False).to(self.device)).cpu()

                def ours(model: ConnectionBert = model, precision: str = precision) -> None:
                    model.encode_tokens(texts, precision=precision)

                rates = {name: count / self._time(work, 3) for name, work in (("ours", ours), ("peer", module))}
                found[f"{size}, {precision}"] = rates | {"ratio": rates["ours"] / rates["peer"]}
        return found

    def profile(self) -> dict[str, Any]:
        """The kernels and calls that take longest in ten steps."""
        from torch.profiler import ProfilerActivity, profile

        trainer, batch = Trainer(make_model(self.sizes[-1], self.folder), self.device, "bf16"), pairs(self.batches[-1], 1)
        trainer.step(batch)
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device.type == "cuda")
        with profile(activities=kinds) as seen:
            for _ in range(10):
                trainer.step(batch)
            self.wait()
        order = "self_cuda_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        return {"table": seen.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60).splitlines()}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the sections, print them, and write them as JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the code")
    parser.add_argument("--seconds", type=float, default=12, help="for each size and batch of the training")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args(argv)
    about: dict[str, Any] = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
    about["device"] = torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device
    found: dict[str, Any] = {"about": about}
    print(about, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, Path(folder))
        for name in ("correctness", "resume", "synchronisations", "ceiling", "training", "encoding", "full_memory", "profile"):
            clock = time.perf_counter()
            print(f"{name} ...", flush=True)
            try:
                found[name] = getattr(bench, name)()
            except Exception:
                found[name] = {"failed": traceback.format_exc().splitlines()}
            print(json.dumps(found[name], indent=1), f"{time.perf_counter() - clock:.0f} s", sep="\n", flush=True)
            if given.json:
                Path(given.json).write_text(json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
