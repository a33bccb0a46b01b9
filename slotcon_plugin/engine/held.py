"""Parameters that wait while the rest of a model learns."""

from __future__ import annotations

from collections.abc import Iterable

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from slotcon_plugin.engine.mixed_precision import before_each_step
from slotcon_plugin.errors import UserError


class HeldAtFirstHook(Hook):
    """Leaves some parameters as they are for the first share of a run; which ones, subclasses say by :meth:`hold`.

    Their gradients are computed (DistributedDataParallel waits for them) and thrown away before a step, so that they
    neither count in its clipping nor leave moments in the optimiser. Parameters that have begun to learn are not held
    again when a run is made longer.

    Args:
        share: of the run's iterations, 0 to below 1.

    Attributes:
        let_go_key: of a checkpoint's ``meta``, whether they have begun to learn.
    """

    let_go_key: str

    def __init__(self, share: float) -> None:
        if not 0 <= share < 1:
            raise UserError(f"{type(self).__name__}: share must be from 0 to below 1, got {share}")
        self.share = share
        self._steps = 0
        self._let_go = False

    def hold(self, runner: Runner, parameters: Iterable[nn.Parameter]) -> None:
        """Listen to the optimiser; call it before training.

        Raises:
            UserError: the optimiser's wrapper has no place for it.
        """
        self._steps = round(self.share * runner.max_iters)
        parameters = list(parameters)

        def drop_gradients() -> None:
            if not self._let_go:
                for parameter in parameters:
                    parameter.grad = None

        before_each_step(runner.optim_wrapper, drop_gradients, type(self).__name__)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Let go in time."""
        self._let_go |= runner.iter >= self._steps

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Say whether the parameters have begun to learn."""
        checkpoint["meta"][self.let_go_key] = self._let_go

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """See :meth:`before_save_checkpoint`."""
        self._let_go = checkpoint["meta"].get(self.let_go_key, False)
