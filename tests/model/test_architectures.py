"""Encoders beside BERT: each family's vectors against sentence-transformers', its training and saving, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

import bertFineTuningWithConnectionData as driver
from connection.model.architectures import ARCHITECTURES, Architecture
from connection.model.packed_bert import PackedBert
from connection.model.packing import pack
from connection.system.errors import InputError
from ConnectionBert import ConnectionBert, load_tokenizer, module_tree
from tests.conftest import MANY, VOCABULARY, run_inside, training_words, write_pairs

TEXTS = ["the man plays guitar", "a dog", "the big red horse is not in the park", "the dog , the horse and the man " * 2, "a"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
FAMILIES = [kind for kind in ARCHITECTURES if kind != "bert"]


def tokenizer_for(kind: str) -> PreTrainedTokenizerFast:
    """A small tokenizer of the family's form, trained on the pairs of the tests."""
    special = dict(ARCHITECTURES[kind].special)
    names = [special[role] for role in ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")]
    texts = [text for row in MANY for text in row[:2]] + TEXTS
    if kind in ("roberta", "modernbert"):
        tokenizer = Tokenizer(models.BPE(unk_token=special["unk_token"]))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        how: dict[str, Any] = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
        trainer: Any = trainers.BpeTrainer(vocab_size=400, special_tokens=names, **how)
        tokenizer.train_from_iterator(texts, trainer)
    elif kind == "mpnet":
        pieces = {piece: number for number, piece in enumerate([*names, *VOCABULARY[5:]])}
        tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    else:
        tokenizer = Tokenizer(models.Unigram())
        quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')] if kind == "albert" else []
        tokenizer.normalizer = normalizers.Sequence([*quotes, normalizers.NFKD()])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        unknown = special["unk_token"]
        trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=names, unk_token=unknown, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
    numbers, sep, cls = tokenizer.get_vocab(), special["sep_token"], special["cls_token"]
    tokenizer.post_processor = processors.BertProcessing((sep, numbers[sep]), (cls, numbers[cls]))
    given = {} if ARCHITECTURES[kind].type_ids else {"model_input_names": ["input_ids", "attention_mask"]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **given)


def config_of(kind: str, **changes):
    family = ARCHITECTURES[kind]
    more = {
        "electra": {"embedding_size": 16}, "albert": {"embedding_size": 16, "num_hidden_groups": 1},
        "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    }.get(kind, {})  # fmt: skip
    sizes = {family.sizes.get(name, name): size for name, size in SIZES.items()}
    length = 40 + (2 if kind in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0)
    made = sizes | {"max_position_embeddings": length, "vocab_size": len(VOCABULARY)} | more | changes
    return getattr(transformers, family.model.removesuffix("Model") + "Config")(**made)


def write_encoder(folder: Path, kind: str, **changes) -> Path:
    """A folder as transformers writes it: random weights, not tied to the initialisation's small values."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    if ARCHITECTURES[kind].own_pieces:
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    else:
        tokenizer = tokenizer_for(kind)
        tokenizer.save_pretrained(folder)
        ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.cls_token_id}
        changes = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.sep_token_id} | ids | changes
    encoder = getattr(transformers, ARCHITECTURES[kind].model)(config_of(kind, **changes)).eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.05 * torch.randn_like(weight)
    encoder.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", FAMILIES)
def test_vectors_are_those_of_sentence_transformers(kind, tmp_path):
    folder = write_encoder(tmp_path / "model", kind)
    model = ConnectionBert.load(folder)
    assert model.family is ARCHITECTURES[kind]
    assert model.max_length == 40
    vectors = model.encode(TEXTS, progress=False, precision="fp32")
    model.save(tmp_path / "saved")
    for opened in (folder, tmp_path / "saved"):
        peer = SentenceTransformer(str(opened), device="cpu", local_files_only=True)
        peer.max_seq_length = 40
        assert np.allclose(vectors, peer.encode(TEXTS), atol=1e-5)
    assert np.allclose(
        vectors, ConnectionBert.load(tmp_path / "saved").encode(TEXTS, progress=False, precision="fp32"), atol=1e-6
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved", local_files_only=True)
    with torch.no_grad():
        states = AutoModel.from_pretrained(tmp_path / "saved", local_files_only=True)(
            **tokenizer(TEXTS[0], return_tensors="pt")
        )
    assert np.allclose(states.last_hidden_state[0].mean(dim=0), vectors[0], atol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_packed_rows_give_the_states_of_padded_ones(kind, tmp_path):
    model = ConnectionBert.load(write_encoder(tmp_path / "model", kind))
    generator = np.random.default_rng(0)
    sentences = [generator.integers(5, len(model.tokenizer), length) for length in (3, 30, 9, 17, 5, 22, 12, 40, 7)]
    with torch.no_grad():
        packed, padded = (model.sentence_vectors(pack(sentences, model.tokenizer.pad_token_id, way)) for way in (True, False))
        alone = torch.cat([model.sentence_vectors(pack([one], model.tokenizer.pad_token_id)) for one in sentences])
    assert torch.allclose(packed, padded, atol=1e-5)
    assert torch.allclose(alone, padded, atol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_run_trains_saves_and_measures(kind, tmp_path):
    folder = write_encoder(tmp_path / "model", kind)
    pairs = write_pairs(tmp_path / "pairs.csv", MANY)
    more = ("--test-file", pairs, "--freeze-embeddings", "--dropout", 0.1, "--layer-decay", 0.9, "--max-length", 30)
    shown = run_inside(driver.main, *training_words(folder, pairs, tmp_path / "run", *more))
    assert shown.returncode == 0, shown.stderr
    assert f"{ARCHITECTURES[kind].name.split()[1]}, 3 layers x 32" in shown.stdout
    before, after = (ConnectionBert.load(path) for path in (folder, tmp_path / "run" / "model"))
    same = {
        name: torch.equal(weight, dict(after.encoder.named_parameters())[name])
        for name, weight in before.encoder.named_parameters()
    }
    assert all(kept for name, kept in same.items() if name.startswith("embeddings."))
    assert sum(not kept for name, kept in same.items()) >= len(same) // 2
    one, two, labels = zip(*MANY, strict=True)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    peer = spearmanr(after.similarity(one, two), labels)[0]
    assert results["final"]["test"]["spearman"] == pytest.approx(peer, abs=1e-3)


def test_berts_passes_of_our_own_are_for_bert_alone(tmp_path):
    for kind in FAMILIES:
        assert not PackedBert.fits(ConnectionBert.load(write_encoder(tmp_path / kind, kind)).encoder)


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "mpnet", "albert", "camembert", "distilbert", "electra"])
def test_a_folder_with_the_familys_own_tokenizer_class(kind, tmp_path):
    """As published ones have it, and without the special tokens in the settings, which the class knows."""
    folder = write_encoder(tmp_path / "model", kind)
    vectors = ConnectionBert.load(folder).encode(TEXTS, progress=False)
    name = {"xlm-roberta": "XLMRoberta", "mpnet": "MPNet", "distilbert": "DistilBert"}.get(kind, kind.capitalize())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": f"{name}Tokenizer"}))
    assert np.allclose(ConnectionBert.load(folder).encode(TEXTS, progress=False), vectors, atol=1e-6)
    assert load_tokenizer(folder).cls_token_id is not None


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "modernbert"])
def test_a_checkpoint_with_heads(kind, tmp_path):
    """Its tensors have the family's prefix, and heads beside them."""
    folder = write_encoder(tmp_path / "model", kind)
    vectors = ConnectionBert.load(folder).encode(TEXTS, progress=False)
    encoder = AutoModel.from_pretrained(folder, local_files_only=True)
    states = {f"{ARCHITECTURES[kind].prefix}{name}": tensor for name, tensor in encoder.state_dict().items()}
    (folder / "model.safetensors").unlink()
    torch.save(states | {"lm_head.bias": torch.zeros(4)}, folder / "pytorch_model.bin")
    model = ConnectionBert.load(folder)
    assert np.allclose(model.encode(TEXTS, progress=False), vectors, atol=1e-6)
    assert any("lm_head.bias" in note for note in model.notes)


def refused(folder: Path, **how) -> str:
    with pytest.raises(InputError) as caught:
        ConnectionBert.load(folder, **how)
    return str(caught.value)


def test_what_a_family_has_not_is_refused_in_words(tmp_path):
    folder = write_encoder(tmp_path / "xlm", "xlm-roberta")
    assert "outside 3 to 40, this model's positions" in refused(folder, max_length=41)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json is missing, which an XLM-R needs here" in refused(folder)
    folder = write_encoder(tmp_path / "electra", "electra")
    assert "needs pooler weights, which this model has not" in refused(folder, pooling="pooler")
    folder = write_encoder(tmp_path / "mpnet", "mpnet")
    model = ConnectionBert.load(folder, pooling="pooler")
    assert model.encode(TEXTS, progress=False).shape == (5, 32)
    with pytest.raises(InputError, match="the library has none for an MPNet"):
        model.prepare_training("fp32", True, 0, checkpointing=True)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("distilbert", {"dim": 10**9}, "dim: 1000000000 is more than the 16,384 that a DistilBERT can have here"),
        ("distilbert", {"n_heads": 5}, "dim 32 is no multiple of 5 heads"),
        ("distilbert", {"hidden_dim": None}, "hidden_dim: None is not a positive whole number"),
        ("electra", {"embedding_size": -1}, "embedding_size: -1 is not a positive whole number"),
        ("modernbert", {"local_attention": "8"}, "local_attention: '8' is not a positive whole number"),
        ("modernbert", {"local_rope_theta": float("inf")}, "local_rope_theta: inf is not a finite number"),
        ("modernbert", {"attention_dropout": 2}, "attention_dropout: 2 is not a rate"),
        ("albert", {"num_hidden_groups": 10**7}, "num_hidden_groups: 10000000 is more than"),
        ("roberta", {"num_hidden_layers": 4}, "tensors are missing; it holds"),
        ("xlm-roberta", {"intermediate_size": 64}, "has the shape (48, 32), config.json says (64, 32)"),
        ("mpnet", {"vocab_size": 90_000}, "needs at least"),
        ("roberta", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ("modernbert", {"layer_types": ["full_attention"] * 7}, "is not the config of a ModernBERT"),
    ],
)  # fmt: skip
def test_a_config_that_can_not_be_is_refused(kind, changes, said, tmp_path):
    folder = write_encoder(tmp_path / "model", kind)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    assert said in refused(folder)


def test_older_entries_of_a_modernbert_are_obeyed(tmp_path):
    """As its first published config has them: which layers see all, and the rotations' bases."""
    folder = write_encoder(tmp_path / "model", "modernbert")
    config = json.loads((folder / "config.json").read_text())
    for name in ("layer_types", "rope_parameters"):
        del config[name]
    (folder / "config.json").write_text(
        json.dumps(config | {"global_attn_every_n_layers": 2, "global_rope_theta": 5000.0, "local_rope_theta": 300.0})
    )
    peer = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model = ConnectionBert.load(folder)
    assert model.encoder.config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    assert np.allclose(model.encode(TEXTS, progress=False, precision="fp32"), peer.encode(TEXTS), atol=1e-5)


def test_the_module_tree_is_the_familys(tmp_path):
    tree = module_tree(write_encoder(tmp_path / "model", "distilbert"))
    assert "TransformerBlock" in tree


def test_each_family_is_a_whole_entry():
    for kind, family in ARCHITECTURES.items():
        assert isinstance(family, Architecture)
        assert config_of(kind).model_type == kind
        assert family.own_pieces or len(family.special) == 5
