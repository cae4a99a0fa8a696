"""Masked language modelling: an encoder learns the words of texts that have no labels, before it is fine-tuned.

Devlin et al. 2018, arXiv 1810.04805, section 3.1; on one's own texts: Gururangan et al. 2020, arXiv 2004.10964.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu
from tqdm import tqdm

from connection.model.packing import pack
from connection.system.errors import InputError, RunError
from connection.training.schedule import make_schedule
from ConnectionBert import ConnectionBert

HIDDEN = 0.15  # share of the tokens that are to be found again
NEW = 10  # times the learning rate, for weights that begin at random
WARM_UP, WEIGHT_DECAY, MAX_NORM = 0.1, 0.01, 1.0


class WordHead(nn.Module):
    """Scores of all words for token states, (P, H) -> (P, V): BERT's own head, whose output layer is the word embeddings."""

    def __init__(self, words: nn.Parameter, hidden_size: int, epsilon: float):
        super().__init__()
        count, width = words.shape  # V, E
        self.words = words
        self.dense, self.norm = nn.Linear(hidden_size, width), nn.LayerNorm(width, eps=epsilon)
        self.bias = nn.Parameter(torch.zeros(count))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(gelu(self.dense(states))) @ self.words.T + self.bias  # (P, H) -> (P, E) -> (P, V)


def hide(
    rows: Sequence[np.ndarray], special: Sequence[int], mask_id: int, words: int, random: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Token ids of each text with some hidden, and which ones are to be found again, bool: arrays as long as the texts.

    Of 15% of the tokens that are not `special`, 80% become `mask_id`, 10% any of the `words` ids, 10% stay as they are.
    """
    shown, picked = [], []
    for row in rows:
        wanted = ~np.isin(row, special) & (random.random(len(row)) < HIDDEN)
        fate = random.random(len(row))
        ids = np.where(wanted & (fate < 0.8), mask_id, row)
        shown.append(np.where(wanted & (fate >= 0.9), random.integers(words, size=len(row)), ids))
        picked.append(wanted)
    return shown, picked


def masked_loss(
    model: ConnectionBert, head: WordHead, rows: Sequence[np.ndarray], random: np.random.Generator
) -> tuple[Tensor, int]:
    """Mean cross-entropy of the hidden tokens of some texts, a scalar, and how many they are. rows: the texts' token ids.

    The loss is 0 if no token was hidden, which happens to short texts.
    """
    tokenizer = model.tokenizer
    shown, picked = hide(rows, tokenizer.all_special_ids, tokenizer.mask_token_id, len(head.words), random)
    states, mask = model.token_states(pack(shown, tokenizer.pad_token_id).to(model.device))  # (N, T, H), (N, T)
    places = mask.bool().cpu()
    wanted = torch.zeros(places.shape, dtype=torch.bool)
    wanted[places] = torch.from_numpy(np.concatenate(picked))
    right = torch.from_numpy(np.concatenate(rows)[np.concatenate(picked)]).long().to(model.device)
    loss = cross_entropy(head(states[wanted.to(model.device)]), right, reduction="sum") / max(1, len(right))
    return loss, len(right)


def adapt(
    model: ConnectionBert, rows: Sequence[np.ndarray], epochs: int, batch_size: int, rate: float, seed: int
) -> Iterator[float]:
    """Train the encoder in place on texts alone. Yields the mean loss of each epoch's hidden tokens, NaN without any.

    rows: the token ids of each text. rate: the peak learning rate of the encoder; the head, which is new, has ten times that.
    Dropout is as the config says. Raises `InputError` for a model without a mask token, and for texts without a word that the
    model knows; `RunError` for a loss that is not finite.
    """
    if all(np.isin(row, model.tokenizer.all_special_ids).all() for row in rows):
        raise InputError(f"None of the texts has a word that {model.folder} knows: they are in another script or language")
    if model.tokenizer.mask_token_id is None:
        raise InputError(f"{model.folder}: its tokenizer has no mask token, so that no words can be hidden")
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    config = model.encoder.config
    words = model.encoder.get_input_embeddings().weight
    head = WordHead(words, config.hidden_size, getattr(config, "layer_norm_eps", 1e-12)).to(model.device)
    return train_on_texts(
        model, head, lambda batch: masked_loss(model, head, batch, random), rows, epochs, batch_size, rate, random
    )


def train_on_texts(
    model: ConnectionBert,
    head: nn.Module,
    loss_of: Callable[[Sequence[np.ndarray]], tuple[Tensor, int]],
    rows: Sequence[np.ndarray],
    epochs: int,
    batch_size: int,
    rate: float,
    random: np.random.Generator,
) -> Iterator[float]:
    """Train encoder and head. Yields the mean loss of each epoch's tokens; NaN for one of no token.

    loss_of: some of `rows` -> their mean loss, a scalar, and of how many tokens it is; of none, no step is taken. See `adapt`.
    Biases and LayerNorm have no weight decay, as in fine-tuning.
    """
    own = list(model.encoder.parameters())
    shared = {id(weight) for weight in own}
    new = [weight for weight in head.parameters() if id(weight) not in shared]
    groups = [
        {"params": [weight for weight in weights if (weight.ndim > 1) == decayed], "scale": scale,
         "weight_decay": WEIGHT_DECAY if decayed else 0.0}
        for weights, scale in ((own, 1), (new, NEW)) for decayed in (True, False)
    ]  # fmt: skip
    optimizer = torch.optim.AdamW(groups)
    schedule = make_schedule("linear", epochs * math.ceil(len(rows) / batch_size), WARM_UP)
    model.train()
    head.train()
    step = 0
    for epoch in range(1, epochs + 1):
        total, found = 0.0, 0
        batches = np.array_split(random.permutation(len(rows)), range(batch_size, len(rows), batch_size))
        for batch in tqdm(batches, f"epoch {epoch}/{epochs}", leave=False, disable=None):
            loss, tokens = loss_of([rows[number] for number in batch])
            step += 1
            if not tokens:
                continue
            loss.backward()
            nn.utils.clip_grad_norm_([*own, *new], MAX_NORM)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"] * schedule(step - 1)
            optimizer.step()
            optimizer.zero_grad()
            total, found = total + tokens * loss.item(), found + tokens
            if not math.isfinite(total):
                raise RunError(f"the loss of step {step} is not a finite number: try a lower --learning-rate")
        yield total / found if found else math.nan
    model.eval()
