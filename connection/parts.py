"""The gradient of a batch that does not fit into memory at once: part by part, and yet that of the whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from connection.adamw import AdamW
from connection.randomness import random_state, restore_random


def backward_in_parts(model: Any, objective: nn.Module, optimizer: AdamW, parts: list[Any]) -> Tensor:
    """The loss of B pairs, a scalar, with its gradient left for `optimizer`; one part is in the encoder at a time.

    `model` is a ConnectionBert, `parts` are PairBatches on its device, the objective may be any. Gradient caching, Gao et al.
    2021, arXiv 2101.06983, section 3: all vectors, without their graphs; the objective's gradient of them; then each part is
    encoded again, with the same dropout, and takes the gradient of its vectors on.
    """
    dropout = model.fast.dropout if model.fast else None
    before = random_state(dropout)
    with torch.no_grad():
        sides = zip(*(model(part.tokens)[:2] for part in parts), strict=True)
        u, v = (torch.cat(side) for side in sides)  # (b, H) from each part -> (B, H)
    u, v = u.requires_grad_(), v.requires_grad_()
    target, sentences = torch.cat([part.target for part in parts]), torch.cat([part.sentences for part in parts], dim=1)
    loss: Tensor = objective(u, v, target, sentences)
    loss.backward()
    assert u.grad is not None
    assert v.grad is not None
    restore_random(before, dropout)
    sizes = [len(part.target) for part in parts]
    for number, (part, *gradients) in enumerate(zip(parts, u.grad.split(sizes), v.grad.split(sizes), strict=True)):
        if number:
            optimizer.add()
        torch.autograd.backward(model(part.tokens)[:2], gradients)  # (b, H) twice
    return loss
