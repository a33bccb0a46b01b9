"""Figures and flags that the host reads later are the same figures and flags."""

import copy

import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from slotcon_plugin.engine.late import LateFlag, LateHistory, log_late, mean_on_host
from tests.host_waits import HostWaits


def test_a_flag_comes_one_call_late():
    flag = LateFlag()
    assert not flag.last()
    sent = torch.tensor(1.0)
    assert not flag(sent)
    sent.zero_()  # what was sent is on its way
    assert flag.last()
    assert flag(torch.tensor(0.0))
    assert not flag(torch.tensor(1.0))


def test_a_history_is_mmengines_and_is_read_when_it_is_asked_for():
    ours, theirs = LateHistory(HistoryBuffer([5.0], [1])), HistoryBuffer([5.0], [1])
    with HostWaits("cpu") as waits:
        for value in (1.0, 2.5, 4.0):
            ours.update(torch.tensor(value, requires_grad=True))
            theirs.update(value)
    assert not waits.lines
    for name, arguments in (("mean", [2]), ("mean", []), ("current", []), ("min", []), ("max", [3])):
        assert ours.statistics(name, *arguments) == theirs.statistics(name, *arguments)
    ours.update(7.0)
    ours.update(torch.tensor([8.0]))
    assert ours.current() == 8 and ours.mean(2) == 7.5
    stored = copy.deepcopy(ours)
    assert type(stored) is HistoryBuffer
    assert stored.data[0].tolist() == [5, 1, 2.5, 4, 7, 8] and stored.data[1].tolist() == [1] * 6


def test_a_hub_that_was_resumed_goes_on():
    hub = MessageHub("late")
    hub.update_scalar("train/loss", 3.0)
    log_late(hub, "train/loss", torch.tensor(5.0))
    log_late(hub, "train/new", torch.tensor(1.0))
    log_late(hub, "train/loss", 7.0)
    assert mean_on_host(hub, "train/loss", 2) == 6
    assert mean_on_host(hub, "train/unknown", 2) is None
    assert hub.get_scalar("train/loss").mean(3) == 5
    assert set(hub.state_dict()["log_scalars"]) == {"train/loss", "train/new"}


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.bfloat16])
def test_figures_of_any_kind(dtype):
    history = LateHistory()
    history.update(torch.tensor(1, dtype=dtype))
    assert history.current() == 1.0
