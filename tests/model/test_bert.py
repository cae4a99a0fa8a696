"""The model: what a folder may look like, what is refused, and that its vectors are the same everywhere."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForPreTraining, BertModel

import bertFineTuningWithConnectionData as driver
from connection.data.tokenization import tokenize
from connection.model.calibration import Calibration
from connection.model.packing import pack
from connection.model.pooling import POOLING
from connection.settings import setting_fields
from connection.system.errors import InputError
from ConnectionBert import ConnectionBert
from tests.conftest import VOCABULARY, run_inside, tiny_config, write_bert
from tools import similarity

SENTENCES = [
    "the man plays guitar",
    "a dog",
    "The big red Horse is not in the park, in the city at night.",
    "",
    "?? unknown ??",
]


def cosine_rows(a, b) -> float:
    """The smallest cosine between rows of the same number."""
    return float(cosine_similarity(torch.as_tensor(np.asarray(a)), torch.as_tensor(np.asarray(b)), dim=-1).min())


def refused(folder) -> str:
    with pytest.raises(InputError) as raised:
        ConnectionBert.load(folder)
    return str(raised.value)


# --- loading -----------------------------------------------------------------------------------------------------------


def test_three_files_are_enough_from_any_working_directory(tiny_folder, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ConnectionBert.load("tiny")
    assert sorted(path.name for path in tiny_folder.iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]
    for name, tensor in tiny_encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)
    assert (model.pooling, model.max_length) == ("mean", 64)
    assert model.tokenizer("A Dog")["input_ids"] == [VOCABULARY.index(piece) for piece in ("[CLS]", "a", "dog", "[SEP]")]


def test_a_relative_folder_is_looked_up_in_the_repository_too(minilm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ConnectionBert.load("transformers/bert/all-MiniLM-L6-v2").encoder.config.hidden_size == 384


def original_form(encoder: BertModel) -> dict[str, torch.Tensor]:
    """A checkpoint as BERT's first PyTorch release wrote it: bert. prefix, gamma and beta, pre-training heads beside."""
    pretraining = BertForPreTraining(encoder.config)
    pretraining.bert.load_state_dict(encoder.state_dict())
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    state = {}
    for name, tensor in pretraining.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        state[name] = tensor.clone()
    return state | {"bert.embeddings.position_ids": torch.arange(64)[None]}


def test_original_pytorch_model_bin(tiny_folder, tiny_encoder):
    (tiny_folder / "model.safetensors").unlink()
    torch.save(original_form(tiny_encoder), tiny_folder / "pytorch_model.bin")
    model = ConnectionBert.load(tiny_folder)
    for name, tensor in tiny_encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)
    assert len(model.notes) == 1
    assert "cls." in model.notes[0]


def test_half_precision_weights_become_float32(tiny_folder, tiny_encoder):
    state = {name: tensor.half() for name, tensor in tiny_encoder.state_dict().items()}
    save_file(state, tiny_folder / "model.safetensors")
    assert {weight.dtype for weight in ConnectionBert.load(tiny_folder).parameters()} == {torch.float32}


def test_a_pooler_may_be_absent(tiny_folder, tiny_encoder):
    state = {name: tensor for name, tensor in tiny_encoder.state_dict().items() if not name.startswith("pooler")}
    save_file(state, tiny_folder / "model.safetensors")
    assert ConnectionBert.load(tiny_folder).encoder.pooler is None


