"""The losses against loops written from the equations, and small tables worked by hand."""

import math

import pytest
import torch

from slotcon_plugin.models.losses import grouping_loss, slot_contrast_loss
from slotcon_plugin.models.losses.slot_contrast import NOT_ASKED


def naive_grouping_loss(student, teacher, tau_s, tau_t):
    """Equation 2, one position and one prototype at a time."""
    total, positions = 0.0, 0
    batch, prototypes, height, width = student.shape
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                s = [math.exp(student[b, k, i, j].item() / tau_s) for k in range(prototypes)]
                t = [math.exp(teacher[b, k, i, j].item() / tau_t) for k in range(prototypes)]
                total -= sum(tk / sum(t) * math.log(sk / sum(s)) for sk, tk in zip(s, t))
                positions += 1
    return total / positions


def naive_slot_contrast(queries, keys, targets, tau):
    """Equation 5, one query at a time."""
    total = 0.0
    for query, target in zip(queries, targets):
        cosines = [(query @ key / query.norm() / key.norm()).item() for key in keys]
        weights = [math.exp(c / tau) for c in cosines]
        total -= math.log(weights[target] / sum(weights))
    return total * 2 * tau


def test_grouping_loss_equals_the_loop():
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 5, 3, 4).double() * 2 - 1, torch.rand(2, 5, 3, 4).double() * 2 - 1
    got = grouping_loss(student, (teacher / 0.07).softmax(1), student_temperature=0.1)
    assert got.item() == pytest.approx(naive_grouping_loss(student, teacher, 0.1, 0.07), rel=1e-5)


def test_grouping_loss_by_hand():
    # teacher sure of prototype 0; student's odds are e^(1/.5) : 1
    student = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert grouping_loss(student, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), 0.5).item() == pytest.approx(
        math.log(1 + math.exp(-2)), rel=1e-5
    )


def test_grouping_loss_of_uniform_assignments_is_log_k():
    zeros = torch.zeros(2, 8, 3, 3)
    assert grouping_loss(zeros, zeros + 1 / 8).item() == pytest.approx(math.log(8), rel=1e-6)


def test_grouping_loss_gives_the_teacher_no_gradient():
    student, teacher = torch.randn(1, 4, 2, 2, requires_grad=True), torch.randn(1, 4, 2, 2, requires_grad=True)
    grouping_loss(student, (teacher / 0.07).softmax(1)).backward()
    assert teacher.grad is None
    # gradient of a cross-entropy: (softmax(student) - target) / (tau_s * positions)
    want = ((student / 0.1).softmax(1) - (teacher / 0.07).softmax(1)) / 0.1 / 4
    torch.testing.assert_close(student.grad, want.detach(), atol=1e-5, rtol=1e-4)


def test_grouping_loss_refuses_different_shapes():
    with pytest.raises(ValueError, match="one shape"):
        grouping_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 3, 2))


def test_slot_contrast_equals_the_loop():
    torch.manual_seed(1)
    queries, keys, targets = torch.randn(6, 8).double(), torch.randn(9, 8).double(), torch.randint(0, 9, (6,))
    got = slot_contrast_loss(queries, keys, targets, temperature=0.2)
    assert got.item() == pytest.approx(naive_slot_contrast(queries, keys, targets, 0.2), rel=1e-5)


def test_slot_contrast_by_hand():
    # cosines 1 and 0 at tau .5: -log(e^2 / (e^2 + 1)), times 2 * .5
    loss = slot_contrast_loss(
        torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 7.0]]), torch.tensor([0]), 0.5
    )
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)


def test_rows_that_do_not_count_change_nothing():
    torch.manual_seed(2)
    queries, keys, targets = torch.randn(5, 8), torch.randn(7, 8), torch.tensor([2, 5, NOT_ASKED, 0, NOT_ASKED])
    counted = torch.tensor([True, False, True, True, False, True, False])
    got = slot_contrast_loss(queries.requires_grad_(), keys, targets, 0.2, counted)
    want = slot_contrast_loss(queries[[0, 1, 3]].detach(), keys[counted], torch.tensor([1, 3, 0]), 0.2)
    torch.testing.assert_close(got.detach(), want)
    got.backward()
    assert queries.grad.abs().sum(dim=1).gt(0).tolist() == [True, True, False, True, False]


def test_slot_contrast_is_float32_under_autocast():
    torch.manual_seed(3)
    queries, keys, targets = torch.randn(6, 64), torch.randn(9, 64), torch.arange(6)
    want = slot_contrast_loss(queries, keys, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert slot_contrast_loss(queries, keys, targets).equal(want)


def test_slot_contrast_without_queries_is_zero_and_differentiable():
    queries = torch.zeros(0, 4, requires_grad=True)
    loss = slot_contrast_loss(queries, torch.randn(3, 4), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and queries.grad.shape == (0, 4)


def test_slot_contrast_refuses_misfits():
    with pytest.raises(ValueError, match="queries"):
        slot_contrast_loss(torch.zeros(2, 4), torch.zeros(3, 5), torch.zeros(2, dtype=torch.int64))
