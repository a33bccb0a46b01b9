"""What happens when a loss is not a number: the evidence is kept, and the update is not taken."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from slotcon_plugin.errors import RunFailedError, UserError
from slotcon_plugin.files import write_json
from slotcon_plugin.models.distributed import all_reduce_sum, unwrapped
from slotcon_plugin.registry import HOOKS

_ABSURD = 1e5  # weights of trained networks stay below 100


class NonFiniteLossError(RunFailedError):
    """The loss was NaN or infinite; the message names the files that were written."""


@HOOKS.register_module()
class NanGuardHook(Hook):
    """Looks at each loss before it is propagated back; what is not finite never reaches the weights.

    When the loss of any rank is NaN or infinite, ``nonfinite_iter_N.json`` in the work dir gets the photos of that
    batch and each rank's loss terms. Then, with ``action='stop'``, ``nonfinite_iter_N.pth`` is written and the run
    stops: a checkpoint of the state before that batch, so that the step can be looked at again (``--resume`` does not
    choose it by itself). With ``action='skip'`` the update is left out and training goes on: buffers that the forward
    pass has already changed (the center, BatchNorm's averages, queues) are put back, gradients accumulated so far
    are dropped, and neither the teacher nor the schedule advances. Skipping ends in a stop when it cannot help: the
    weights themselves are no longer finite or of absurd size, or it happened ``max_skips`` times in a row.

    Cost: one number is read from the device before the backward pass, which mmengine would read after it, and the
    buffers are copied on the device. Every rank adds its flag up with the others' in every step, so that all of them
    take the same way.

    Args:
        action: ``'stop'`` or ``'skip'``.
        max_skips: batches skipped in a row before the run stops after all.
    """

    def __init__(self, action: str = "stop", max_skips: int = 10) -> None:
        if action not in ("stop", "skip"):
            raise UserError(f"NanGuardHook: action must be 'stop' or 'skip', got {action!r}")
        if max_skips < 1:
            raise UserError(f"NanGuardHook: max_skips must be at least 1, got {max_skips}")
        self.action = action
        self.max_skips = max_skips
        self._skips = 0
        self._buffers: list[Tensor] = []
        self._kept: list[Tensor] = []
        self._batch: Any = None
        self._losses: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Become the optimiser wrapper's guard, and note the loss terms of each forward pass.

        Raises:
            UserError: the wrapper asks no guard.
        """
        model, wrapper = unwrapped(runner.model), runner.optim_wrapper
        if not hasattr(wrapper, "guard"):
            raise UserError(
                f"NanGuardHook needs optim_wrapper.type='MixedPrecisionOptimWrapper' (dtype='float32' for none), got "
                f"{type(wrapper).__name__}; default_hooks.nan_guard=None goes without the guard"
            )
        self._buffers = [buffer for buffer in model.buffers() if buffer.numel()]
        self._kept = [buffer.clone() for buffer in self._buffers]
        model.register_forward_hook(self._note_losses)
        wrapper.guard = partial(self._admits, runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Keep what the forward pass may spoil."""
        self._batch = data_batch
        torch._foreach_copy_(self._kept, self._buffers)

    def _note_losses(self, model: nn.Module, args: tuple, output: Any) -> None:
        if isinstance(output, dict):  # mode='loss'
            self._losses = {name: value.detach().float() for name, value in output.items()}

    def _admits(self, runner: Runner, loss: Tensor) -> bool:
        broken_ranks = all_reduce_sum((~loss.detach().isfinite()).float())[0]
        if not broken_ranks.item():
            self._skips = 0
            return True
        torch._foreach_copy_(self._buffers, self._kept)
        self._refuse(runner, loss)
        return False

    def _refuse(self, runner: Runner, loss: Tensor) -> None:
        """Write the evidence; return if the run may go on, with the batch left out.

        Raises:
            NonFiniteLossError: it may not.
        """
        self._skips += 1
        iteration = runner.iter + 1
        report = Path(runner.work_dir) / f"nonfinite_iter_{iteration}.json"
        gathered = all_gather_object(self._evidence(runner, loss))
        if is_main_process():
            content = {"iter": iteration, "epoch": runner.epoch + 1, "ranks": gathered}
            write_json(report, content)
        text = f"The loss of iteration {iteration} is not finite; its photos and loss terms are in {report}."
        spoilt = _spoilt(unwrapped(runner.model))
        if self.action == "skip" and spoilt is None and self._skips < self.max_skips:
            print_log(f"{text} The update is skipped ({self._skips} in a row).", "current", logging.WARNING)
            return
        checkpoint = report.with_suffix(".pth")
        runner.save_checkpoint(
            str(runner.work_dir),
            checkpoint.name,
            by_epoch=False,
            meta={"epoch": runner.epoch, "iter": runner.iter},
            backend_args={"backend": "atomic"},
        )
        barrier()  # a rank that stops early would have the launcher kill the one that writes
        if spoilt is None:
            cause = (
                "The weights are of ordinary size, so it came about in this forward pass: look at the photos, and at "
                "optim_wrapper.dtype ('bfloat16' and 'float32' have a wider range than 'float16')."
            )
        else:
            cause = (
                f"The weights are spoilt already ({spoilt}), so it was an earlier update: resume from a checkpoint "
                "before that (--resume FILE) with a lower learning rate (optim_wrapper.optimizer.lr=...), "
                "a longer warm-up or optim_wrapper.clip_grad."
            )
        raise NonFiniteLossError(f"{text} The state before it is in {checkpoint}. {cause}")

    def _evidence(self, runner: Runner, loss: Tensor) -> dict[str, Any]:
        indices = self._batch["sample_index"].tolist() if "sample_index" in self._batch else []
        source = getattr(runner.train_dataloader.dataset, "source", None)
        terms = {"loss": loss, **self._losses}
        return {
            "losses": {name: str(value.mean().item()) for name, value in terms.items()},  # JSON has no number for NaN
            "sample_index": indices,
            "photos": [str(source.path(index)) for index in indices] if source is not None else [],
        }


def _spoilt(model: nn.Module) -> str | None:
    """The first parameter that is not finite, or else the largest that no training leads to; None if all are well."""
    sizes = {name: value.detach().abs().max().item() for name, value in model.named_parameters() if value.numel()}
    name = next((n for n, size in sizes.items() if not math.isfinite(size)), max(sizes, key=sizes.get))
    if math.isfinite(sizes[name]):
        return f"{name} reaches {sizes[name]:.1e}" if sizes[name] > _ABSURD else None
    return f"{name} is not finite"
