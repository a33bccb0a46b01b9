"""mmengine's runner, for runs of this package."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mmengine.runner.runner as mmengine_runner
import torch
from mmengine.logging import MMLogger, print_log
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from slotcon_plugin.engine.console import console_of
from slotcon_plugin.files import from_here
from slotcon_plugin.models.distributed import synchronise_batchnorm


class TerseRunner(Runner):
    """mmengine's runner with :class:`ConsoleHandler` in the place of its own; use it within :func:`run_console`."""

    _trains = False  # it may also be there to test

    def go_on_from(self, checkpoint: Path) -> None:
        """Resume from a checkpoint. The copy of the config in the work dir stays one that a new run can start from."""
        self._resume, self._load_from = True, str(checkpoint)

    def dump_config(self) -> None:
        """Nothing yet: mmengine's copy of the config, made while the runner is built, would go over that of a run which
        turns out to be finished, or cannot be gone on with. See :meth:`load_or_resume`.
        """

    def load_or_resume(self) -> None:
        """mmengine's; then leave a copy of the config in the work dir, if there is anything to train by it."""
        into_the_log = partial(mmengine_runner._load_checkpoint, logger="current")  # mmengine prints what it loads
        with patch.object(mmengine_runner, "_load_checkpoint", into_the_log):
            super().load_or_resume()
        if not self._trains:
            return
        if self.iter < self.max_iters:
            super().dump_config()
        else:
            print_log(
                f"{from_here(self.work_dir)} is finished, iteration {self.iter} of {self.max_iters}: nothing is "
                "trained and its config stays as it is. To train on, make it longer and resume it",
                "current",
                logging.WARNING,
            )

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """mmengine's, with :func:`synchronise_batchnorm` for ``sync_bn``."""
        with mended_mmengine():
            return super().wrap_model(model_wrapper_cfg, model)

    def train(self) -> nn.Module:
        """mmengine's, with activation checkpointing that does not re-enter autograd."""
        self._trains = True
        with mended_mmengine():
            return super().train()

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """mmengine's, except that schedules which last until the end of the run end in a part of an epoch, too.

        And a warm-up of one iteration is none: it would set the rate to its start and never be asked again.
        """
        length = (self.cfg.get("train_cfg") or {}).get("max_epochs")
        if isinstance(scheduler, list) and length is not None:
            scheduler = [
                {"end": length, **one} if isinstance(one, dict) and one.get("by_epoch", True) else one
                for one in scheduler
            ]
            scheduler = [one for one in scheduler if not self._is_too_short(one)]
        return super().build_param_scheduler(scheduler)

    def _is_too_short(self, schedule: Any) -> bool:
        if not (isinstance(schedule, dict) and schedule.get("type") == "LinearLR" and schedule.get("by_epoch", True)):
            return False
        length = len(self.train_dataloader) if schedule.get("convert_to_iter_based") else 1
        begin, end = (int(schedule.get(key, 0) * length) for key in ("begin", "end"))
        return end - begin < 2

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """One of its own. mmengine keeps them by name while the process lives: with a fixed name, or its own (a time in
        seconds), a second run would draw into the folder of the first.
        """
        if isinstance(visualizer, dict):
            visualizer = {**visualizer, "name": uuid.uuid4().hex}
        return super().build_visualizer(visualizer)

    def build_logger(self, log_level: int | str = "INFO", *args: Any, **kwargs: Any) -> MMLogger:
        """A logger whose file begins with what was logged before there was one."""
        former = console_of(MMLogger.get_current_instance())
        logger = super().build_logger(log_level, *args, **kwargs)
        if former and log_level != "DEBUG":
            logger.handlers = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
            for record in former.hand_over():
                logger.callHandlers(record)
            logger.handlers.append(former)
        return logger


@contextmanager
def mended_mmengine() -> Iterator[None]:
    """Two functions of mmengine's that spoil what is trained, replaced while its runner calls them."""
    ours = {
        "turn_on_activation_checkpointing": compute_activations_twice,
        "convert_sync_batchnorm": lambda model, implementation: synchronise_batchnorm(model),
    }
    with patch.multiple(mmengine_runner, **ours):
        yield


def compute_activations_twice(model: nn.Module, names: Sequence[str] | str) -> None:
    """``activation_checkpointing`` of a config.

    mmengine's re-enters autograd: parts whose only input is the image then get no gradient, and
    DistributedDataParallel rejects parts that run twice in a step. BatchNorm's running statistics move once, in the
    first computation.
    """
    for name in [names] if isinstance(names, str) else names:
        part = attrgetter(name)(model)
        part.forward = _computed_twice(part, part.forward)


def _computed_twice(part: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _statistics_kept(part)

    @torch.compiler.disable  # which would compute again with statistics that the second view has moved
    def compute(*maps: Any) -> Any:
        return checkpoint(forward, *maps, use_reentrant=False, context_fn=contexts)

    return compute


@contextmanager
def _statistics_kept(part: nn.Module) -> Iterator[None]:
    """Batches are normalised as ever, and leave no trace."""
    layers = [layer for layer in part.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    former = [(layer.momentum, layer.num_batches_tracked.clone()) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, (momentum, batches) in zip(layers, former):
            layer.momentum = momentum
            layer.num_batches_tracked.copy_(batches)
