"""Grouping, center and teacher against naive code and hand-worked values."""

import copy
import math

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from slotcon_plugin.models import Center, MLPHead, SemanticGrouping
from slotcon_plugin.models.grouping import present_prototypes
from slotcon_plugin.models.teacher import cosine_momentum, ema_update, make_teacher, parameter_pairs


def test_grouping_equals_a_loop_over_positions():
    torch.manual_seed(0)
    grouping = SemanticGrouping(num_prototypes=3, channels=4, temperature=0.07)
    z = torch.randn(2, 4, 2, 3) * 5
    got = grouping(z)
    prototypes = grouping.prototypes.detach()
    for b in range(2):
        pooled, weight = torch.zeros(3, 4), torch.zeros(3)
        for i in range(2):
            for j in range(3):
                vector = z[b, :, i, j]
                cosines = torch.stack([vector @ p / vector.norm() / p.norm() for p in prototypes])
                torch.testing.assert_close(got.assignment_logits[b, :, i, j].detach(), cosines, atol=1e-6, rtol=1e-5)
                attention = torch.exp(cosines / 0.07) / torch.exp(cosines / 0.07).sum()
                pooled += attention[:, None] * vector  # the un-normalised z is pooled
                weight += attention
        torch.testing.assert_close(got.slots[b].detach(), pooled / weight[:, None], atol=1e-3, rtol=1e-3)


def test_present_means_owning_a_position():
    logits = torch.tensor([[[[0.9, 0.1]], [[0.2, 0.3]], [[0.1, 0.2]]]])  # (1, 3, 1, 2): owners 0 and 1
    assert present_prototypes(logits).tolist() == [[True, True, False]]


def test_prototype_that_attends_nowhere_pools_a_finite_slot():
    grouping = SemanticGrouping(num_prototypes=2, channels=2, temperature=0.001)
    grouping.prototypes.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    slots = grouping(torch.tensor([[[[2.0, 4.0]], [[0.0, 0.0]]]])).slots
    # all attention on prototype 0; the other one falls back to the plain mean
    torch.testing.assert_close(slots, torch.tensor([[[3.0, 0.0], [3.0, 0.0]]]))


def test_center_is_a_running_mean_and_changes_in_update_only():
    center = Center(num_prototypes=2, momentum=0.9)
    first, second = torch.ones(1, 2, 2, 2), torch.full((1, 2, 2, 2), 3.0)
    second[:, 1] = 5.0
    torch.testing.assert_close(center(first, 0.5), torch.full_like(first, 0.5))
    assert center.value.tolist() == [0, 0]
    center.update(first, second)  # means of both: [2, 3]
    torch.testing.assert_close(center.value, torch.tensor([0.2, 0.3]))
    center.update(first, second)
    torch.testing.assert_close(center.value, torch.tensor([0.38, 0.57]))
    odds = torch.tensor([0.62, 0.43]).div(0.1).exp()
    torch.testing.assert_close(center(first, 0.1)[0, :, 0, 0], odds / odds.sum())


@pytest.mark.parametrize(("step", "want"), [(0, 0.99), (50, 0.995), (100, 1.0), (150, 1.0)])
def test_cosine_momentum(step, want):
    assert cosine_momentum(0.99, step, total=100) == pytest.approx(want)
    assert cosine_momentum(0.99, torch.tensor(step), total=100).item() == pytest.approx(want)
    assert cosine_momentum(0.99, step, total=0) == 0.99


def branches():
    torch.manual_seed(0)
    student = nn.ModuleDict(
        {"backbone": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "predictor": nn.Linear(2, 2)}
    )
    teacher = make_teacher(student, ["backbone"])
    for p in student.parameters():
        p.data.add_(1.0)
    student["backbone"][1].running_mean.fill_(7.0)
    return student, teacher


def test_a_teacher_drops_nothing():
    """Neither by torch's dropout nor by timm's stochastic depth; the student goes on dropping."""
    student = nn.ModuleDict({"backbone": nn.Sequential(nn.Dropout(0.9), nn.Dropout2d(0.9), DropPath(0.9))})
    ones = torch.ones(64, 2, 3, 3)
    assert torch.equal(make_teacher(student, ["backbone"]).train()["backbone"](ones), ones)
    assert not torch.equal(student["backbone"](ones), ones)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0, torch.tensor(0.3, dtype=torch.float64)])
def test_ema_moves_parameters_and_leaves_buffers(momentum):
    student, teacher = branches()
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    ema_update(*parameter_pairs(teacher, student), momentum)
    after = dict(student.named_parameters())
    assert set(before) == {name for name in after if name.startswith("backbone")}
    for name, p in teacher.named_parameters():
        torch.testing.assert_close(p, momentum * before[name] + (1 - momentum) * after[name].detach())
        assert not p.requires_grad
    assert teacher["backbone"][1].running_mean.tolist() == [0] * 4


def test_head_is_the_recipe_layer_by_layer():
    head = MLPHead(8, hidden_channels=16, out_channels=4)
    assert [type(layer).__name__ for layer in head.layers] == [
        "Conv2d", "BatchNorm2d", "GELU", "Conv2d", "BatchNorm2d", "GELU", "Conv2d",
    ]  # fmt: skip
    weights = torch.cat([layer.weight.flatten() for layer in MLPHead(512, 512, 512).layers[::3]])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert weights.abs().max() <= 2.0
    assert all(layer.bias.abs().sum() == 0 for layer in head.layers[::3])
    assert head(torch.randn(2, 8, 3, 3)).shape == (2, 4, 3, 3)
    assert MLPHead(8, 16, 4, dims=0)(torch.randn(5, 8)).shape == (5, 4)


def test_a_head_takes_no_notice_of_rows_that_do_not_count():
    torch.manual_seed(0)
    head = MLPHead(6, 8, 4, dims=0, norm_last=True).train()
    x, counted = torch.randn(9, 6), torch.arange(9) % 3 > 0
    alone, among = copy.deepcopy(head), copy.deepcopy(head)
    want, inputs = alone(x[counted]), x.clone().requires_grad_()
    got = among(inputs, counted)[counted]
    torch.testing.assert_close(got, want)
    got[:, 0].square().sum().backward()
    want[:, 0].square().sum().backward()
    assert inputs.grad[~counted].abs().sum() == 0
    for name, value in [*alone.named_parameters(), *alone.named_buffers()]:
        torch.testing.assert_close(among.get_parameter(name).grad if value.requires_grad else among.get_buffer(name),
                                   value.grad if value.requires_grad else value, rtol=1e-4, atol=1e-5)  # fmt: skip


def test_entropy_of_uniform_assignment_is_log_k():
    grouping = SemanticGrouping(num_prototypes=4, channels=2)
    grouping.prototypes.data = torch.ones(4, 2)
    logits = grouping(torch.randn(1, 2, 3, 3)).assignment_logits
    assignment = (logits / grouping.temperature).softmax(1)
    assert -(assignment * assignment.log()).sum(1).mean().item() == pytest.approx(math.log(4), rel=1e-5)
