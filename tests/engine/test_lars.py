"""LARS against a loop over parameters written from the paper."""

import pytest
import torch
from torch import nn

from slotcon_plugin.engine import LARS


def naive_step(params, velocities, lr, momentum, weight_decay, eta):
    for i, p in enumerate(params):
        update = p.grad.clone()
        if p.ndim > 1:
            update += weight_decay * p.data
            weight_norm, update_norm = p.data.norm(), update.norm()
            if weight_norm > 0 and update_norm > 0:
                update *= eta * weight_norm / update_norm
        velocities[i] = momentum * velocities[i] + update
        p.data -= lr * velocities[i]


def test_lars_equals_the_loop():
    torch.manual_seed(0)
    shapes = [(4, 3), (4,), (2, 3, 3, 3), (1,), (5, 5)]
    ours = [nn.Parameter(torch.randn(s)) for s in shapes]
    ours[4].data.zero_()  # a zero weight is not adapted
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizer = LARS(ours, lr=0.7, momentum=0.9, weight_decay=1e-2, trust_coefficient=1e-2)
    velocities = [torch.zeros_like(p) for p in theirs]
    for _ in range(4):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        optimizer.step()
        naive_step(theirs, velocities, 0.7, 0.9, 1e-2, 1e-2)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_parameters_without_gradient_stay_and_take_no_state():
    moved, still = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([moved, still], lr=1.0)
    moved.grad = torch.ones(2, 2)
    optimizer.step()
    assert still.equal(torch.ones(2, 2)) and still not in optimizer.state
    # trust 1e-3 * ||w|| / ||g|| = 1e-3
    torch.testing.assert_close(moved, torch.full((2, 2), 1 - 1e-3))


def test_a_step_that_the_device_leaves_out_changes_nothing():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    optimizer = LARS([weight], lr=1.0)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    before, velocity = weight.clone(), optimizer.state[weight]["velocity"].clone()
    weight.grad = torch.full_like(weight, float("nan"))
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert weight.equal(before) and optimizer.state[weight]["velocity"].equal(velocity)


def test_torchs_scaler_leaves_unscaling_to_it():
    ours, plain = (nn.Parameter(torch.arange(6.0).view(2, 3)) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizers = LARS([ours], lr=1.0, weight_decay=0.1), LARS([plain], lr=1.0, weight_decay=0.1)
    for weight, scale in ((ours, scaler.scale), (plain, lambda loss: loss)):
        scale(weight.square().sum()).backward()
    scaler.step(optimizers[0])
    optimizers[1].step()
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("option", ["lr", "momentum", "weight_decay"])
def test_negative_options_are_refused(option):
    with pytest.raises(ValueError, match=option):
        LARS([nn.Parameter(torch.ones(1))], **{"lr": 1.0, option: -1.0})
