"""Hooks that every pretraining run needs: the teacher, the schedule, exact resume."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook, ParamSchedulerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from slotcon_plugin.engine.checkpoint import require_fit
from slotcon_plugin.engine.work_dir import RUN
from slotcon_plugin.registry import HOOKS


def unwrapped(runner: Runner) -> torch.nn.Module:
    """The pretrainer itself, without a wrapper for distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@HOOKS.register_module()
class TeacherUpdateHook(Hook):
    """Moves the teacher after each step that the optimiser really took.

    It hangs on the optimiser, not on the loop: batches that only accumulate gradients, and steps that the gradient
    scaler left out, do not move the teacher and do not advance its momentum.
    """

    def before_train(self, runner: Runner) -> None:
        """Tell the pretrainer how many updates there will be, and listen to the optimiser."""
        model, wrapper = unwrapped(runner), runner.optim_wrapper
        accumulated = getattr(wrapper, "_accumulative_counts", 1)
        model.total_steps = -(-runner.max_iters // accumulated)
        wrapper.optimizer.register_step_post_hook(lambda *_: model.update_teacher())


@HOOKS.register_module()
class DeclarationHook(Hook):
    """Lets the pretrainer state in every checkpoint which method wrote it, and what its weights expect as input."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """See :meth:`BasePretrainer.declare`."""
        unwrapped(runner).declare(checkpoint)


@HOOKS.register_module()
class PretrainSchedulerHook(ParamSchedulerHook):
    """mmengine's scheduler hook, except that a step left out by the gradient scaler does not advance the schedule."""

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Advance schedules that count iterations."""
        if not getattr(runner.optim_wrapper, "step_skipped", False):
            super().after_train_iter(runner, *args, **kwargs)


class RunStampHook(Hook):
    """Makes every checkpoint say which run wrote it.

    Args:
        run: of the work dir's :class:`~slotcon_plugin.engine.work_dir.Claim`.
    """

    def __init__(self, run: dict) -> None:
        self.run = run

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the run to ``meta``."""
        checkpoint["meta"][RUN] = self.run


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes ``--resume`` give the run that would have been without the stop.

    Random numbers drawn in a step depend on ``(seed, rank, iteration)`` alone, so that there is no state of
    generators to save; a checkpoint that does not fit the model stops the run instead of half loading.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint's weights with the model's, key by key.

        Raises:
            UserError: a key is missing, unknown or has another shape.
        """
        require_fit(checkpoint["state_dict"], unwrapped(runner), "the checkpoint to resume from")

    def before_train(self, runner: Runner) -> None:
        """Hand the sampler the seed of the run, which a resumed checkpoint may have replaced."""
        runner.train_dataloader.sampler.seed = runner.seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Seed every generator from seed, rank and iteration."""
        words = np.random.SeedSequence((runner.seed, get_rank(), runner.iter)).generate_state(2)
        torch.manual_seed(int(words[0]))
        np.random.seed(words[1])
        random.seed(int(words[1]))
