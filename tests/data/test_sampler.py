"""Orders of an epoch: complete, seeded, split over ranks, resumable."""

import pytest

from slotcon_plugin.data import EpochSampler, SampleKey
from slotcon_plugin.data import sampler as module


def indices(sampler):
    return [key.index for key in sampler]


def test_an_epoch_is_a_permutation_that_changes_with_epoch_and_seed():
    sampler = EpochSampler(range(50), seed=1)
    first = indices(sampler)
    assert sorted(first) == list(range(50))
    assert indices(sampler) == first
    sampler.set_epoch(1)
    second = indices(sampler)
    assert second != first
    assert sorted(second) == list(range(50))
    assert indices(EpochSampler(range(50), seed=2)) != first
    assert list(EpochSampler(range(3), seed=9, shuffle=False)) == [SampleKey(9, 0, index) for index in range(3)]


def test_keys_carry_the_epoch_of_their_iteration():
    sampler = EpochSampler(range(4), seed=5)
    sampler.set_epoch(3)
    iteration = iter(sampler)
    sampler.set_epoch(4)  # a prefetching loader may be asked late
    assert {key[:2] for key in iteration} == {(5, 3)}


def test_start_skips_once_and_leaves_the_length():
    sampler = EpochSampler(range(10), seed=0)
    whole = indices(sampler)
    sampler.start = 7
    assert len(sampler) == 10
    assert indices(sampler) == whole[7:]
    assert indices(sampler) == whole


def test_ranks_split_an_epoch_evenly(monkeypatch):
    alone = indices(EpochSampler(range(11), seed=0))
    parts = []
    for rank in range(3):
        monkeypatch.setattr(module, "get_dist_info", lambda rank=rank: (rank, 3))
        parts.append(indices(EpochSampler(range(11), seed=0)))
        assert len(parts[-1]) == len(EpochSampler(range(11), seed=0)) == 3
    assert [part[i] for i in range(3) for part in parts] == alone[:9]
    with pytest.raises(ValueError, match="2 samples cannot feed 3 ranks"):
        EpochSampler(range(2), seed=0)