@pytest.mark.parametrize("cased", [False, True])
def test_case_follows_the_vocabulary_where_nothing_else_says(tiny_folder, tiny_encoder, cased):
    pieces = [*VOCABULARY[:-1], "Dog" if cased else VOCABULARY[-1]]
    (tiny_folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    ids = ConnectionBert.load(tiny_folder).tokenizer("Dog")["input_ids"]
    assert ids[1] == pieces.index("Dog" if cased else "dog")


def test_a_folder_is_listed_once_and_each_of_its_files_parsed_once(tiny_folder, tmp_path):
    model = ConnectionBert.load(tiny_folder, pooling="pooler")
    model.labels = (0.0, 5.0)
    model.save(tmp_path / "saved")
    folders = [tmp_path / "saved" / name for name in ("", "1_Pooling", "2_Dense")]
    with (
        patch.object(os, "scandir", wraps=os.scandir) as scandir,
        patch.object(Path, "read_text", autospec=True, side_effect=Path.read_text) as read_text,
    ):
        ConnectionBert.load(tmp_path / "saved")
    listed, read = [[call.args[0] for call in called.call_args_list] for called in (scandir, read_text)]
    assert sorted(str(path) for path in listed if str(path).startswith(str(tmp_path))) == [str(folder) for folder in folders]
    files = sorted(file for folder in folders for file in folder.glob("*.json"))
    assert len(files) == 8
    assert sorted(file for file in read if file.is_relative_to(tmp_path)) == files


# --- refusals ----------------------------------------------------------------------------------------------------------


def test_no_folder(tmp_path):
    message = refused(tmp_path / "bert-base-uncased")
    assert "python -m tools.download bert-base-uncased" in message
    assert "by hand" in message


def test_all_missing_files_are_named(tiny_folder):
    for file in tiny_folder.iterdir():
        file.unlink()
    message = refused(tiny_folder)
    for part in ("config.json is missing", "model.safetensors or pytorch_model.bin is missing", "vocab.txt or tokenizer.json"):
        assert part in message


def test_lfs_pointer_and_empty_file(tiny_folder):
    (tiny_folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tiny_folder / "vocab.txt").write_text("")
    message = refused(tiny_folder)
    assert "model.safetensors is a Git LFS pointer" in message
    assert "git lfs pull" in message
    assert "vocab.txt is empty" in message


@pytest.mark.parametrize("kept", [4, 100, 2000, -10])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_weights(tiny_folder, tiny_encoder, name, kept):
    (tiny_folder / "model.safetensors").rename(tiny_folder / "kept.safetensors")
    if name == "pytorch_model.bin":
        torch.save(tiny_encoder.state_dict(), tiny_folder / name)
    else:
        (tiny_folder / "kept.safetensors").rename(tiny_folder / name)
    (tiny_folder / name).write_bytes((tiny_folder / name).read_bytes()[:kept])
    message = refused(tiny_folder)
    assert name in message
    assert "again" in message


def test_nothing_but_tensors_is_unpickled(tiny_folder, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "mark"), "w"))

    (tiny_folder / "model.safetensors").unlink()
    torch.save({"weight": Payload()}, tiny_folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refused(tiny_folder)
    (tiny_folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "mark").unlink(missing_ok=True)  # pickle.dumps itself leaves none; only loading would
    assert "pytorch_model.bin" in refused(tiny_folder)
    assert not (tmp_path / "mark").exists()


def test_missing_misshapen_and_non_finite_tensors_are_named(tiny_folder):
    state = load_file(tiny_folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    state["embeddings.position_embeddings.weight"] = torch.zeros(32, 32)
    state["encoder.layer.0.output.LayerNorm.bias"][3] = torch.nan
    state["encoder.layer.0.output.dense.bias"] = torch.zeros(32, dtype=torch.int64)
    save_file(state, tiny_folder / "model.safetensors")
    message = refused(tiny_folder)
    assert "encoder.layer.1.output.dense.weight is missing" in message
    assert "position_embeddings.weight has the shape (32, 32), config.json says (64, 32)" in message
    assert "encoder.layer.0.output.LayerNorm.bias holds NaN" in message
    assert "encoder.layer.0.output.dense.bias holds int64" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not a JSON file"),
        ("[]", "no JSON object"),
        ('{"model_type": "roberta"}', "is not the config of a RoBERTa"),
        ('{"model_type": "gpt2"}', "'gpt2'"),
        ('{"model_type": "bert", "hidden_size": -3}', "hidden_size: -3"),
        ('{"model_type": "bert"}', "vocab_size"),
    ],
)
def test_bad_configs(tiny_folder, content, expected):
    (tiny_folder / "config.json").write_text(content)
    message = refused(tiny_folder)
    assert "config.json" in message
    assert expected in message


