"""--freeze-layers: the losses and weights of plain freezing, by torch alone, whether the states are kept or not, and where."""

from __future__ import annotations

import errno
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertModel

import bertFineTuningWithConnectionData as driver
from connection.model.architectures import layers_of
from connection.runs import disk_and_memory, frozen_layers
from connection.system.errors import InputError
from connection.training import frozen_states
from connection.training.frozen_states import keep_states, states_bytes
from connection.training.objectives import make_objective
from connection.training.optimizer import make_optimizer
from ConnectionBert import ConnectionBert
from ConnectionDataset import ConnectionDataset
from tests.conftest import CANDIDATES, MANY, run_inside, signal_in_step, tiny_config, training_words, write_bert, write_pairs
from tests.model.test_architectures import write_encoder

ROWS = (MANY + CANDIDATES)[:40]
RATE, DECAY, LARGEST_NORM = 1e-3, 0.01, 1.0


def three_layers(folder):
    torch.manual_seed(0)
    encoder = BertModel(tiny_config(num_hidden_layers=3))
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return write_bert(folder, encoder)


@pytest.fixture
def folder(tmp_path):
    return three_layers(tmp_path / "three")


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs.csv", ROWS)


def is_frozen(name, layers):
    return "embeddings." in name or any(f"layer.{number}." in name for number in range(layers))


class Steps:
    """Training steps over the same batches of 8 pairs, with this project's passes."""

    def __init__(self, folder, pairs, layers, kept=True, size=0, packed=True, precision="fp32", at=None, dropout=0.0):
        self.model = ConnectionBert.load(folder).train()
        self.model.freeze(False, layers)
        self.weights: Any = self.model.prepare_training(precision, True, 0, dropout=dropout)
        self.data = ConnectionDataset.from_file(pairs, self.model.tokenizer, 32)
        if kept:
            keep_states(self.model, self.data, at)
        bert: Any = self.model.packed_bert
        self.table, self.data.packed, self.size = bert.kept, packed, size
        self.objective = make_objective("cosine-mse", 20.0, (), 32, [0.0, 1.0])
        self.optimizer = make_optimizer(torch.nn.ModuleList([self.model, self.objective]), self.weights, DECAY)

    def run(self, count=5):
        losses = []
        for step in range(count):
            items = [self.data[row] for row in range(8 * step, 8 * step + 8)]
            words = self.model, self.objective, self.optimizer, RATE, LARGEST_NORM, self.data.collate_parts(items, self.size)
            losses.append(driver.training_step(*words).item())
        return losses, {name: weight.detach().clone() for name, weight in self.model.encoder.named_parameters()}


def by_torch(folder, pairs, layers, count=5):
    """The same steps by transformers' module, one sentence at a time, and torch's AdamW: losses and weights."""
    model = ConnectionBert.load(folder)
    encoder, data = model.encoder, ConnectionDataset.from_file(pairs, model.tokenizer, 32)
    for name, weight in encoder.named_parameters():
        weight.requires_grad_(not is_frozen(name, layers) and "pooler" not in name)
    trained = [weight for weight in encoder.parameters() if weight.requires_grad]
    groups = [{"params": [w for w in trained if w.dim() > 1], "weight_decay": DECAY},
              {"params": [w for w in trained if w.dim() < 2], "weight_decay": 0.0}]  # fmt: skip
    adamw = torch.optim.AdamW(groups, lr=RATE, eps=1e-8)
    losses = []
    for step in range(count):
        items = [data[row] for row in range(8 * step, 8 * step + 8)]
        u, v = (
            torch.cat([encoder(torch.from_numpy(tokens.astype(np.int64))[None]).last_hidden_state.mean(1) for tokens in side])
            for side in zip(*[item[:2] for item in items], strict=True)
        )
        target = torch.tensor([item.target for item in items])
        loss = ((torch.cosine_similarity(u, v) - target) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, LARGEST_NORM)
        adamw.step()
        adamw.zero_grad()
        losses.append(loss.item())
    return losses, dict(encoder.named_parameters())


