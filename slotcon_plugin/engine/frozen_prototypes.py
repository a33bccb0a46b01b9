"""Prototypes that stay where they are until the network has something to group."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from slotcon_plugin.engine.mixed_precision import before_each_step
from slotcon_plugin.errors import UserError
from slotcon_plugin.models import SemanticGrouping
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import HOOKS

_LET_GO = "prototypes_let_go"


@HOOKS.register_module()
class FrozenPrototypesHook(Hook):
    """Leaves the student's prototypes at their random start for the first share of a run (SwAV, DINO, SlotMIM).

    Their gradients are thrown away before a step, so that they neither count in its clipping nor leave moments in the
    optimiser. Prototypes that have begun to learn are not frozen again when a run is made longer.

    Args:
        share: of the run's iterations, 0 to below 1.
    """

    def __init__(self, share: float = 0.01) -> None:
        if not 0 <= share < 1:
            raise UserError(f"FrozenPrototypesHook: share must be from 0 to below 1, got {share}")
        self.share = share
        self._let_go = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Say whether the prototypes have begun to learn."""
        checkpoint["meta"][_LET_GO] = self._let_go

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """See :meth:`before_save_checkpoint`."""
        self._let_go = checkpoint["meta"].get(_LET_GO, False)

    def before_train(self, runner: Runner) -> None:
        """Listen to the optimiser."""
        model = unwrapped(runner.model)
        model.require("groups", "FrozenPrototypesHook")
        steps = round(self.share * runner.max_iters)
        prototypes = [part.prototypes for part in model.student.modules() if isinstance(part, SemanticGrouping)]

        def drop_gradients() -> None:
            self._let_go |= runner.iter >= steps
            if not self._let_go:
                for parameter in prototypes:
                    parameter.grad = None

        before_each_step(runner.optim_wrapper, drop_gradients, type(self).__name__)
