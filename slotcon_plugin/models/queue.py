"""A ring buffer of the teacher's keys: many more negatives than a batch holds (MoCo's queue; VADeR, DenseCL)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import gather_ranks

_EMPTY = -1


class KeyQueue(nn.Module):
    """The newest ``size`` keys of all ranks, each with the image that it is of. The same on every rank.

    All of it is buffers, so that checkpoints carry it. Nothing here waits for the device.

    Args:
        size: rows.
        channels: D, length of a key.

    Attributes:
        keys: ``(size, D)`` float32, stored as given. :meth:`enqueue` writes into it: a loss whose gradient passes
            through products with it takes ``keys.clone()``.
        image_ids: ``(size,)`` int64, ``sample_index`` of each key's image; -1 marks a row that is still empty.
        position: ``()`` int64, the row that is written next, which is the oldest once the queue is full.
    """

    def __init__(self, size: int = 65536, channels: int = 128) -> None:
        super().__init__()
        if size < 1:
            raise UserError(f"KeyQueue: size must be at least 1, got {size}")
        self.register_buffer("keys", torch.zeros(size, channels))
        self.register_buffer("image_ids", torch.full((size,), _EMPTY, dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def fill(self) -> Tensor:
        """Share of the rows that hold a key, in [0, 1], as a tensor."""
        return (self.image_ids != _EMPTY).float().mean()

    def excluded_for(self, image_ids: Tensor) -> Tensor:
        """``(B,)`` ids -> ``(B, size)`` bool: rows that are no negatives of an image, being its own or empty."""
        return (self.image_ids == image_ids[:, None]) | (self.image_ids == _EMPTY)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, image_ids: Tensor) -> None:
        """Write the keys of all ranks over the oldest ones, rank after rank; of more than ``size`` keys the last stay.

        Args:
            keys: ``(N, D)``; N is the same on every rank.
            image_ids: ``(N,)`` int64, not negative.

        Raises:
            ValueError: the shapes do not fit.
        """
        if keys.ndim != 2 or keys.shape[1] != self.keys.shape[1] or image_ids.shape != keys.shape[:1]:
            raise ValueError(
                f"KeyQueue: want keys (N, {self.keys.shape[1]}) and image_ids (N,), got {tuple(keys.shape)} and "
                f"{tuple(image_ids.shape)}"
            )
        keys, image_ids = gather_ranks(keys), gather_ranks(image_ids)
        count = len(keys)
        dropped = max(0, count - len(self))
        rows = (self.position + torch.arange(dropped, count, device=self.position.device)) % len(self)
        self.keys[rows] = keys[dropped:].to(self.keys.dtype)
        self.image_ids[rows] = image_ids[dropped:]
        self.position.add_(count).remainder_(len(self))