WAYS: dict[str, dict[str, Any]] = {
    "kept": {}, "padded": {"packed": False}, "in parts": {"size": 3}, "not kept": {"kept": False}
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layers", [1, 2])
def test_losses_and_weights_are_those_of_plain_freezing_by_torch(folder, pairs, way, layers):
    expected, weights = by_torch(folder, pairs, layers)
    losses, found = Steps(folder, pairs, layers, **WAYS[way]).run()
    assert losses[0] == pytest.approx(expected[0], rel=1e-6)
    assert losses == pytest.approx(expected, rel=1e-5)
    before = dict(ConnectionBert.load(folder).encoder.named_parameters())
    for name, weight in found.items():
        if is_frozen(name, layers) or "pooler" in name:
            assert torch.equal(weight, before[name]), name
        else:
            assert not torch.equal(weight, before[name]), name
            if not name.endswith("key.bias"):  # its gradient is 0 but for rounding, which AdamW makes large
                assert torch.allclose(weight, weights[name], atol=0.05 * RATE), name


def test_dropout_is_in_the_trained_layers_alone(folder, pairs):
    """So that the kept states are what the frozen layers give: the same draws, the same losses."""
    kept, plain = (Steps(folder, pairs, 1, way, dropout=0.2).run()[0] for way in (True, False))
    assert kept == pytest.approx(plain, rel=1e-5)
    assert kept != pytest.approx(Steps(folder, pairs, 1).run()[0], rel=1e-3)


def test_states_have_the_precision_of_training(folder, pairs, tmp_path):
    in_fp32, in_bf16, mapped = (
        Steps(folder, pairs, 2, precision=precision, at=at) for precision, at in
        (("fp32", None), ("bf16", None), ("bf16", tmp_path / "cache"))
    )  # fmt: skip
    tables = [steps.table for steps in (in_fp32, in_bf16, mapped)]
    tokens = in_fp32.data.store.tokens.ids.size
    assert [(table.dtype, table.shape) for table in tables[:2]] == [
        (torch.float32, (tokens, 32)),
        (torch.bfloat16, (tokens, 32)),
    ]
    assert states_bytes(in_bf16.model, in_bf16.data, torch.bfloat16) == tables[1].nbytes == tokens * 64
    assert torch.allclose(tables[0], tables[1].float(), atol=0.05)
    assert torch.equal(tables[1], tables[2])
    (losses, weights), (of_file, weights_of_file) = in_bf16.run(), mapped.run()
    assert losses == of_file
    assert all(torch.equal(weights[name], weights_of_file[name]) for name in weights)
    assert losses == pytest.approx(in_fp32.run()[0], rel=0.05)


def test_a_table_holds_the_sentences_of_its_own_pairs(folder, pairs):
    """Each sentence once, and none of other splits; an item's rows are those of its sentences."""
    steps = Steps(folder, pairs, 2, kept=False)
    data = ConnectionDataset(steps.data.store, steps.data.scale, 0, rows=np.array([3, 7, 12]))
    before = [data[row] for row in range(3)]
    keep_states(steps.model, data, None)
    bert: Any = steps.model.packed_bert
    table = bert.kept
    assert len(table) == sum(map(len, {side.tobytes(): side for pair in before for side in pair[:2]}.values()))
    module = steps.model.encoder.eval()
    for pair, rows in zip(before, (data[row] for row in range(3)), strict=True):
        states = module(torch.from_numpy(pair.tokens2.astype(np.int64))[None], output_hidden_states=True).hidden_states[2][0]
        assert torch.allclose(table[rows.tokens2], states, atol=1e-5)


def test_each_process_computes_its_share_of_the_table(folder, pairs, monkeypatch):
    """Three processes, of which threads stand in: the bits are those of one process."""
    monkeypatch.setattr(frozen_states, "TOKENS_AT_ONCE", 90)
    alone = Steps(folder, pairs, 1).table
    here, shared, meet = threading.local(), [torch.empty(0)] * 3, threading.Barrier(3)
    computed = []

    def gather(rows):
        shared[here.rank] = rows
        computed.append(len(rows))
        meet.wait()
        parts = list(shared)
        meet.wait()
        return parts

    def table_of(rank):
        here.rank = rank
        return Steps(folder, pairs, 1).table

    together = SimpleNamespace(count=lambda: 3, rank=lambda: here.rank, gather=gather)
    monkeypatch.setattr(frozen_states, "processes", together)
    with ThreadPoolExecutor(3) as threads:
        assert all(torch.equal(table, alone) for table in threads.map(table_of, range(3)))
    assert sum(computed) == len(alone)
    assert max(computed) <= 90 + 32


def test_moments_and_gradients_are_those_of_trained_weights(folder, pairs):
    steps = Steps(folder, pairs, 2)
    trained = sum(w.numel() for n, w in steps.model.encoder.named_parameters() if ".layer.2." in n)
    state = steps.optimizer.state_dict()
    assert [state[name].numel() for name in ("m", "v", "word_m", "word_v")] == [trained, trained, 0, 0]
    assert steps.weights.grad.numel() == trained


# --- the command -------------------------------------------------------------------------------------------------------


def train(folder, pairs, output, *flags):
    how = ["--precision", "fp32", "--cache-dir", output.parent / "cache", "--batch-size", 8, "--log-steps", 1]
    words = training_words(folder, pairs, output, "--allow", "leaked-pair,contradiction,duplicate", *how)
    return run_inside(driver.main, *words, "--freeze-layers", 2, *flags)


def result_of(output):
    """What a run left: the losses of all steps and evaluations, and the bits of the model."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(line.get("split"), line["loss"]) for line in lines], (output / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of 10 steps with the states in memory: the model that it began with, what it printed, its folder."""
    place = tmp_path_factory.mktemp("done")
    folder, output = three_layers(place / "three"), place / "run"
    shown = train(folder, write_pairs(place / "pairs.csv", ROWS), output)
    assert shown.returncode == 0, shown.stderr
    return folder, shown.stdout, output


def test_a_run_leaves_the_frozen_weights_as_they_were(done):
    folder, shown, output = done
    assert "the states of the 2 frozen layer(s): 0 MiB, in memory" in shown
    before, after = (ConnectionBert.load(path).encoder.state_dict() for path in (folder, output / "model"))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {n for n in before if ".layer.2." in n}


def test_states_in_a_file_give_the_same_bits(done, folder, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_and_memory, "available_memory", lambda: 1000)
    shown = train(folder, pairs, tmp_path / "run", "--num-workers", 1)
    assert f"0 MiB, on the disk of {tmp_path / 'cache'}" in shown.stdout, shown.stderr
    assert result_of(tmp_path / "run") == result_of(done[2])
    assert all(path.name.startswith("cosines-") for path in (tmp_path / "cache").iterdir())


def test_without_room_the_states_are_computed_in_each_step(done, folder, pairs, tmp_path, monkeypatch):
    """Beside other sentences than in the table's pass, so that the rounding differs."""
    monkeypatch.setattr(frozen_layers, "place_of_states", lambda *words: ("", None))
    shown = train(folder, pairs, tmp_path / "run")
    assert "are computed in each step: neither the memory nor the disk of --cache-dir" in shown.stdout, shown.stderr
    losses, expected = (result_of(output)[0] for output in (tmp_path / "run", done[2]))
    assert [split for split, _ in losses] == [split for split, _ in expected]
    assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in expected], rel=1e-4)


