"""Why two texts have their cosine: a sum over pairs of words, one of each text.

The vector u of a text is the sum of a part of each of its tokens. The cosine of u and v is then a sum over pairs of tokens:

    cos(u, v) = sum over i, j of part_i . part_j / (|u| |v|)

Under mean pooling of n tokens, the part of a token is its state / n. In general it is state * du/dstate: a pooling that grows
in proportion with the states is the sum of these (Euler's theorem on homogeneous functions). Max pooling thus gives each number
of the vector to the token that has the largest.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from connection.data.row_texts import text_problem
from connection.data.tokenization import tokenize
from connection.model.packing import pack
from connection.model.pooling import POOLING
from connection.system.errors import InputError
from connection.system.escapes import printable
from ConnectionBert import ConnectionBert

ONE_TOKEN = ("cls", "last", "pooler")  # poolings that take the vector from one token

LONGEST = 40  # characters of a word that are shown


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The cosine of two texts, taken apart."""

    first: tuple[str, ...]  # n words of the first text, [CLS] and [SEP] among them
    second: tuple[str, ...]  # m words of the second text
    contributions: np.ndarray  # (n, m) float64, of each pair of words; their sum is the cosine
    cut: int  # how many of the two texts were cut at the maximum length

    @property
    def cosine(self) -> float:
        return float(self.contributions.sum())

    @property
    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """What each word of the first text (n,), and of the second (m,), adds to the cosine: the sums of its pairs."""
        return self.contributions.sum(axis=1), self.contributions.sum(axis=0)

    def strongest(self, count: int) -> list[tuple[int, int]]:
        """Returns the places of the pairs of words that add or take away most."""
        order = np.argsort(-np.abs(self.contributions), axis=None, kind="stable")[:count]
        return [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, self.contributions.shape), strict=True)]

    def minus(self, base: Explanation) -> Explanation:
        """Returns what another model's explanation of the same words lacks. Raises `InputError` if its words are others."""
        if (self.first, self.second) != (base.first, base.second):
            raise InputError("the base model's tokenizer, maximum length or prompts make other words of these texts.")
        return dataclasses.replace(self, contributions=self.contributions - base.contributions)

    def as_json(self) -> dict[str, Any]:
        """Returns {"cosine", "first": [{"word", "share"}], "second": likewise, "contributions": n lists of m numbers}."""
        sides = {
            name: [{"word": word, "share": float(share)} for word, share in zip(words, shares, strict=True)]
            for name, words, shares in zip(("first", "second"), (self.first, self.second), self.shares, strict=True)
        }
        return {"cosine": self.cosine, **sides, "contributions": self.contributions.tolist()}


def shown(word: str) -> str:
    """Returns a word to print, or its beginning: what no tokenizer splits may be of any length."""
    return printable(word if len(word) <= LONGEST else f"{word[: LONGEST - 3]}...")


def require_words(model: ConnectionBert) -> None:
    """Raises `InputError` for a model whose vector is no sum over the words."""
    if len(model.dense):
        raise InputError(
            "This model has a Dense module after its pooling, and the cosine of what comes out is no sum over words. "
            "Explanations need a model without one."
        )
    if set(model.pooling.split("+")) <= set(ONE_TOKEN):
        raise InputError(
            f"This model has {model.pooling} pooling: the sentence's vector is made of the state of a single token, and the "
            "cosine is no sum over words. Explanations need mean or max pooling: train with --pooling mean."
        )


def explain(model: ConnectionBert, first: str, second: str) -> Explanation:
    """Explain the cosine of two texts, as `model.similarity` computes it, prompt and cut vectors included.

    A word counts with all of its pieces. Raises `InputError` for a text without words, and as `require_words` does.
    """
    require_words(model)
    for name, text in (("first", first), ("second", second)):
        problem = "not UTF-8" if any("\ud800" <= letter <= "\udfff" for letter in text) else text_problem(text)
        if problem:
            raise InputError(f"The {name} text can't be explained, it is {problem}: give a sentence.")
    stores = [
        tokenize([text], model.tokenizer, model.max_length, prompt)
        for text, prompt in zip((first, second), model.prompts[1:], strict=True)
    ]
    tokens = pack([store[0] for store in stores], model.tokenizer.pad_token_id, packed=False).to(model.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        states, mask = model.token_states(tokens)  # (2, T, H), (2, T)
    mask = model.pooled_tokens(mask, 1, 2)
    model.train(was_training)
    parts = model.cut(token_parts(model.pooling, states.double(), mask).flatten(0, 1)).unflatten(0, mask.shape)
    norms = parts.sum(dim=1).norm(dim=1)  # (2,)
    pairs = (parts[0] @ parts[1].T / (norms[0] * norms[1]).clamp(min=1e-12)).cpu().numpy()  # (T, T)
    wholes = [prompt + text for prompt, text in zip(model.prompts[1:], (first, second), strict=True)]
    (words1, of1), (words2, of2) = (_words(model, whole, mask[side]) for side, whole in enumerate(wholes))
    cut = sum(int(store.cut[0]) for store in stores)
    return Explanation(words1, words2, of1 @ pairs @ of2.T, cut)  # (n, T) (T, T) (T, m) -> (n, m)


def token_parts(pooling: str, states: Tensor, mask: Tensor) -> Tensor:
    """Take pooled vectors apart into parts of their tokens: states (N, T, H), mask (N, T) -> (N, T, H), which sum to (N, H).

    Of poolings joined by "+", the parts are one after the other, as the vectors are.
    """
    parts = []
    for name in pooling.split("+"):
        given = states.detach().requires_grad_()
        POOLING[name](given, mask).sum().backward()
        assert given.grad is not None
        parts.append((given * given.grad).detach())
    return torch.cat(parts, dim=2)


def _words(model: ConnectionBert, whole: str, pooled: Tensor) -> tuple[tuple[str, ...], np.ndarray]:
    """The W words that have pooled tokens, (T,) of 0 and 1, and whether each token is of the word: (W, T) float64.

    whole: a text with its prompt.
    """
    tokenizer, mask = model.tokenizer, pooled.cpu().numpy()
    encoded = tokenizer.backend_tokenizer.encode(whole, add_special_tokens=False)
    last = int(np.flatnonzero(mask)[-1])  # [SEP]
    words, of_token = [tokenizer.cls_token], [0]
    start, previous = 0, None
    for (begin, end), number in zip(encoded.offsets[: last - 1], encoded.word_ids, strict=False):
        if number is None or number != previous:  # a special token that stands in the text is of no word
            start = begin
            words.append("")
        words[-1], previous = whole[start:end], number
        of_token.append(len(words) - 1)
    words.append(tokenizer.sep_token)
    of_token.append(len(words) - 1)
    members = np.zeros((len(words), len(mask)))
    members[of_token, np.arange(last + 1)] = 1
    there = members @ mask > 0  # not a prompt that is left out of the pooling
    return tuple(itertools.compress(words, there)), members[there]
