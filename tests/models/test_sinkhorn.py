"""Targets of equal shares, and the loss on the mean assignment, against loops from their equations."""

import math

import pytest
import torch

from slotcon_plugin.errors import UserError
from slotcon_plugin.models import Sinkhorn
from slotcon_plugin.models.grouping_head import GroupingObjective, _mean_assignment
from slotcon_plugin.models.losses import mean_entropy_loss


def by_loops(columns, temperature, iterations):
    """SwAV's: rows to sums of 1 / K, columns to sums of 1 / N, at the end times N. ``columns``: N lists of K logits."""
    q = [[math.exp(value / temperature) for value in column] for column in columns]
    n, k = len(q), len(q[0])
    total = sum(map(sum, q))
    q = [[value / total for value in column] for column in q]
    for _ in range(iterations):
        rows = [sum(column[j] for column in q) for j in range(k)]
        q = [[column[j] / rows[j] / k for j in range(k)] for column in q]
        q = [[value / sum(column) / n for value in column] for column in q]
    return [[value * n for value in column] for column in q]


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_targets_are_those_of_the_equations(window, iterations):
    b, k, h, w = 5, 4, 3, 2
    logits = torch.randn(b, k, h, w).clamp(-1, 1)
    targets = Sinkhorn(window=window, iterations=iterations)(logits, 0.07)
    assert targets.shape == logits.shape
    for y in range(h):
        for x in range(w):
            reach = 99 if window is None else window // 2
            near = [
                (i, v, u)
                for i in range(b)
                for v in range(max(y - reach, 0), min(y + reach, h - 1) + 1)
                for u in range(max(x - reach, 0), min(x + reach, w - 1) + 1)
            ]
            expected = by_loops([logits[i, :, v, u].tolist() for i, v, u in near], 0.07, iterations)
            for i in range(b):
                assert targets[i, :, y, x].tolist() == pytest.approx(expected[near.index((i, y, x))], abs=1e-5)


def test_a_prototype_that_is_near_to_everything_does_not_take_it_all():
    logits = torch.rand(16, 8, 4, 4) * 0.2
    logits[:, 3] += 0.7
    taken = (logits / 0.07).softmax(dim=1).mean(dim=(0, 2, 3))
    shared = Sinkhorn(iterations=30)(logits, 0.07).mean(dim=(0, 2, 3))
    assert taken[3] > 0.9
    assert torch.allclose(shared, torch.full((8,), 1 / 8), atol=1e-3)


def test_small_temperatures_give_numbers_and_no_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    targets = Sinkhorn()(logits, 0.005)
    assert torch.isfinite(targets).all() and not targets.requires_grad
    assert torch.allclose(targets.sum(dim=1), torch.ones(2, 4, 4), atol=1e-4)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"window": 2}, {"window": 0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(UserError, match="Sinkhorn"):
        Sinkhorn(**wrong)


def test_mean_entropy():
    logits = [torch.randn(3, 5, 2, 2, requires_grad=True) for _ in range(2)]
    mean = [0.0] * 5
    for maps in logits:
        for b, y, x in [(b, y, x) for b in range(3) for y in range(2) for x in range(2)]:
            e = [math.exp(value / 0.1) for value in maps[b, :, y, x].tolist()]
            mean = [m + v / sum(e) / 24 for m, v in zip(mean, e)]
    loss = mean_entropy_loss(_mean_assignment(logits, 0.1))
    assert loss.item() == pytest.approx(math.log(5) + sum(p * math.log(p) for p in mean), abs=1e-5)
    loss.backward()
    assert all(maps.grad.abs().sum() > 0 for maps in logits)
    assert mean_entropy_loss(torch.full((4,), 0.25)).item() == pytest.approx(0, abs=1e-6)
    assert mean_entropy_loss(torch.tensor([1.0, 0, 0, 0])).item() == pytest.approx(math.log(4))


def test_the_weight_of_the_mean_entropy_is_checked():
    with pytest.raises(UserError, match="mean_entropy_weight must be 0 or more"):
        GroupingObjective(mean_entropy_weight=-1)