def test_a_sentence_with_two_prompts_has_two_entries(folder, pairs, tmp_path, monkeypatch):
    words = ["--prompt1", "the dog: ", "--prompt2", "one cat sees "]
    kept = train(folder, pairs, tmp_path / "kept", *words)
    assert "in memory" in kept.stdout, kept.stderr
    monkeypatch.setattr(frozen_layers, "place_of_states", lambda *words: ("", None))
    assert train(folder, pairs, tmp_path / "computed", *words).returncode == 0
    losses, expected = (result_of(tmp_path / name)[0] for name in ("kept", "computed"))
    assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in expected], rel=1e-4)
    assert losses != result_of_one_prompt(folder, pairs, tmp_path)


def result_of_one_prompt(folder, pairs, tmp_path):
    assert train(folder, pairs, tmp_path / "one", "--prompt1", "the dog: ", "--prompt2", "the dog: ").returncode == 0
    return result_of(tmp_path / "one")[0]


def test_places_of_states(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_and_memory, "available_memory", lambda: 4 * 2**30)
    monkeypatch.setattr(disk_and_memory.shutil, "disk_usage", lambda there: SimpleNamespace(free=8 * 2**30))
    cache, memory, nowhere = tmp_path / "not" / "yet", None, ("", None)
    place = disk_and_memory.place_of_states
    assert place(2 * 2**30, cache) == ("2.0 GiB, in memory", memory)
    assert place(2 * 2**30 + 1, cache) == (f"2.0 GiB, on the disk of {cache}", cache)
    assert place(2 * 2**30, cache, 2) == (f"2.0 GiB in each of 2 processes, on the disk of {cache}", cache)
    assert place(7 * 2**30, cache)[1] == cache
    assert place(7 * 2**30 + 1, cache) == place(2**62, cache) == nowhere


def test_a_cache_folder_that_cannot_be_written_is_none(folder, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_and_memory, "available_memory", lambda: 0)
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        assert disk_and_memory.place_of_states(1, cache) == ("", None)

    def refuse(*words, **named):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(disk_and_memory.tempfile, "TemporaryFile", refuse)
        assert disk_and_memory.place_of_states(1, tmp_path / "cache") == ("", None)
        shown = train(folder, pairs, tmp_path / "run")
    assert shown.returncode == 0, shown.stderr
    assert "or nothing can be written there" in shown.stdout


