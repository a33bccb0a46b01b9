"""Prototypes that stay where they are until the network has something to group."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from slotcon_plugin.errors import UserError
from slotcon_plugin.models import SemanticGrouping
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import HOOKS


@HOOKS.register_module()
class FrozenPrototypesHook(Hook):
    """Leaves the student's prototypes at their random start for the first share of a run (SwAV, DINO, SlotMIM).

    Their gradients are thrown away, so that the optimiser keeps no moments of them and decays nothing. What is frozen
    follows from the iteration alone.

    Args:
        share: of the run's iterations, 0 to below 1.
    """

    def __init__(self, share: float = 0.01) -> None:
        if not 0 <= share < 1:
            raise UserError(f"FrozenPrototypesHook: share must be from 0 to below 1, got {share}")
        self.share = share

    def before_train(self, runner: Runner) -> None:
        """Listen to the optimiser."""
        model = unwrapped(runner.model)
        model.require("groups", "FrozenPrototypesHook")
        steps = round(self.share * runner.max_iters)
        prototypes = [part.prototypes for part in model.student.modules() if isinstance(part, SemanticGrouping)]

        def drop_gradients(*_) -> None:
            if runner.iter < steps:
                for parameter in prototypes:
                    parameter.grad = None

        runner.optim_wrapper.optimizer.register_step_pre_hook(drop_gradients)
