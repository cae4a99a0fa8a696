"""One batch on several processes. What needs several of them is in tests/runs/test_processes.py."""

import numpy as np
import pytest
import torch

from connection.training.distributed import _Gathered, even_cuts


@pytest.mark.parametrize(
    ("costs", "parts"), [([1] * 8, 2), ([9, 1, 1, 1], 3), ([1, 1, 1, 9], 3), ([5], 3), ([3, 3], 2), ([2] * 7, 7)]
)
def test_each_part_has_a_pair_where_there_are_enough(costs, parts):
    cuts = even_cuts(np.array(costs), parts)
    sizes = np.diff(cuts)
    assert (cuts[0], cuts[-1], len(sizes)) == (0, len(costs), parts)
    assert (sizes > 0).sum() == min(parts, len(costs))
    assert sizes.min() >= 0


def test_parts_are_of_even_costs():
    costs = np.random.default_rng(0).integers(10, 100, 256)
    cuts = even_cuts(costs, 8)
    sums = np.add.reduceat(costs, cuts[:-1])
    assert abs(sums - costs.sum() / 8).max() <= costs.max()


def test_the_gradient_of_gathered_rows_is_that_of_the_own_ones():
    own, everything = torch.randn(2, 3, requires_grad=True), torch.randn(5, 3)
    (_Gathered.apply(own, 1, everything) * torch.arange(5.0)[:, None]).sum().backward()
    assert own.grad is not None
    assert own.grad.tolist() == [[1.0] * 3, [2.0] * 3]