def test_a_disk_that_fills_while_states_are_written_ends_the_run_with_a_way_out(folder, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_and_memory, "available_memory", lambda: 0)

    def write(content):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = frozen_states._Table.add

    def add(table, rows):
        table.file = SimpleNamespace(write=write)
        real(table, rows)

    with monkeypatch.context() as patch:
        patch.setattr(frozen_states._Table, "add", add)
        shown = train(folder, pairs, tmp_path / "run")
    assert shown.returncode == 1
    assert "can't be written (No space left on device). Free some room, give another folder" in shown.stderr


def test_evaluations_are_those_of_the_whole_module(done, folder, pairs, tmp_path, monkeypatch):
    asked = []
    never = property(lambda self: None, lambda self, value: asked.append(value))
    monkeypatch.setattr(ConnectionBert, "remembered", never, raising=False)
    assert train(folder, pairs, tmp_path / "run").returncode == 0
    assert {} in asked  # without `never`, later evaluations would have read what the first one computed
    assert result_of(tmp_path / "run") == result_of(done[2])


def test_a_batch_that_was_encoded_before_reads_its_states(folder, pairs):
    model = ConnectionBert.load(folder)
    data = ConnectionDataset.from_file(pairs, model.tokenizer, 32)
    sentences = [data.store.tokens[number] for number in range(9)]
    expected = model.encode_tokens(sentences, 4)
    model.freeze(False, 2)
    model.remembered, calls = {}, []
    layers_of(model.encoder)[1].register_forward_hook(lambda *words: calls.append(1))
    for _ in range(2):
        assert torch.equal(model.encode_tokens(sentences, 4), expected)
    assert len(calls) == len(model.remembered) == 3


def test_a_resumed_run_equals_an_uninterrupted_one(done, folder, pairs, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_in_step(patch, 7, signal.SIGINT)
        assert train(folder, pairs, tmp_path / "run").returncode == 130
    resumed = run_inside(driver.main, "--output-dir", tmp_path / "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert result_of(tmp_path / "run") == result_of(done[2])


@pytest.mark.parametrize(
    ("number", "said"),
    [(3, "--freeze-layers 3: this model has 3 layers, and at least one of them is trained: give 0 to 2"),
     (-1, "--freeze-layers: -1"), ("two", "--freeze-layers: 'two'")],
)  # fmt: skip
def test_a_number_of_layers_that_cannot_be_is_refused(folder, pairs, tmp_path, number, said):
    refused = train(folder, pairs, tmp_path / "run", "--freeze-layers", number)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert not (tmp_path / "run").exists()


# --- other families ------------------------------------------------------------------------------------------------------


def test_another_family_is_frozen_without_a_table(pairs, tmp_path):
    folder = write_encoder(tmp_path / "mpnet", "mpnet")
    shown = train(folder, pairs, tmp_path / "run", "--epochs", 1, "--max-length", 30)
    assert shown.returncode == 0, shown.stderr
    assert "are computed in each step: they are kept for BERT alone" in shown.stdout
    before, after = (ConnectionBert.load(path).encoder.state_dict() for path in (folder, tmp_path / "run" / "model"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".layer.2." in name}


@pytest.mark.parametrize("kind", ["distilbert", "electra", "mpnet", "modernbert"])
def test_all_below_the_trained_layers_is_frozen_and_without_dropout(kind, tmp_path):
    model = ConnectionBert.load(write_encoder(tmp_path / kind, kind)).train()
    model.freeze(False, 2)
    model.prepare_training("fp32", True, 0, dropout=0.5)
    trained = {name for name, weight in model.encoder.named_parameters() if weight.requires_grad}
    assert trained == {name for name, _ in model.encoder.named_parameters() if "layer.2." in name or "layers.2." in name
                       or name == "final_norm.weight"}  # fmt: skip
    entering = []
    layers_of(model.encoder)[2].register_forward_pre_hook(lambda module, given: entering.append(given[0]))
    data = ConnectionDataset.from_file(write_pairs(tmp_path / "pairs.csv", ROWS), model.tokenizer, 30)
    batch = data.collate([data[0], data[1]])
    one, two = (model(batch.tokens)[0] for _ in range(2))
    assert torch.equal(*entering)
    assert not entering[0].requires_grad
    assert not torch.equal(one, two)


def test_layers_that_share_their_weights_are_not_frozen(tmp_path):
    model = ConnectionBert.load(write_encoder(tmp_path / "albert", "albert"))
    with pytest.raises(InputError, match="an ALBERT share their weights"):
        model.freeze(False, 1)
