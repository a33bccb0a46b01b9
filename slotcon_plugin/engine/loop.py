"""The training loop: mmengine's epochs, able to begin in the middle of one."""

from __future__ import annotations

import math
from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import EpochBasedTrainLoop

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.models.timm_backbone import require_whole_patches
from slotcon_plugin.registry import LOOPS


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's epochs over any data loader; a run that was stopped within one goes on there.

    mmengine begins it anew and counts on: the run would go beyond its last iteration. Batches that were done are read
    and left out, since other loaders cannot be entered in the middle.
    """

    def run_epoch(self) -> None:
        """One epoch, or what a resumed run has left of it."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        for idx, data_batch in enumerate(self.dataloader):
            if idx >= done:
                self.run_iter(idx, data_batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


@LOOPS.register_module()
class PretrainLoop(EpochBasedTrainLoop):
    """Epochs over an :class:`~slotcon_plugin.data.EpochSampler`, which a resumed run enters where it left off.

    The position is not stored: it follows from the iteration count, and what a sample looks like follows from
    ``(seed, epoch, index)``, so nothing has to be replayed.

    Args:
        max_epochs: may have a fraction: the last epoch of 6.4 ends after .4 of its iterations.
        kwargs: see mmengine's loop.

    Raises:
        UserError: there is not one epoch, one is shorter than one batch, or the pretrainer refuses the data set.
    """

    def __init__(self, *args: Any, max_epochs: float, **kwargs: Any) -> None:
        if max_epochs <= 0:
            raise UserError(f"train_cfg.max_epochs: expected more than 0, got {max_epochs}")
        super().__init__(*args, max_epochs=math.ceil(max_epochs), **kwargs)
        self._max_iters = max(int(max_epochs * len(self.dataloader)), 1)
        if not len(self.dataloader):
            photos, ranks = len(self.dataloader.dataset), get_world_size()
            raise UserError(
                f"{photos} photos do not fill one batch of {self.dataloader.batch_size} images per GPU"
                f"{f' on {ranks} GPUs' if ranks > 1 else ''}; take more photos, or a smaller batch: "
                f"--cfg-options train_dataloader.batch_size={max(photos // ranks, 1)}"
            )
        model, dataset = unwrapped(self.runner.model), self.dataloader.dataset
        if view_size := getattr(dataset, "view_size", None):  # one's own data set may have views of other shapes
            require_whole_patches(model, view_size)
        model.check_data(dataset)

    def end_with_this_iteration(self) -> None:
        """Make the iteration that is under way the last one; hooks take it for the last from here on."""
        self._max_iters = self._iter + 1
        self.stop_training = True

    def run_epoch(self) -> None:
        """One epoch, or what a resumed run has left of it."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.sampler.set_epoch(self._epoch)
        self.dataloader.sampler.start = done * self.dataloader.batch_size
        for idx, data_batch in enumerate(self.dataloader, start=done):
            if self._iter >= self._max_iters:
                break
            self.run_iter(idx, data_batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
