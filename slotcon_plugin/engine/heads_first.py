"""The first steps of a run that starts from weights: new heads learn before the backbone moves."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slotcon_plugin.engine.held import HeldAtFirstHook
from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import HOOKS


@HOOKS.register_module()
class HeadsFirstHook(HeldAtFirstHook):
    """Leaves student's and teacher's backbone as they are for the first share of a run, while all else is trained.

    Heads begin at random, and what they send back at first would spoil a backbone that begins with good weights.
    BatchNorm layers normalise by their batch from the first step on, as they will later, so that the heads see no
    jump; their running statistics stay those of the initial weights, since they belong to these. So what a checkpoint
    of this phase holds of the backbone is what the run started from, bit for bit.

    Args:
        share: see :class:`~slotcon_plugin.engine.held.HeldAtFirstHook`.
    """

    priority = "HIGH"
    let_go_key = "heads_first_let_go"

    def __init__(self, share: float = 0.1) -> None:
        super().__init__(share)
        self._held = False
        self._norms: list[_BatchNorm] = []

    def before_train(self, runner: Runner) -> None:
        """Find the backbones.

        Raises:
            UserError: the run starts from random weights, or another wrapper of the optimiser.
        """
        model = unwrapped(runner.model)
        if model.init is None:
            raise UserError(
                "default_hooks.heads_first leaves the backbone as it is at first, which is for runs that start from "
                "weights: give them by --init, or set default_hooks.heads_first=None"
            )
        backbones = nn.ModuleList(branch["backbone"] for branch in (model.student, model.teacher))
        norms = (module for module in backbones.modules() if isinstance(module, _BatchNorm))
        self._norms = [norm for norm in norms if norm.track_running_stats]
        self.hold(runner, model.student["backbone"].parameters())

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Hold the backbones, or let go of them."""
        super().before_train_iter(runner, batch_idx, data_batch)
        held = not self._let_go
        if held == self._held:
            return
        self._held = held
        for norm in self._norms:  # in evaluation they normalise by what they have, either way
            norm.track_running_stats = not held
        print_log(
            f"Until iteration {self._steps} the backbone stays as it is and the rest learns"
            if held
            else "From here on the backbone learns too",
            "current",
        )
