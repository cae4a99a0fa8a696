"""Every setting of a sentence-transformers folder: obeyed as that library does, kept by save(), or refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from connection.data.tokenization import tokenize
from connection.evaluation.similarity import model_digest, pair_similarities
from connection.model.packing import pack
from ConnectionBert import ConnectionBert, load_tokenizer
from tests.conftest import PAIRS
from tests.model.test_bert import cosine_rows, refused

TEXTS = ["The Man plays guitar", "a DOG", "the big red horse is not in the park, in the city at night.", "?", "a [SEP] b"]
BERT, MODEL, POOLING = "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"
TOKENIZER = "tokenizer_config.json"
PROMPTS: dict[str, Any] = {"prompts": {"query": "the city sees: ", "mine": "not a book. "}, "default_prompt_name": "mine"}
# name: the entries that are changed, by file
OBEYED: dict[str, dict[str, Any]] = {
    "the default prompt": {MODEL: PROMPTS},
    "the default prompt, named query": {MODEL: PROMPTS | {"default_prompt_name": "query"}},
    "a prompt that is left out of the mean": {MODEL: PROMPTS, POOLING: {"include_prompt": False}},
    **{
        f"a prompt that is left out, {mode}": {MODEL: PROMPTS, POOLING: {"include_prompt": False, "pooling_mode": mode}}
        for mode in ("cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    },
    "lower case": {BERT: {"do_lower_case": True}, TOKENIZER: {"do_lower_case": False}},
    "lower case with accents stripped": {
        BERT: {"do_lower_case": True},
        TOKENIZER: {"do_lower_case": False, "strip_accents": True},
    },
    "lower case in a tokenizer of the general class": {
        BERT: {"do_lower_case": True},
        TOKENIZER: {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
        "tokenizer.json": {"normalizer": None},
    },
    "cut vectors": {MODEL: {"truncate_dim": 5}},
    "cut vectors of a combination": {MODEL: {"truncate_dim": 40}, POOLING: {"pooling_mode": ["mean", "cls"]}},
    "a maximum length": {BERT: {"max_seq_length": 6}},
    "a maximum length of the tokenizer's": {TOKENIZER: {"model_max_length": 7}},
    "a maximum length in the tokenizer's arguments": {BERT: {"tokenizer_args": {"model_max_length": 6}, "max_seq_length": 9}},
    "a maximum length in a file for another encoder": {BERT: None, "sentence_roberta_config.json": {"max_seq_length": 6}},
    "a combination in the new form": {POOLING: {"pooling_mode": ["max", "cls"]}},
    "a combination in the old form": {
        POOLING: {"pooling_mode": None, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    },
    "special tokens in a text as text": {TOKENIZER: {"split_special_tokens": True}},
}
# These say what would be done anyway, or concern other calls than encode().
WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    "no maximum length": {BERT: {"max_seq_length": None}, TOKENIZER: {"model_max_length": 10**30}},
    "a maximum length of 0": {BERT: {"max_seq_length": 0}},
    "similarity dot": {MODEL: {"similarity_fn_name": "dot"}},
    "similarity euclidean": {MODEL: {"similarity_fn_name": "euclidean"}},
    "prompts without a default": {MODEL: PROMPTS | {"default_prompt_name": None}},
    "a default prompt that is empty": {MODEL: {"prompts": {"query": "", "document": None}, "default_prompt_name": "query"}},
    "a default name of a prompt that is always there": {MODEL: {"prompts": {}, "default_prompt_name": "document"}},
    "the Transformer's own words": {BERT: {"transformer_task": "feature-extraction", "unpad_inputs": False, "query_length": 9}},
    "numbers of another precision": {BERT: {"model_args": {"torch_dtype": "float32"}}},
    "the prompt included": {POOLING: {"include_prompt": True}},
    "wanted versions": {MODEL: {"requirements": {"transformers": ">=4"}}},
}


def change(folder: Path, changes: dict) -> None:
    """Change entries of JSON files; None removes an entry, or a file. Folder by folder, file by file."""
    for name, entries in changes.items():
        if entries is None:
            (folder / name).unlink()
            continue
        old = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        content = old | entries
        if name == POOLING:
            content = {key: value for key, value in content.items() if value is not None}
        (folder / name).write_text(json.dumps(content))


@pytest.fixture
def peer(tiny_folder, tmp_path) -> Path:
    """A folder as sentence-transformers saves it."""
    SentenceTransformer(modules=[Transformer(str(tiny_folder)), Pooling(32)], device="cpu").save(str(tmp_path / "peer"))
    return tmp_path / "peer"


def encoded(model: ConnectionBert) -> np.ndarray:
    return model.encode(TEXTS, progress=False, precision="fp32")


def same_vectors(folder: Path, saved: Path) -> np.ndarray:
    """The vectors of a folder, which are those of sentence-transformers, and those of the folder that is saved of it."""
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    model = ConnectionBert.load(folder)
    model.save(saved)
    for vectors in (
        encoded(model),
        encoded(ConnectionBert.load(saved)),
        SentenceTransformer(str(saved), device="cpu").encode(TEXTS),
    ):
        assert vectors.shape == theirs.shape
        assert np.allclose(vectors, theirs, atol=1e-5)
        assert cosine_rows(vectors, theirs) >= 0.9999
    return theirs


@pytest.mark.parametrize("name", OBEYED)
def test_what_a_setting_does_is_done_and_saved(peer, tmp_path, name):
    if "lower case" in name:  # the tokenizer of the unchanged folder lower-cases by itself
        change(peer, {file: entries for file, entries in OBEYED[name].items() if file != BERT})
    before = SentenceTransformer(str(peer), device="cpu").encode(TEXTS)
    change(peer, OBEYED[name])
    vectors = same_vectors(peer, tmp_path / "saved")
    assert vectors.shape != before.shape or cosine_rows(vectors, before) < 0.9999


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_a_setting_without_effect_on_vectors(peer, tmp_path, name):
    before = SentenceTransformer(str(peer), device="cpu").encode(TEXTS)
    change(peer, WITHOUT_EFFECT[name])
    assert np.allclose(same_vectors(peer, tmp_path / "saved"), before, atol=1e-6)


@pytest.mark.parametrize("normalized", [False, True])
def test_a_cut_vector_is_normalized_before_it_is_cut(tiny_folder, tmp_path, normalized):
    modules = [Transformer(str(tiny_folder)), Pooling(32), *([Normalize()] if normalized else [])]
    SentenceTransformer(modules=modules, device="cpu", truncate_dim=4).save(str(tmp_path / "peer"))
    vectors = same_vectors(tmp_path / "peer", tmp_path / "saved")
    assert vectors.shape == (5, 4)
    assert (np.linalg.norm(vectors, axis=1) < 0.999).all() == normalized


def test_everything_that_is_kept_stands_in_the_saved_files(peer, tmp_path):
    wanted = PROMPTS | {"similarity_fn_name": "dot", "truncate_dim": 9, "requirements": {"transformers": ">=4"}}
    change(peer, {MODEL: wanted, BERT: {"do_lower_case": True, "query_length": 9, "document_length": 8}})
    change(peer, {POOLING: {"include_prompt": False}})
    model = ConnectionBert.load(peer)
    model.save(tmp_path / "saved")
    saved = {name: json.loads((tmp_path / "saved" / name).read_text()) for name in (MODEL, BERT, POOLING)}
    # The default prompt was put before all, so it is what encode_query and encode_document take of the saved folder.
    prompts = {"query": "not a book. ", "document": "not a book. ", "mine": "not a book. "}
    assert (wanted | {"prompts": prompts}).items() <= saved[MODEL].items()
    assert {"do_lower_case": True, "query_length": 9, "document_length": 8, "max_seq_length": 64}.items() == saved[BERT].items()
    assert saved[POOLING]["include_prompt"] is False
    other = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert (other.similarity_fn_name, other.truncate_dim, other.default_prompt_name) == ("dot", 9, "mine")
    assert other.prompts == prompts
    notes = "; ".join(model.notes)
    assert "'not a book. ' stands before every text, in training too" in notes
    assert "similarity is dot" in notes
    assert "cut to their first 9 numbers" in notes


def test_the_pooling_file_has_the_keys_that_older_readers_require(tiny_folder, tmp_path):
    required = {
        "pooling_mode_cls_token",
        "pooling_mode_mean_tokens",
        "pooling_mode_max_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
    }
    for pooling in ("mean", "cls", "last", "pooler"):
        ConnectionBert.load(tiny_folder, pooling=pooling).save(tmp_path / "saved")
        saved = json.loads((tmp_path / "saved" / POOLING).read_text())
        later = {"pooling_mode_lasttoken"} if pooling == "last" else set()
        assert set(saved) == {"word_embedding_dimension"} | required | later


def test_prompt_and_cut_count_in_training_and_in_what_is_measured(peer):
    """The vectors of tokens from a pair file are those of encode(), and a training pass makes the same cosines."""
    change(peer, {MODEL: PROMPTS | {"truncate_dim": 7}, POOLING: {"include_prompt": False}})
    model = ConnectionBert.load(peer)
    ones, twos = [pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS]
    expected = model.similarity(ones, twos)
    tokens = tokenize(ones + twos, load_tokenizer(peer), 64, PROMPTS["prompts"]["mine"])
    batch = pack([tokens[row] for row in range(len(tokens))], model.tokenizer.pad_token_id)
    model.train()
    model.prepare_training("fp32", True, 0, dropout=0.0)
    u, v = (side.detach().numpy() for side in model(batch))
    assert u.shape == (8, 7) == (8, model.hidden_size)
    made = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    assert np.allclose(made, expected, atol=1e-5)
    model.eval()

    store: Any = SimpleNamespace(index1=np.arange(8), index2=np.arange(8, 16), tokens=tokens, one_prompt=True)
    assert np.allclose(pair_similarities(model, store)["cosine"], expected, atol=1e-5)


def test_models_with_other_settings_have_other_digests(peer):
    plain = model_digest(ConnectionBert.load(peer)).hexdigest()
    change(peer, {MODEL: {"truncate_dim": 5}})
    cut = model_digest(ConnectionBert.load(peer)).hexdigest()
    change(peer, {MODEL: PROMPTS | {"truncate_dim": None}, POOLING: {"include_prompt": False}})
    assert len({plain, cut, model_digest(ConnectionBert.load(peer)).hexdigest()}) == 3


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "another task": ({BERT: {"transformer_task": "fill-mask"}}, BERT, "transformer_task is 'fill-mask'"),
    "another output": (
        {BERT: {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}}}, BERT, "moda"),
    "arguments for texts": ({BERT: {"processing_kwargs": {"text": {"max_length": 4}}}}, BERT, "processing_kwargs is"),
    "another tokenizer": ({BERT: {"tokenizer_name_or_path": "../other"}}, BERT, "tokenizer_name_or_path is '../other'"),
    "fewer layers": ({BERT: {"config_args": {"num_hidden_layers": 1}}}, BERT, "config_args sets 'num_hidden_layers'"),
    "another case": ({BERT: {"tokenizer_args": {"do_lower_case": False}}}, BERT, "tokenizer_args sets 'do_lower_case'"),
    "arguments that are none": ({BERT: {"model_args": 5}}, BERT, "model_args should be an object"),
    "a switch that is none": ({BERT: {"do_lower_case": "yes"}}, BERT, "do_lower_case should be true or false"),
    "a length that is none": ({BERT: {"max_seq_length": True}}, BERT, "max_seq_length should be a whole number"),
    "a length below 0": ({BERT: {"max_seq_length": -1}}, BERT, "max_seq_length is -1"),
    "a length without room": ({BERT: {"max_seq_length": 2}}, BERT, "max_seq_length is 2"),
    "a tokenizer's length without room": ({TOKENIZER: {"model_max_length": 2}}, TOKENIZER, "model_max_length is 2"),
    "cut at the beginning": ({TOKENIZER: {"truncation_side": "left"}}, TOKENIZER, "truncation_side left"),
    "another kind of model": ({MODEL: {"model_type": "CrossEncoder"}}, MODEL, "a 'CrossEncoder'"),
    "an unknown default": ({MODEL: {"default_prompt_name": "absent"}}, MODEL, "is 'absent', which is none of"),
    "prompts that are none": ({MODEL: {"prompts": {"query": 5}}}, MODEL, "prompts should be an object of texts"),
    "an endless prompt": ({MODEL: {"prompts": {"query": "x " * 10_000}}}, MODEL, "a prompt of 20,000 characters"),
    "a prompt without room beside it": (
        {MODEL: {"prompts": {"query": "dog " * 70}, "default_prompt_name": "query"}}, "prompt", "fills the maximum length"),
    "another similarity": ({MODEL: {"similarity_fn_name": "maxsim"}}, MODEL, "similarity_fn_name should be one of cosine"),
    "a cut at 0": ({MODEL: {"truncate_dim": 0}}, MODEL, "truncate_dim should be a whole number from 1"),
    "a cut at true": ({MODEL: {"truncate_dim": True}}, MODEL, "truncate_dim should be a whole number from 1"),
    "an unknown pooling": ({POOLING: {"pooling_mode": "attention"}}, POOLING, "the pooling attention"),
    "a pooling twice": ({POOLING: {"pooling_mode": ["mean", "mean"]}}, POOLING, "the pooling mean+mean"),
    "a pooling of one's own": ({POOLING: {"pooling_mode": None, "pooling_mode_x": True}}, POOLING, "pooling_mode_x"),
    "a switch of the pooling that is none": ({POOLING: {"include_prompt": "no"}}, POOLING, "include_prompt should be true"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(peer, name):
    changes, file, part = REFUSED[name]
    change(peer, changes)
    message = refused(peer)
    assert file in message
    assert part in message
    assert "--max-length" not in message or name == "a prompt without room beside it"
    assert len(message.splitlines()) == 1


def test_a_folder_without_modules_is_its_bert_alone(tiny_folder):
    """As for sentence-transformers: it reads these files of folders with a modules.json alone."""
    before = encoded(ConnectionBert.load(tiny_folder))
    change(tiny_folder, {MODEL: PROMPTS | {"truncate_dim": 5, "model_type": "CrossEncoder"}})
    assert np.allclose(encoded(ConnectionBert.load(tiny_folder)), before, atol=1e-6)


@pytest.mark.parametrize("repeated", ["Dense", "Normalize"])
def test_a_module_that_stands_twice_is_not_taken_for_one(tiny_folder, tmp_path, repeated):
    model = ConnectionBert.load(tiny_folder, pooling="pooler")
    model.normalized = True
    model.save(tmp_path / "saved")
    modules = json.loads((tmp_path / "saved" / "modules.json").read_text())
    again = next(module for module in modules if repeated in module["type"])
    (tmp_path / "saved" / "modules.json").write_text(json.dumps([*modules, again]))
    message = refused(tmp_path / "saved")
    assert re.search("modules.json: the modules .*without its modules.json", message)


def test_a_module_of_the_tokens_is_refused(peer, tmp_path):
    modules = json.loads((peer / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    (peer / "modules.json").write_text(json.dumps(modules))
    (peer / "2_Normalize").mkdir()
    (peer / "2_Normalize" / "config.json").write_text('{"module_input_name": "token_embeddings"}')
    assert "module_input_name is 'token_embeddings'" in refused(peer)


# --- the lists of sentences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["a dog", b"a dog", 5, None, {"a dog": 1}, [["a dog"]], ["a dog", None], [b"a dog"]])
def test_what_is_no_list_of_sentences_is_refused_by_both(tiny_folder, wrong):
    model = ConnectionBert.load(tiny_folder)
    for call in (lambda: model.encode(wrong), lambda: model.similarity(wrong, wrong),
                 lambda: model.similarity(["a dog"], wrong), lambda: model.similarity(wrong, ["a dog"])):  # fmt: skip
        with pytest.raises(TypeError, match=r"takes lists of sentences \(str\), not .*\[sentence\]"):
            call()


def test_any_list_of_sentences_is_taken(tiny_folder):
    model = ConnectionBert.load(tiny_folder)
    expected = model.encode(["a dog", "a cat"], progress=False, precision="fp32")
    given: Any
    for given in (("a dog", "a cat"), np.array(["a dog", "a cat"]), iter(["a dog", "a cat"])):
        assert np.allclose(model.encode(given, progress=False, precision="fp32"), expected, atol=1e-6)
    assert model.similarity([], []).shape == (0,)
