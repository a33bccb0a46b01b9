"""What happens when a loss is not a number: the evidence is kept, and the update is not taken."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from slotcon_plugin.engine.late import LateFlag
from slotcon_plugin.errors import RunFailedError, UserError
from slotcon_plugin.files import write_json
from slotcon_plugin.models.distributed import all_reduce_sum, unwrapped
from slotcon_plugin.registry import HOOKS

_ABSURD = 1e5  # weights of trained networks stay below 100


class NonFiniteLossError(RunFailedError):
    """The loss was NaN or infinite; the message names the files that were written."""


class Buffers:
    """What a forward pass changes (the center, BatchNorm's averages, queues), kept as it was before."""

    def __init__(self, model: nn.Module) -> None:
        dtypes: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            if buffer.numel():
                dtypes.setdefault(buffer.dtype, []).append(buffer)
        self._groups = list(dtypes.values())
        self.keep()

    def keep(self) -> None:
        """Keep what they are now. Hundreds of them, yet a few kernels: those of a dtype as one tensor."""
        self._kept = [_flat(group) for group in self._groups]

    def put_back(self, where: Tensor | None = None) -> None:
        """Make them what was kept; given a flag ``()``, only if that is not 0, without asking the device."""
        for group, kept in zip(self._groups, self._kept):
            chosen = kept if where is None else torch.where(where > 0, kept, _flat(group))
            parts = chosen.split([buffer.numel() for buffer in group])
            torch._foreach_copy_(group, [part.view_as(buffer) for part, buffer in zip(parts, group)])


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


class Batch(NamedTuple):
    """A batch that was looked at, in case it is not well."""

    iter: int
    epoch: int
    data: Any
    losses: dict[str, Tensor]


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

    In float16, which cannot hold more than 65,504, a batch may overflow in a healthy run: it is always skipped, and
    ``action='stop'`` stops, too, after ``max_skips`` in a row.

    Cost: the buffers are copied on the device. Every rank adds its flag up with the others' in every step, so that all
    of them take the same way. Where the optimiser wrapper leaves steps out on the device, the host does not wait for
    the flag: the device heeds it at once, evidence and message come with the next batch, which after a stop is left
    out, too. Elsewhere a number is read before the backward pass.

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
        self._buffers: Buffers | None = None
        self._batch: Batch | None = None
        self._losses: dict[str, Tensor] = {}
        self._late = LateFlag()
        self._broken: Tensor | None = None

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
        self._skipping = self.action == "skip" or wrapper.dtype is torch.float16
        self._buffers = Buffers(model)
        model.register_forward_hook(self._note_losses)
        wrapper.guard = partial(self._judge, runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Keep what the forward pass may spoil."""
        self._data = data_batch
        self._buffers.keep()

    def _note_losses(self, model: nn.Module, args: tuple, output: Any) -> None:
        if isinstance(output, dict):  # mode='loss'
            self._losses = {name: value.detach().float() for name, value in output.items()}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Put back what a batch has spoilt that the device has left out; the backward pass needed it as it was."""
        if self._broken is not None:
            self._buffers.put_back(where=self._broken)

    def after_train(self, runner: Runner) -> None:
        """Hear of the last batch."""
        if self._late.last():
            self._refuse(runner, self._batch)

    def _judge(self, runner: Runner, loss: Tensor) -> Tensor:
        """1 if the loss of any rank is not finite, else 0; on its device."""
        broken = all_reduce_sum((~loss.detach().isfinite()).float())[0].clamp(max=1)
        losses = {"loss": loss.detach(), **self._losses}
        known, self._batch = self._batch, Batch(runner.iter, runner.epoch, self._data, losses)
        if runner.optim_wrapper.on_device:
            if self._broken is not None and not self._skipping:
                broken = torch.maximum(broken, self._broken)  # nothing is changed any more
            self._broken = broken
            refused = self._late(broken)
        else:
            refused, known = bool(broken), self._batch
            if refused:
                self._buffers.put_back()
        if refused:
            self._refuse(runner, known)
        else:
            self._skips = 0
        return broken

    def _refuse(self, runner: Runner, batch: Batch) -> None:
        """Write the evidence; return if the run may go on, with the batch left out.

        Raises:
            NonFiniteLossError: it may not.
        """
        self._skips += 1
        iteration = batch.iter + 1
        report = Path(runner.work_dir) / f"nonfinite_iter_{iteration}.json"
        gathered = all_gather_object(_evidence(runner, batch))
        if is_main_process():
            content = {"iter": iteration, "epoch": batch.epoch + 1, "ranks": gathered}
            write_json(report, content)
        text = f"The loss of iteration {iteration} is not finite; its photos and loss terms are in {report}."
        spoilt = _spoilt(unwrapped(runner.model))
        if self._skipping and spoilt is None and self._skips < self.max_skips:
            print_log(f"{text} The update is skipped ({self._skips} in a row).", "current", logging.WARNING)
            return
        self._buffers.put_back()  # the batch that has told of this one has changed them, too
        checkpoint = report.with_suffix(".pth")
        runner.save_checkpoint(
            str(runner.work_dir),
            checkpoint.name,
            by_epoch=False,
            meta={"epoch": batch.epoch, "iter": batch.iter},
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


def _evidence(runner: Runner, batch: Batch) -> dict[str, Any]:
    indices = batch.data["sample_index"].tolist() if "sample_index" in batch.data else []
    source = getattr(runner.train_dataloader.dataset, "source", None)
    return {
        "losses": {name: str(value.mean().item()) for name, value in batch.losses.items()},  # JSON knows no NaN
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
