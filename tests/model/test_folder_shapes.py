"""The shapes of model folders: shards, prefixed names, folders of old versions, a vocabulary alone; and other models'."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

import bertFineTuningWithConnectionData as driver
from connection.model.checks.model_folder import check_folder
from connection.model.tokenizer import _normalization
from connection.runs.resume import SAME, require_same
from connection.system.errors import InputError
from connection.system.paths import ROOT, file_sha256
from connection.system.versions import describe
from ConnectionBert import ConnectionBert, load_tokenizer
from tests.conftest import VOCABULARY, run_inside, tiny_config, write_bert
from tests.model.test_bert import SENTENCES, change_config, refused

SAFE, BIN = "model.safetensors", "pytorch_model.bin"


def vectors(folder: Path) -> np.ndarray:
    return ConnectionBert.load(folder).encode(SENTENCES, progress=False, precision="fp32")


def in_shards(folder: Path, form: str = "safetensors", shards: int = 3) -> None:
    state = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    stem = {"safetensors": "model", "bin": "pytorch_model"}[form]
    places = {name: f"{stem}-{1 + place % shards:05}-of-{shards:05}.{form}" for place, name in enumerate(state)}
    for shard in set(places.values()):
        part = {name: state[name] for name, place in places.items() if place == shard}
        save_file(part, folder / shard) if form == "safetensors" else torch.save(part, folder / shard)
    (folder / f"{stem}.{form}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_weights_in_shards(tiny_folder, form):
    expected, before = vectors(tiny_folder), check_folder(tiny_folder).weights_sha256
    assert before == file_sha256(tiny_folder / SAFE)
    in_shards(tiny_folder, form)
    assert (vectors(tiny_folder) == expected).all()
    digest = check_folder(tiny_folder).weights_sha256
    shard = sorted(tiny_folder.glob("*00003-of-*"))[0]
    part = load_file(shard) if form == "safetensors" else torch.load(shard, weights_only=True)
    part[next(iter(part))] += 1
    save_file(part, shard) if form == "safetensors" else torch.save(part, shard)
    assert len({digest, check_folder(tiny_folder).weights_sha256, before}) == 3
    shard.unlink()
    message = refused(tiny_folder)
    assert re.search(r"index\.json names 3 files of weights, and 1 of them is missing: .*00003-of-00003", message)


def test_one_file_of_weights_comes_before_an_index(tiny_folder):
    state = load_file(tiny_folder / SAFE)
    expected = vectors(tiny_folder)
    in_shards(tiny_folder)
    save_file(state, tiny_folder / SAFE)
    (tiny_folder / f"{SAFE}.index.json").write_text('{"weight_map": {"a": "absent.safetensors"}}')
    assert (vectors(tiny_folder) == expected).all()


@pytest.mark.parametrize(
    "prefix", ["0.auto_model.", "module.", "model.", "bert.", "module.bert.", "_orig_mod.", "encoder.bert."]
)
def test_names_with_what_a_larger_module_called_its_encoder(tiny_folder, prefix):
    expected = vectors(tiny_folder)
    state = {f"{prefix}{name}": tensor for name, tensor in load_file(tiny_folder / SAFE).items()}
    save_file(state | {"classifier.weight": torch.zeros(2, 32)}, tiny_folder / SAFE)
    assert (vectors(tiny_folder) == expected).all()
    assert "1 tensors beside the encoder" in ConnectionBert.load(tiny_folder).notes[-1]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (
            lambda state: {f"x{place}": tensor for place, tensor in enumerate(state.values())},
            "37 of its 37 tensors .*'x0', 'x1'",
        ),
        (lambda state: {f"a.{name}.lora_A.weight": tensor for name, tensor in state.items()}, "it holds a PEFT adapter"),
        (lambda state: {f"{side}.{name}": t for side in "qd" for name, t in state.items()}, "The weights hold 2 encoders"),
        (
            lambda state: {f"roberta.{name}": tensor for name, tensor in state.items()},
            "another encoder than a BERT.*'roberta.'",
        ),
        (lambda state: {name: t for name, t in state.items() if "layer.1" not in name}, "16 of its 39 tensors are missing"),
    ],
)
def test_weights_that_are_others_are_refused_with_their_cause_in_one_line(tiny_folder, change, cause):
    state = {name: tensor.clone() for name, tensor in change(load_file(tiny_folder / SAFE)).items()}
    save_file(state, tiny_folder / SAFE)
    change_config(tiny_folder, vocab_size=len(VOCABULARY))
    message = refused(tiny_folder)
    assert re.search(cause, message)
    assert len(message.splitlines()) <= 2


@pytest.mark.parametrize(("name", "kind"), [("0_BERT", "BERT"), ("0_Transformer", "Transformer")])
def test_a_folder_of_before_sentence_transformers_2(tiny_folder, tmp_path, name, kind):
    expected = vectors(tiny_folder)
    old = tmp_path / "old"
    (old / "1_Pooling").mkdir(parents=True)
    tiny_folder.rename(old / name)
    (old / "config.json").write_text('{"__version__": "0.2.5"}')
    modules = [{"path": name, "type": f"sentence_transformers.models.{kind}"}]
    modules.append({"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    (old / "modules.json").write_text(json.dumps(modules))
    (old / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (old / name / "sentence_bert_config.json").write_text('{"max_seq_length": 60, "do_lower_case": false}')
    assert (vectors(old) == expected).all()
    model = ConnectionBert.load(old)
    assert (model.max_length, model.pooling, model.folder) == (60, "mean", old)
    assert load_tokenizer(old)("a dog")["input_ids"] == model.tokenizer("a dog")["input_ids"]
    assert run_inside(driver.main, "--print-model", "--model-dir", old).returncode == 0
    model.save(tmp_path / "saved")
    assert (vectors(tmp_path / "saved") == expected).all()
    (old / "modules.json").unlink()
    (old / "config.json").unlink()
    assert f"has no config.json; {old / name} has one: give that folder" in refused(old)


@pytest.mark.parametrize("base", ["bert-base-uncased", "someone/bert", "/home/x/my bert"])
@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_refused_with_the_commands_that_merge_it(tiny_folder, base, alone):
    (tiny_folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))
    if alone:
        for name in (SAFE, "config.json", "vocab.txt"):
            (tiny_folder / name).unlink()
    message = refused(tiny_folder)
    assert "merge it into them first" in message
    assert "pip install peft" in message
    code, words = re.findall(r'python -c "(.*)" (.*)', message)[0]
    compile(code, "the command", "exec")
    named = str(ROOT / "transformers/bert" / base) if (ROOT / "transformers/bert" / base).is_dir() else base
    assert shlex.split(words) == ["BASE_MODEL" if " " in base else named, str(tiny_folder), f"{tiny_folder}-merged"]
    assert ("in place of BASE_MODEL" in message) == (" " in base)


def test_an_adapters_base_in_a_folder_of_ones_own_is_named(tiny_folder, tmp_path):
    base = tmp_path / "my bert"
    base.mkdir()
    (tiny_folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert shlex.split(re.findall(r'python -c "(?:.*)" (.*)', refused(tiny_folder))[0])[0] == str(base)


@pytest.mark.parametrize("kind", ["deberta-v2", "gpt2", "t5", "xlnet", "clip", "RoBERTa", ["bert"]])
@pytest.mark.parametrize("missing", [(), ("vocab.txt",), ("vocab.txt", SAFE)])
def test_other_encoders_are_refused_with_a_way_out(tiny_folder, kind, missing):
    change_config(tiny_folder, model_type=kind)
    for name in missing:
        (tiny_folder / name).unlink()
    message = refused(tiny_folder)
    assert f"{kind!r}: the encoders that can be used here are bert, distilbert, " in message
    assert "python -m tools.download bert-base-uncased" in message
    assert len(message.splitlines()) == 1


def test_a_config_of_2019_without_a_model_type(tiny_folder):
    config = json.loads((tiny_folder / "config.json").read_text())
    del config["model_type"]
    (tiny_folder / "config.json").write_text(json.dumps(config))
    ConnectionBert.load(tiny_folder)
    (tiny_folder / "config.json").write_text(json.dumps(config | {"architectures": ["RobertaForMaskedLM"]}))
    assert "'RobertaForMaskedLM': the encoders that can be used here" in refused(tiny_folder)


# --- a vocabulary alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text", "pieces", "note"),
    [
        ("dog tur", "Dog T\u00fcr", ["dog", "tur"], ""),
        ("dog t\u00fcr", "Dog T\u00fcr", ["dog", "t\u00fcr"], "lower-cased .*accents are kept"),
        ("Dog T\u00fcr", "Dog T\u00fcr dog", ["Dog", "T\u00fcr", "[UNK]"], "kept in their case .*accents are kept"),
        ("\ubb38 \uc7a0", "\ubb38 \uc7a0", ["\ubb38", "\uc7a0"], "Hangul syllables stay whole"),
        (
            "\u1106\u116e\u11ab dog",
            "\ubb38 Dog",
            ["\u1106\u116e\u11ab", "dog"],
            "",
        ),  # of Jamo, as multilingual-uncased has them
        ("\u304c dog", "\u304c DOG", ["\u304c", "dog"], "lower-cased .*accents are kept"),
    ],
)
def test_case_and_accents_are_decided_by_what_the_vocabulary_holds(tmp_path, words, text, pieces, note):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "abc", "123", *words.split()]
    folder = write_bert(tmp_path / "words", BertModel(tiny_config(vocab_size=len(vocabulary))))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    model = ConnectionBert.load(folder)
    assert model.tokenizer.convert_ids_to_tokens(model.tokenizer(text)["input_ids"])[1:-1] == pieces
    assert re.search(note, " ".join(model.notes)) if note else not model.notes
    model.save(tmp_path / "saved")
    again = ConnectionBert.load(tmp_path / "saved")
    assert again.tokenizer(text)["input_ids"] == model.tokenizer(text)["input_ids"]
    assert not again.notes


def test_a_vocabulary_with_a_stray_capital_stays_one_without(minilm, tmp_path):
    pieces = (minilm / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert _normalization(pieces) == (True, None, "")
    assert _normalization([*pieces, "\u0130", "\u00e9"])[:2] == (True, None)


# --- versions ----------------------------------------------------------------------------------------------------------


def test_the_tokenizers_library_is_pinned_and_recorded():
    installed = importlib.metadata.version("tokenizers")
    assert describe({})["versions"]["tokenizers"] == installed
    assert f"tokenizers=={installed}" in (ROOT / "requirements.txt").read_text().split()


def test_a_run_of_before_a_library_was_recorded_resumes_without_a_remark():
    record = dict.fromkeys(SAME, 1) | {
        "parts_sha256": {},
        "git_commit": "a",
        "train_file": "a.csv",
        "versions": {"torch": "1", "tokenizers": "2"},
    }
    checkpoint: Any = SimpleNamespace(notes=[], folder=Path("step-1"))
    checkpoint.values = {"settings": record | {"versions": {"torch": "1"}}}
    assert require_same(checkpoint, record) == []
    checkpoint.values = {"settings": record | {"versions": {"torch": "0"}}}
    assert "torch 0 -> 1" in require_same(checkpoint, record)[0]
    assert "tokenizers" not in require_same(checkpoint, record)[0]


# --- the wrong folder ----------------------------------------------------------------------------------------------------


def test_a_runs_folder_is_taken_for_its_model(tiny_folder, tmp_path):
    ConnectionBert.load(tiny_folder).save(tmp_path / "run" / "model")
    (tmp_path / "run" / "settings.json").write_text("{}")
    assert ConnectionBert.load(tmp_path / "run").folder == tmp_path / "run" / "model"
    (tmp_path / "run" / "settings.json").unlink()
    with pytest.raises(InputError, match="give that folder"):
        ConnectionBert.load(tmp_path / "run")


def test_a_folder_that_is_not_there_names_the_models_beside_it(tiny_folder, tmp_path):
    with pytest.raises(InputError, match=f"There is: --model-dir {tiny_folder}"):
        ConnectionBert.load(tiny_folder.parent / "bert-base-uncased")
