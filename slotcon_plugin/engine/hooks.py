"""Hooks that every pretraining run needs: the teacher, the schedule, what checkpoints say of themselves."""

from __future__ import annotations

from mmengine.hooks import Hook, ParamSchedulerHook
from mmengine.runner import Runner

from slotcon_plugin.checkpoints.runs import RUN
from slotcon_plugin.engine.batch import accumulated_passes
from slotcon_plugin.engine.settings import SETTINGS
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import HOOKS


@HOOKS.register_module()
class TeacherUpdateHook(Hook):
    """Moves the teacher after each step that the optimiser really took.

    It hangs on the optimiser, not on the loop: batches that only accumulate gradients, and steps that were left out
    (on the host or, ``optimizer.found_inf``, on the device), do not move the teacher and do not advance its momentum.
    """

    def before_train(self, runner: Runner) -> None:
        """Tell the pretrainer how many updates there will be, and listen to the optimiser."""
        model, wrapper = unwrapped(runner.model), runner.optim_wrapper
        model.total_steps = -(-runner.max_iters // accumulated_passes(runner))
        wrapper.optimizer.register_step_post_hook(
            lambda optimizer, *_: model.update_teacher(getattr(optimizer, "found_inf", None))
        )


@HOOKS.register_module()
class DeclarationHook(Hook):
    """Lets the pretrainer state in every checkpoint which method wrote it, and what its weights expect as input."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """See :meth:`BasePretrainer.declare`."""
        unwrapped(runner.model).declare(checkpoint, photos=len(runner.train_dataloader.dataset))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """See :meth:`BasePretrainer.recall`. A run that goes on sees pixels as its config says now."""
        unwrapped(runner.model).recall(checkpoint, pixels=not runner._resume)


@HOOKS.register_module()
class PretrainSchedulerHook(ParamSchedulerHook):
    """mmengine's scheduler hook, except that a step left out by the gradient scaler does not advance the schedule."""

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Advance schedules that count iterations."""
        if not getattr(runner.optim_wrapper, "step_skipped", False):
            super().after_train_iter(runner, *args, **kwargs)


class RunStampHook(Hook):
    """Makes every checkpoint say which run wrote it, with which settings.

    Args:
        run: of the work dir's :class:`~slotcon_plugin.engine.work_dir.Claim`.
        settings: those that followed from the run, see :func:`~slotcon_plugin.engine.settings.settle_for_run`.
    """

    def __init__(self, run: dict, settings: dict | None = None) -> None:
        self.run = run
        self.settings = settings

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add both to ``meta``."""
        checkpoint["meta"][RUN] = self.run
        if self.settings:
            checkpoint["meta"][SETTINGS] = self.settings