def test_a_config_with_nonsense_in_other_places(tiny_folder):
    config = json.loads((tiny_folder / "config.json").read_text())
    for change in ({"hidden_act": "nonesuch"}, {"hidden_dropout_prob": "high"}, {"num_attention_heads": 5}):
        (tiny_folder / "config.json").write_text(json.dumps(config | change))
        assert "config.json" in refused(tiny_folder)


def test_damaged_sentence_transformers_files(tiny_folder, tmp_path):
    ConnectionBert.load(tiny_folder).save(tmp_path / "saved")
    for name, content in {
        "modules.json": "[",
        "sentence_bert_config.json": '{"max_seq_length": "many"}',
        "1_Pooling/config.json": '{"pooling_mode_attention": true, "pooling_mode_cls_token": true}',
        "tokenizer.json": "{}",
    }.items():
        before = (tmp_path / "saved" / name).read_text()
        (tmp_path / "saved" / name).write_text(content)
        assert name.split("/")[-1].split(".")[0] in refused(tmp_path / "saved")
        (tmp_path / "saved" / name).write_text(before)
    modules = json.loads((tmp_path / "saved" / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "saved" / "modules.json").write_text(json.dumps(modules))
    assert "Dense" in refused(tmp_path / "saved")


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_a_config_of_fewer_layers_than_the_weights_have(tiny_folder):
    change_config(tiny_folder, num_hidden_layers=1)
    assert "encoder.layer.1." in refused(tiny_folder)


@pytest.mark.parametrize("change", [{"position_embedding_type": "relative_key"}, {"is_decoder": True}])
def test_a_bert_of_another_kind(tiny_folder, change):
    change_config(tiny_folder, **change)
    assert next(iter(change)) in refused(tiny_folder)


def test_config_entries_that_change_only_how_the_library_computes(tiny_folder):
    before = ConnectionBert.load(tiny_folder).encode(SENTENCES, progress=False, precision="fp32")
    change_config(tiny_folder, return_dict=False, chunk_size_feed_forward=7)
    assert np.allclose(before, ConnectionBert.load(tiny_folder).encode(SENTENCES, progress=False, precision="fp32"), atol=1e-6)


@pytest.mark.parametrize("content", [VOCABULARY[:3], VOCABULARY[: len(VOCABULARY) // 2], VOCABULARY[5:], ["<html>404</html>"]])
def test_a_damaged_vocabulary(tiny_folder, content):
    (tiny_folder / "vocab.txt").write_text("\n".join(content) + "\n", encoding="utf-8")
    assert "tokenizer" in refused(tiny_folder)


def test_half_a_pooler_and_a_number_too_large_for_float32(tiny_folder, tiny_encoder):
    state = tiny_encoder.state_dict()
    del state["pooler.dense.bias"]
    state["embeddings.LayerNorm.bias"] = state["embeddings.LayerNorm.bias"].double() + 1e300
    save_file(state, tiny_folder / "model.safetensors")
    message = refused(tiny_folder)
    assert "pooler.dense.bias is missing" in message
    assert "embeddings.LayerNorm.bias holds NaN or infinite" in message


def test_random_bytes_as_weights_never_end_in_another_error(tiny_folder, tiny_encoder):
    (tiny_folder / "model.safetensors").unlink()
    torch.save(tiny_encoder.state_dict(), tiny_folder / "pytorch_model.bin")
    whole = (tiny_folder / "pytorch_model.bin").read_bytes()
    random = np.random.default_rng(0)
    for case in range(60):
        content = bytearray(whole[: random.integers(1, 3000)] if case % 2 else random.bytes(int(random.integers(1, 200))))
        content[random.integers(len(content))] ^= 0xFF
        (tiny_folder / "pytorch_model.bin").write_bytes(content)
        assert "pytorch_model.bin" in refused(tiny_folder)
    for odd in (
        {1: torch.zeros(2)},
        {"bert.a": torch.zeros(2).to_sparse()},
        [torch.zeros(2)],
        {"a": torch.zeros(2, device="meta")},
    ):
        torch.save(odd, tiny_folder / "pytorch_model.bin")
        assert "pytorch_model.bin" in refused(tiny_folder)


def test_print_model_refuses_in_words(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny_config().to_dict() | {"hidden_act": "nonesuch"}))
    for folder in (tmp_path, tmp_path / "absent", "~nosuchuser/x"):
        shown = run_inside(driver.main, "--print-model", "--model-dir", folder)
        assert shown.returncode == 2
        assert "Traceback" not in shown.stderr


def test_a_folder_saved_by_sentence_transformers_itself(tiny_folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    peer = SentenceTransformer(
        modules=[Transformer(str(tiny_folder), max_seq_length=9), Pooling(32, pooling_mode="max")], device="cpu"
    )
    peer.save(str(tmp_path / "peer"))
    model = ConnectionBert.load(tmp_path / "peer")
    assert (model.pooling, model.max_length) == ("max", 9)
    assert np.allclose(model.encode(SENTENCES, progress=False, precision="fp32"), peer.encode(SENTENCES), atol=1e-5)


def test_a_half_precision_folder_is_saved_as_the_float32_it_is(tiny_folder, tmp_path):
    change_config(tiny_folder, torch_dtype="bfloat16", dtype="bfloat16")
    ConnectionBert.load(tiny_folder).save(tmp_path / "saved")
    assert AutoModel.from_pretrained(tmp_path / "saved").dtype == torch.float32


def test_save_replaces_nothing_but_a_model(tiny_folder, tmp_path):
    model = ConnectionBert.load(tiny_folder)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no model"):
        model.save(tmp_path / "precious")
    with pytest.raises(InputError, match="no folder"):
        model.save(tmp_path / "precious" / "thesis.txt")
    (tmp_path / "precious" / "config.json").write_text("{}")  # as many programs have one
    with pytest.raises(InputError, match="holds no model"):
        model.save(tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"
    model.save(tmp_path / "saved")
    model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").stat().st_mode == (tmp_path / "saved" / "config.json").stat().st_mode


# --- vectors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("pooling", POOLING)
def test_saved_folder_gives_the_same_vectors_everywhere(tiny_folder, tmp_path, pooling, normalized):
    from sentence_transformers import SentenceTransformer

    model = ConnectionBert.load(tiny_folder, pooling=pooling, max_length=12)
    model.normalized = normalized
    model.labels = (0.0, 5.0)
    vectors = model.encode(SENTENCES, progress=False, precision="fp32")
    model.save(tmp_path / "saved")
    again = ConnectionBert.load(tmp_path / "saved")
    assert (again.pooling, again.max_length, again.labels, again.notes) == (pooling, 12, (0.0, 5.0), [])
    assert cosine_rows(vectors, again.encode(SENTENCES, progress=False, precision="fp32")) >= 0.9999
    other = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert other.max_seq_length == 12
    assert np.allclose(vectors, other.encode(SENTENCES), atol=1e-5)


@pytest.mark.parametrize("pooling", POOLING)
def test_pooling_equals_the_librarys(tiny_encoder, tiny_folder, pooling):
    from sentence_transformers.sentence_transformer.modules import Pooling

    model = ConnectionBert.load(tiny_folder, pooling=pooling)
    inputs = model.tokenizer([*SENTENCES, "dog"], padding=True, return_tensors="pt")
    with torch.no_grad():
        output = tiny_encoder(**{name: inputs[name] for name in ("input_ids", "attention_mask")})
        tokens = tokenize([*SENTENCES, "dog"], model.tokenizer, model.max_length)
        ours = model.sentence_vectors(pack([tokens[row] for row in range(len(tokens))], model.tokenizer.pad_token_id))
    if pooling == "pooler":
        expected = output.pooler_output
    else:
        theirs = {"mean-sqrt-len": "mean_sqrt_len_tokens", "weighted-mean": "weightedmean", "last": "lasttoken"}
        features = {"token_embeddings": output.last_hidden_state, "attention_mask": inputs["attention_mask"]}
        expected = Pooling(32, pooling_mode=theirs.get(pooling, pooling))(features)["sentence_embedding"]
    assert torch.allclose(ours, expected, atol=1e-5)


def test_the_poolings_are_those_of_the_setting():
    field = next(field for field in setting_fields() if field.name == "pooling")
    assert set(field.metadata["choices"]) == set(POOLING)


@pytest.mark.parametrize("mode", ["mean_sqrt_len_tokens", "weightedmean", "lasttoken", "cls"])
def test_every_pooling_of_a_folder_saved_by_sentence_transformers(tiny_folder, tmp_path, mode):
    """And after cls pooling a Dense module that is not the encoder's own pooler but computes the same way."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    modules = [Transformer(str(tiny_folder)), Pooling(32, pooling_mode=mode), *([Dense(32, 32)] if mode == "cls" else [])]
    peer = SentenceTransformer(modules=modules, device="cpu")
    peer.save(str(tmp_path / "peer"))
    model = ConnectionBert.load(tmp_path / "peer")
    assert np.allclose(model.encode(SENTENCES, progress=False, precision="fp32"), peer.encode(SENTENCES), atol=1e-5)
    model.save(tmp_path / "again")
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    assert np.allclose(again.encode(SENTENCES), peer.encode(SENTENCES), atol=1e-5)


def test_pooler_pooling_needs_the_poolers_weights(tiny_folder, tiny_encoder):
    state = {name: tensor for name, tensor in tiny_encoder.state_dict().items() if not name.startswith("pooler")}
    save_file(state, tiny_folder / "model.safetensors")
    with pytest.raises(InputError, match="it has mean, cls"):
        ConnectionBert.load(tiny_folder, pooling="pooler")


def test_the_real_small_model_gives_the_same_vectors_everywhere(minilm, tmp_path):
    from sentence_transformers import SentenceTransformer

    sentences = [*SENTENCES, "A plane is taking off.", "Ein Flugzeug hebt ab: c\u00f4t\u00e9 \u5317\u4eac", "word " * 400]
    model = ConnectionBert.load(minilm)
    assert (model.pooling, model.max_length, model.normalized) == ("mean", 256, True)
    vectors = model.encode(sentences, progress=False, precision="fp32")
    assert np.allclose(vectors, SentenceTransformer(str(minilm), device="cpu").encode(sentences), atol=1e-5)
    model.save(tmp_path / "saved")
    assert np.allclose(vectors, SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(sentences), atol=1e-5)
    assert cosine_rows(vectors, ConnectionBert.load(tmp_path / "saved").encode(sentences, progress=False)) >= 0.9999

    library, tokenizer = AutoModel.from_pretrained(tmp_path / "saved"), AutoTokenizer.from_pretrained(tmp_path / "saved")
    inputs = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == 256
    with torch.no_grad():
        states = library(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    assert cosine_rows(vectors, (states * mask).sum(1) / mask.sum(1)) >= 0.9999


def test_encode_keeps_order_and_length_for_any_list(tiny_folder):
    model = ConnectionBert.load(tiny_folder)
    sentences = [SENTENCES[i % 5] + " dog" * (i % 7) for i in range(50)]
    vectors = model.encode(sentences, batch_size=8, progress=False, precision="fp32")
    assert vectors.shape == (50, 32)
    assert vectors.dtype == np.float32
    alone = np.concatenate([model.encode([sentence], progress=False, precision="fp32") for sentence in sentences])
    assert np.allclose(vectors, alone, atol=1e-5)
    assert model.encode([]).shape == (0, 32)
    with pytest.raises(TypeError):
        model.encode("one sentence")
    with pytest.raises(ValueError, match="batch_size"):
        model.encode(["a dog"], batch_size=-1)


def test_forward_reads_both_sides_in_one_encoder_call(tiny_folder, monkeypatch):
    model = ConnectionBert.load(tiny_folder)
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    a, b = ["a dog", "the man plays guitar"], ["the cat", "a big city"]
    tokens = tokenize(a + b, model.tokenizer, model.max_length)
    u, v = model(pack([tokens[row] for row in range(4)], model.tokenizer.pad_token_id))
    cosine = cosine_similarity(u, v)
    assert len(calls) == 1
    assert np.allclose(u.detach(), model.encode(a, progress=False, precision="fp32"), atol=1e-5)
    assert np.allclose(v.detach(), model.encode(b, progress=False, precision="fp32"), atol=1e-5)
    assert np.allclose(cosine.detach(), model.similarity(a, b), atol=1e-5)
    assert model.similarity(a, a) == pytest.approx([1, 1], abs=1e-5)
    assert cosine.abs().max() <= 1


def test_print_model_shows_bert_base(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"} | BertConfig().to_dict()))
    shown = run_inside(driver.main, "--print-model", "--model-dir", tmp_path)
    assert shown.returncode == 0, shown.stderr
    text = shown.stdout
    for part in ("Embedding(30522, 768, padding_idx=0)", "Embedding(512, 768)", "(0-11): 12 x BertLayer", "BertPooler"):
        assert part in text
    for part in ("eps=1e-12", "p=0.1", "out_features=3072", "(embeddings)", "(pooler)"):
        assert part in text


def test_similarity_tool(tiny_folder, tmp_path):
    model = ConnectionBert.load(tiny_folder)
    model.labels = (1.0, 5.0)
    model.save(tmp_path / "uncalibrated")  # no dev pairs told which label a cosine stands for
    assert run_inside(similarity.main, tmp_path / "uncalibrated", "a dog", "a dog").stdout == "cosine 1.0000\n"
    model.calibration = Calibration(None, ((0.0, 1.0), (1.0, 5.0)))
    model.save(tmp_path / "saved")
    shown = run_inside(similarity.main, tmp_path / "saved", "a dog", "a dog")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        "cosine 1.0000",
        "connected: the threshold is 0.5000 (predicted label 3, the middle of 1 to 5)",
        "score  5.00 on the scale 1 to 5",
    ]
    for words in (
        [tmp_path / "absent", "a", "b"],
        [tmp_path / "saved", " ", "b"],
        [tmp_path / "saved", "a", "\udcff"],
        ["~nobody/x", "a", "b"],
    ):
        shown = run_inside(similarity.main, *words)
        assert shown.returncode == 2
        assert "Traceback" not in shown.stderr


def test_too_long_a_maximum_and_an_unknown_pooling_are_refused(tiny_folder):
    with pytest.raises(InputError, match="65"):
        ConnectionBert.load(tiny_folder, max_length=65)
    with pytest.raises(InputError, match="median"):
        ConnectionBert.load(tiny_folder, pooling="median")


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tmp_path):
    folder = write_bert(tmp_path / "small", BertModel(tiny_config(vocab_size=10)))
    assert "vocab_size 10" in refused(folder)


def test_encode_in_bf16_stays_close(minilm):
    """The vectors' cosine that docs/architecture.md promises between all ways to open a model."""
    model = ConnectionBert.load(minilm)
    sentences = [f"{a} {b}" for a in SENTENCES for b in SENTENCES]
    exact = model.encode(sentences, progress=False, precision="fp32")
    assert 0.9999 <= cosine_rows(exact, model.encode(sentences, progress=False, precision="bf16")) < 1
