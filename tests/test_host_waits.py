"""What counts as waiting for a device."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.host_waits import HostWaits

WAITING = {
    "a value": lambda x: x.sum().item(),
    "a decision": lambda x: bool((x > 0).any()),
    "places": lambda x: (x > 0).nonzero(),
    "a choice": lambda x: x[x > 0],
    "a filling": lambda x: x.clone().index_put_((x > 0,), torch.zeros(())),
    "equality": lambda x: torch.equal(x, x),
    "repeats": lambda x: x.repeat_interleave(torch.tensor([1, 2, 0])),
}
FREE = {
    "a masked filling": lambda x: x.masked_fill(x > 0, 0.0),
    "rows": lambda x: x[torch.tensor([0, 2])],
    "known repeats": lambda x: x.repeat_interleave(2),
    "a product": lambda x: x * 2,
}


@pytest.mark.parametrize("what", WAITING)
def test_it_waits(what):
    with HostWaits("cpu") as waits:
        WAITING[what](torch.ones(3))
    assert sum(waits.lines.values()) == 1


@pytest.mark.parametrize("what", FREE)
def test_it_does_not_wait(what):
    with HostWaits("cpu") as waits:
        FREE[what](torch.ones(3))
    assert not waits.lines


def test_copies_between_devices_wait_unless_they_are_asked_not_to():
    with FakeTensorMode(), HostWaits() as waits:
        there = torch.ones(3, device="cuda")
        there.copy_(torch.ones(3), non_blocking=True)
        torch.ones(3).to("cuda", non_blocking=True)
        there.clone().copy_(there)
        assert not waits.lines
        there.new_tensor([1.0, 2.0])
        torch.ones(3).to("cuda")
        there.cpu()
        there.to("cpu", non_blocking=True)
    assert sum(waits.lines.values()) == 4
