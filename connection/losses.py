"""Training objectives: (u, v, target) -> a scalar to minimise."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss


def cosine_mse(u: Tensor, v: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of (cos(u_i, v_i) - target_i)^2: Sentence-BERT's regression objective.

    u, v (B, H) float32; target (B,) in [0, 1] -> scalar. Source: Reimers & Gurevych 2019, arXiv 1908.10084, section 3,
    "Regression Objective Function".
    """
    return mse_loss(cosine_similarity(u, v, dim=-1), target)
