"""Trains an encoder on texts alone by TSDAE, and writes it as a model folder: to compare with `tools.adapt`.

    python -m benchmarks.tsdae output/tsdae
    python bertFineTuningWithConnectionData.py --model-dir output/tsdae --output-dir output/after-tsdae

The texts are those of a pair file's pairs, each once: by default of the bundled training pairs. The model is a BERT.
docs/training.md has what it brought.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertLMHeadModel

from benchmarks.data import MODEL, rows_of
from connection.data.tokenization import tokenize
from connection.system.errors import InputError, exit_status
from connection.system.paths import ROOT, output_folder
from connection.training.masked_words import train_on_texts
from ConnectionBert import ConnectionBert

DELETED = 0.6  # share of the tokens: Wang et al. 2021, arXiv 2104.06979, section 3.1
BATCH = 16

Loss = Callable[[Sequence[np.ndarray]], tuple[Tensor, int]]  # of the token ids of some texts; and its number of tokens


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both (B, T); 0 where a row has ended."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def denoised(model: ConnectionBert, words: Tensor, random: torch.Generator) -> tuple[nn.Module, Loss]:
    """TSDAE: a decoder of one layer has to say the whole text from the mean vector of the tokens that were left in it.

    The decoder begins as the encoder's lowest layer, with new attention to the vector; both have the same word embeddings.
    words: (V,), the distinct tokens of all texts, sorted; the decoder chooses among these alone.
    """
    config = type(model.encoder.config)(**model.encoder.config.to_dict() | {"num_hidden_layers": 1})
    config.is_decoder, config.add_cross_attention, config.use_cache = True, True, False
    decoder = BertLMHeadModel(config)
    decoder.bert.load_state_dict(model.encoder.state_dict(), strict=False)
    table = model.encoder.embeddings.word_embeddings
    decoder.bert.embeddings.word_embeddings, decoder.cls.predictions.decoder.weight = table, table.weight

    def loss(rows: Sequence[np.ndarray]) -> tuple[Tensor, int]:
        texts = [row.tolist() for row in rows]
        ids, mask = padded(texts)
        left, left_mask = padded([delete(row, random) for row in texts])
        states = model.encoder(input_ids=left, attention_mask=left_mask).last_hidden_state
        vectors = (states * left_mask[..., None]).sum(1) / left_mask.sum(1, keepdim=True)  # (B, H)
        said = decoder.bert(ids[:, :-1], mask[:, :-1], encoder_hidden_states=vectors[:, None]).last_hidden_state
        next_ones = mask[:, 1:].bool()
        logits = (
            decoder.cls.predictions.transform(said[next_ones]) @ table.weight[words].T + decoder.cls.predictions.bias[words]
        )
        return cross_entropy(logits, torch.searchsorted(words, ids[:, 1:][next_ones])), len(logits)

    return decoder, loss


def delete(row: list[int], random: torch.Generator) -> list[int]:
    """Token ids without a share of them, drawn at random; [CLS], [SEP] and at least one token stay."""
    chances = torch.rand(len(row) - 2, generator=random).tolist()
    least = min(DELETED, max(chances, default=0))
    return [row[0], *[token for token, chance in zip(row[1:-1], chances, strict=True) if chance >= least], row[-1]]


def adapt(model: ConnectionBert, texts: list[str], epochs: int, rate: float, seed: int) -> float:
    """Trains the encoder in place on texts alone. Returns the mean loss of the last epoch's tokens."""
    torch.manual_seed(seed)
    store = tokenize(texts, model.tokenizer, model.max_length)
    rows = [store[row] for row in range(len(store))]
    words = torch.from_numpy(np.unique(store.ids)).long()
    decoder, loss_of = denoised(model, words, torch.Generator().manual_seed(seed))
    return [*train_on_texts(model, decoder, loss_of, rows, epochs, BATCH, rate, np.random.default_rng(seed))][-1]


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad usage or a bad file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tsdae", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("folder", help="the model folder to write")
    parser.add_argument("--model-dir", default=MODEL)
    parser.add_argument("--pairs", nargs="+", default=[str(ROOT / "data/requirements-train.csv")], help="pair files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=3e-5, help="of the encoder; what is new has ten times it")
    parser.add_argument("--seed", type=int, default=42)
    return exit_status(lambda: write_adapted(parser.parse_args(argv)))


def write_adapted(given: argparse.Namespace) -> int:
    rows = [row for file in given.pairs for row in rows_of(Path(file))]
    texts = list(dict.fromkeys(text for row in rows for text in row[:2]))
    model = ConnectionBert.load(given.model_dir)
    if (kind := model.encoder.config.model_type) != "bert":
        raise InputError(f"{given.model_dir} is a {kind}; this measures BERT alone (--model-dir)")
    loss = adapt(model, texts, given.epochs, given.learning_rate, given.seed)
    model.save(output_folder(given.folder))
    print(f"{len(texts)} texts, last loss {loss:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
