"""What decides the randomness of a sample: a key, not the state of a worker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class SampleKey(NamedTuple):
    """Names one sample of one epoch of one run. All its randomness follows from these three numbers."""

    seed: int
    epoch: int
    index: int

    def rng(self, stream: int = 0) -> np.random.Generator:
        """A generator for this key; different ``stream`` numbers give independent ones."""
        entropy = (self.seed, self.epoch, self.index, stream)
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
