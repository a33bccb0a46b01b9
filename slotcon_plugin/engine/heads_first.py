"""The first steps of a run that starts from weights: new heads learn before the backbone moves."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from slotcon_plugin.engine.mixed_precision import before_each_step
from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import HOOKS


@HOOKS.register_module()
class HeadsFirstHook(Hook):
    """Leaves student's and teacher's backbone as they are for the first share of a run, while all else is trained.

    Heads begin at random, and what they send back at first would spoil a backbone that begins with good weights.
    BatchNorm layers normalise by their batch from the first step on, as they will later, so that the heads see no
    jump; their running statistics stay those of the initial weights, since they belong to these. So what a checkpoint
    of this phase holds of the backbone is what the run started from, bit for bit.

    Gradients of the backbone are computed (DistributedDataParallel waits for them) and thrown away before a step, so
    that they neither count in its clipping nor leave moments in the optimiser.

    Args:
        share: of the run's iterations, 0 to below 1.
    """

    priority = "HIGH"

    def __init__(self, share: float = 0.1) -> None:
        if not 0 <= share < 1:
            raise UserError(f"HeadsFirstHook: share must be from 0 to below 1, got {share}")
        self.share = share
        self._steps = 0
        self._held = self._let_go = False
        self._momenta: dict[nn.Module, float | None] = {}

    def before_train(self, runner: Runner) -> None:
        """Find the backbones, and listen to the optimiser.

        Raises:
            UserError: the run starts from random weights.
        """
        model = unwrapped(runner.model)
        if model.init is None:
            raise UserError(
                "default_hooks.heads_first leaves the backbone as it is at first, which is for runs that start from "
                "weights: give them by --init, or set default_hooks.heads_first=None"
            )
        self._steps = round(self.share * runner.max_iters)
        backbones = nn.ModuleList(branch["backbone"] for branch in (model.student, model.teacher))
        norms = [module for module in backbones.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._momenta = {norm: norm.momentum for norm in norms}
        trained = list(model.student["backbone"].parameters())

        def drop_gradients() -> None:
            if self._held:
                for parameter in trained:
                    parameter.grad = None

        before_each_step(runner.optim_wrapper, drop_gradients, type(self).__name__)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """A backbone that has learned is not held again when the run is made longer."""
        checkpoint["meta"]["heads_first_let_go"] = self._let_go

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """See :meth:`before_save_checkpoint`."""
        self._let_go = checkpoint["meta"].get("heads_first_let_go", False)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Hold the backbones, or let go of them."""
        self._let_go |= runner.iter >= self._steps
        held = not self._let_go
        if held == self._held:
            return
        self._held = held
        for norm, momentum in self._momenta.items():
            norm.momentum = 0.0 if held else momentum
        print_log(
            f"Until iteration {self._steps} the backbone stays as it is and the rest learns"
            if held
            else "From here on the backbone learns too",
            "current",
        )
