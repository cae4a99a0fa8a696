"""Dense modules after the pooling: applied, kept and trained; against sentence-transformers."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from torch import nn

import bertFineTuningWithConnectionData as driver
from ConnectionBert import ConnectionBert
from tests.conftest import MANY, run_inside, signal_in_step, training_words, write_pairs
from tests.model.test_bert import SENTENCES, refused

# name: pooling, and the modules after it
MODULES: dict[str, tuple] = {
    "smaller": ("mean", [Dense(32, 16)]),
    "larger, without bias": ("mean", [Dense(32, 48, bias=False, activation_function=nn.Identity())]),
    "two, then of length 1": ("mean", [Dense(32, 64, activation_function=nn.ReLU()), Dense(64, 8), Normalize()]),
    "the pooler's form after mean pooling": ("mean", [Dense(32, 32)]),
    "the pooler and another": ("cls", [Dense(32, 32), Dense(32, 8, activation_function=nn.Sigmoid())]),
    "after a combination": (["mean", "max"], [Dense(64, 16, activation_function=nn.GELU())]),
}


@pytest.fixture(params=MODULES)
def peer(request, tiny_folder, tmp_path):
    torch.manual_seed(3)
    pooling, after = MODULES[request.param]
    SentenceTransformer(modules=[Transformer(str(tiny_folder)), Pooling(32, pooling_mode=pooling), *after], device="cpu").save(
        str(tmp_path / "peer")
    )
    return tmp_path / "peer"


def test_vectors_are_those_of_sentence_transformers_and_the_saved_folder_has_them_too(peer, tmp_path):
    theirs = SentenceTransformer(str(peer), device="cpu").encode(SENTENCES)
    model = ConnectionBert.load(peer)
    assert model.hidden_size == theirs.shape[1]
    model.save(tmp_path / "saved")
    for vectors in (
        model.encode(SENTENCES, progress=False, precision="fp32"),
        ConnectionBert.load(tmp_path / "saved").encode(SENTENCES, progress=False, precision="fp32"),
        SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(SENTENCES),
    ):
        assert vectors.shape == theirs.shape
        assert np.allclose(vectors, theirs, atol=1e-5)


@pytest.fixture
def dense_folder(tiny_folder, tmp_path):
    torch.manual_seed(3)
    modules = [Transformer(str(tiny_folder)), Pooling(32), Dense(32, 16), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "dense"))
    return tmp_path / "dense"


def test_it_is_trained_and_a_resumed_run_has_the_same_weights(dense_folder, tmp_path):
    pairs, weights = write_pairs(tmp_path / "pairs.csv", MANY), "model/2_Dense/model.safetensors"
    common = ("--batch-size", 16, "--ema", 0.5, "--no-packing")
    assert run_inside(driver.main, *training_words(dense_folder, pairs, tmp_path / "whole", *common)).returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        signal_in_step(patch, 9, signal.SIGTERM)
        assert run_inside(driver.main, *training_words(dense_folder, pairs, tmp_path / "parts", *common)).returncode == 143
    resumed = run_inside(driver.main, "--output-dir", tmp_path / "parts", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    before = load_file(dense_folder / "2_Dense" / "model.safetensors")
    whole = load_file(tmp_path / "whole" / weights)
    assert all(not torch.equal(before[name], whole[name]) for name in before)
    checkpoints = [max((tmp_path / run / "checkpoints").glob("step-*")) for run in ("whole", "parts")]
    assert checkpoints[0].name == checkpoints[1].name
    states = [load_file(checkpoint / "state.safetensors") for checkpoint in checkpoints]
    assert torch.equal(states[0]["dense.0.linear.weight"], states[1]["dense.0.linear.weight"])


def test_a_pooling_that_does_not_fit_is_refused_and_one_that_does_is_taken(dense_folder):
    assert ConnectionBert.load(dense_folder, pooling="max").hidden_size == 16
    with pytest.raises(Exception, match=r"takes 32 numbers, and mean\+cls pooling"):
        ConnectionBert.load(dense_folder, pooling="mean+cls")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"in_features": 31}, "do not fit vectors of 32 numbers"),
        ({"out_features": 10**9}, "do not fit"),
        ({"out_features": "16"}, "do not fit"),
        ({"bias": 1}, "do not fit"),
        (
            {"activation_function": "os.system"},
            "the activation 'os.system' is not here; a Dense module can have Identity, Tanh",
        ),
        ({"use_residual": True}, "use_residual is not here"),
        ({"module_input_name": "token_embeddings"}, "module_input_name is 'token_embeddings'"),
        ({"out_features": 15}, r"should hold linear.weight (15, 32), linear.bias (15,), not"),
    ],
)
def test_what_is_not_here_is_refused_by_name(dense_folder, change, said):
    file = dense_folder / "2_Dense" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert said in refused(dense_folder)


def test_weights_that_are_missing_or_of_another_module_are_refused(dense_folder):
    file = dense_folder / "2_Dense" / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    assert "should hold linear.weight (16, 32), linear.bias (16,), not weight (2,)" in refused(dense_folder)
    file.unlink()
    assert "2_Dense has no model.safetensors" in refused(dense_folder)
