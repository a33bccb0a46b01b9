"""Prototypes that stay where they are until the network has something to group."""

from __future__ import annotations

from mmengine.runner import Runner

from slotcon_plugin.engine.held import HeldAtFirstHook
from slotcon_plugin.models import SemanticGrouping
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import HOOKS


@HOOKS.register_module()
class FrozenPrototypesHook(HeldAtFirstHook):
    """Leaves the student's prototypes at their random start for the first share of a run (SwAV, DINO, SlotMIM).

    Args:
        share: see :class:`~slotcon_plugin.engine.held.HeldAtFirstHook`.
    """

    let_go_key = "prototypes_let_go"

    def __init__(self, share: float = 0.01) -> None:
        super().__init__(share)

    def before_train(self, runner: Runner) -> None:
        """Find the prototypes.

        Raises:
            UserError: a method without them, or another wrapper of the optimiser.
        """
        model = unwrapped(runner.model)
        model.require("groups", "FrozenPrototypesHook")
        self.hold(runner, (part.prototypes for part in model.student.modules() if isinstance(part, SemanticGrouping)))
