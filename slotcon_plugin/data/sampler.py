"""Which samples of an epoch a rank sees, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from slotcon_plugin.data.keys import SampleKey
from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler[SampleKey]):
    """Every sample once an epoch, split evenly over the ranks; the tail that does not divide is dropped.

    The order is a function of (seed, epoch) alone, and each item is a :class:`SampleKey` that carries them on to the
    dataset, so neither the number of workers nor a resume changes what a sample looks like.

    Args:
        dataset: anything with a length.
        seed: seed of the run; drawn and shared among the ranks when None.
        shuffle: permute the samples anew each epoch.

    Attributes:
        start: number of this rank's samples that the next iteration skips (resume in the middle of an epoch). It falls
            back to 0 once that iteration has begun; the length stays that of the whole epoch.

    Raises:
        UserError: if there are fewer samples than ranks.
    """

    def __init__(self, dataset: Sized, seed: int | None = None, shuffle: bool = True) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.shuffle = shuffle
        self.epoch = 0
        self.start = 0
        if len(dataset) < self.world_size:
            raise UserError(f"{len(dataset)} samples cannot feed {self.world_size} ranks; use fewer ranks")

    def __len__(self) -> int:
        return len(self.dataset) // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration shows."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[SampleKey]:
        start, self.start = self.start, 0
        total = len(self.dataset)
        if self.shuffle:
            entropy = np.random.SeedSequence((self.seed, self.epoch))
            order = np.random.Generator(np.random.Philox(entropy)).permutation(total)
        else:
            order = np.arange(total)
        mine = order[self.rank : len(self) * self.world_size : self.world_size][start:]
        return (SampleKey(self.seed, epoch, int(index)) for epoch, index in zip([self.epoch] * len(mine), mine))
