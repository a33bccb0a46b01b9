"""Watches a pretraining: figures to the log, TensorBoard and a file, warnings in plain words."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor

from slotcon_plugin.engine.batch import accumulated_passes
from slotcon_plugin.engine.checkpoint import FORMER_ITER
from slotcon_plugin.engine.health_alarms import Alarms
from slotcon_plugin.engine.health_figures import effective_rank, gradient_norm, usage_figures
from slotcon_plugin.engine.json_lines import HEALTH_FILE, append_json_line, rewrite_json_lines
from slotcon_plugin.engine.resume import CIRCUMSTANCES
from slotcon_plugin.errors import RunFailedError, UserError
from slotcon_plugin.models.distributed import all_reduce_sum, unwrapped
from slotcon_plugin.registry import HOOKS

_STATE = "slot_health"


class CollapseError(RunFailedError):
    """The run was stopped because what it learns has become worthless."""


@HOOKS.register_module()
class SlotHealthHook(Hook):
    """Reads ``model.monitor`` and the step, and reports every ``interval`` iterations and at the end of each epoch.

    What is reported depends on what the pretrainer puts into ``monitor``; nothing there is required:

    * ``prototype_usage`` (K,): ``live_prototypes`` of the batch, ``used_prototypes`` and ``usage_entropy`` (nats) since
      the last report, ``live_prototypes_epoch`` and the list ``dead_prototypes`` at the end of an epoch;
    * ``center`` (K,): ``center_norm``;
    * ``slots`` (B, K, D) with ``present`` (B, K), or ``features`` (N, D): ``effective_rank``;
    * any tensor of one element, under its own name (``teacher_entropy``, ``num_queries``, ...);
    * a dict of these for a further head: its figures end in ``_HEAD``, and it has warnings of its own.

    In addition there are ``grad_norm`` (before clipping, as mmengine reports it, when there is clipping) and
    ``data_time_share``. Counts are those of all ranks together, other figures the mean over ranks, times those of the
    first rank. Between reports only the usage is added up, on its device.

    Each report is a line in ``health.jsonl`` of the work dir, with the losses (means since the last report) and the
    learning rate. A resumed run drops the lines after its checkpoint and goes on; a new run in an old work dir sets
    the old file aside as ``health.old.jsonl``.

    Args:
        interval: iterations between reports.
        stop_on_collapse: raise :class:`CollapseError` when the warning says that going on is pointless.
    """

    priority = 55  # after the timer and what the model logs (NORMAL = 50), before the logger (BELOW_NORMAL = 60)

    def __init__(self, interval: int = 50, stop_on_collapse: bool = False) -> None:
        if interval < 1:
            raise UserError(f"SlotHealthHook: interval must be at least 1 iteration, got {interval}")
        self.interval = interval
        self.stop_on_collapse = stop_on_collapse
        self._alarms: dict[str, Alarms] = defaultdict(Alarms)  # of each head by its suffix; '' has no name
        self._begun = False  # whether this start has made a step
        self._counted = 0  # iterations since the last report
        self._usage: dict[str, Tensor] = {}  # (K,) since the last report, of all ranks
        self._epoch_usage: dict[str, Tensor] = {}  # (K,) since the start of the epoch, up to the last report
        self._grad_norm: Tensor | None = None
        self._loaded: dict[str, Any] | None = None
        self._former: tuple[int | None, int | None] = None, None  # iteration and iterations an epoch by its count

    @property
    def verdict(self) -> str:
        """See :attr:`~slotcon_plugin.engine.health_alarms.Alarms.verdict`; of several heads those with a fault."""
        found = {head[1:]: alarms.verdict for head, alarms in self._alarms.items()}
        wrong = [f"{head}: {said}" if head else said for head, said in found.items() if said not in ("", "healthy")]
        return "; ".join(wrong) or ("healthy" if "healthy" in found.values() else "")

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the counts of the interrupted epoch."""
        self._loaded = checkpoint.get(_STATE)
        meta = checkpoint["meta"]
        self._former = meta.get(FORMER_ITER), meta.get(CIRCUMSTANCES, {}).get("iterations_per_epoch")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the counts of the epoch so far, which a resumed run cannot make up for."""
        checkpoint[_STATE] = {
            "counted": self._counted,
            "usage": {head: usage.cpu() for head, usage in self._usage.items()},
            "epoch_usage": {head: usage.cpu() for head, usage in self._epoch_usage.items()},
            "alarms": {head: alarms.state_dict() for head, alarms in self._alarms.items()},
        }

    def before_train(self, runner: Runner) -> None:
        """Take up where the checkpoint left off, or start a file."""
        path, steps = self.path(runner), len(runner.train_dataloader)
        if runner.iter > 0:
            if self._loaded is not None:
                self._counted = self._loaded["counted"]
                self._usage, self._epoch_usage = (_by_head(self._loaded[key]) for key in ("usage", "epoch_usage"))
                for head, state in _by_head(self._loaded["alarms"]).items():
                    self._alarms[head].load_state_dict(state)
            if is_main_process():
                former_iter, former_steps = self._former

                def up_to_here(record: dict[str, Any]) -> dict[str, Any] | None:
                    """In this run's count of iterations. A record has that of the last start that came to rewriting it,
                    which may have left no checkpoint: its own counts, where it tells it.
                    """
                    iteration, own = record.get("iter", 0), record.get("iterations_per_epoch", former_steps)
                    if own == steps:
                        end = runner.iter
                    elif own == former_steps:
                        end = former_iter or runner.iter
                    else:
                        end = round(runner.iter * own / steps)
                    now = {"iter": -(-iteration * runner.iter // end), "iterations_per_epoch": steps}
                    return record | {key: now[key] for key in now if key in record} if iteration <= end else None

                rewrite_json_lines(path, up_to_here)
        elif is_main_process() and path.exists():
            os.replace(path, path.with_name("health.old.jsonl"))
        wrapper = runner.optim_wrapper
        accumulated = accumulated_passes(runner)

        def measure(optimizer: torch.optim.Optimizer, *_) -> None:
            # Here gradients are reduced over ranks and unscaled; after the step they are gone. The last update
            # before a report is measured.
            if self._iterations_to_report(runner) < accumulated:
                self._grad_norm = gradient_norm([p for group in optimizer.param_groups for p in group["params"]])

        if not wrapper.clip_grad_kwargs:
            wrapper.optimizer.register_step_pre_hook(measure)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Tell the pretrainer whether the figures of this step will be looked at."""
        unwrapped(runner.model).reporting = not self._iterations_to_report(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Count; report when it is time."""
        if not self._begun:  # before it a start leaves no figures: it may yet be refused
            self._begun = True
            # for those who put the scalars of several starts on one axis
            runner.visualizer.add_scalar("iterations_per_epoch", len(runner.train_dataloader), step=runner.iter)
        monitor = unwrapped(runner.model).monitor
        self._counted += 1
        batch_usage = {
            suffix: all_reduce_sum(head["prototype_usage"])[0]
            for suffix, head in heads_of(monitor).items()
            if "prototype_usage" in head
        }
        for suffix, usage in batch_usage.items():
            earlier = self._usage.get(suffix)
            self._usage[suffix] = usage.clone() if earlier is None else earlier.to(usage.device) + usage
        if self._iterations_to_report(runner):
            return
        end_of_epoch = (runner.iter + 1) % len(runner.train_dataloader) == 0
        figures = {
            "iter": runner.iter + 1,
            "epoch": runner.epoch + 1,
            "iterations_per_epoch": len(runner.train_dataloader),
            **self._logged(runner),
            **monitored_figures(monitor),
        }
        for suffix, usage in batch_usage.items():
            figures |= {
                f"{name}{suffix}": value for name, value in self._usage_figures(suffix, usage, end_of_epoch).items()
            }
        if self._grad_norm is not None:
            figures["grad_norm"] = self._grad_norm.item()
        self._publish(runner, figures, outputs or {})
        self._counted, self._usage = 0, {}
        self._warn(figures, ["", *batch_usage])

    @staticmethod
    def path(runner: Runner) -> Path:
        """The file of the reports."""
        return Path(runner.work_dir) / HEALTH_FILE

    def _iterations_to_report(self, runner: Runner) -> int:
        return min(-(runner.iter + 1) % every for every in (self.interval, len(runner.train_dataloader)))

    def _logged(self, runner: Runner) -> dict[str, float]:
        """Losses and times (means since the last report) and learning rate from mmengine's own log."""
        scalars = runner.message_hub.log_scalars
        averaged = [name for name in scalars if name.startswith("train/loss")]
        figures = {name.removeprefix("train/"): float(scalars[name].mean(self._counted)) for name in averaged}
        for name in ("train/lr", "train/grad_norm"):
            if name in scalars:
                figures[name.removeprefix("train/")] = float(scalars[name].current())
        if "train/time" in scalars and "train/data_time" in scalars:
            total = float(scalars["train/time"].mean(self._counted))
            waited = float(scalars["train/data_time"].mean(self._counted))
            figures.update(time=total, data_time_share=waited / total if total > 0 else 0.0)
        return figures

    def _usage_figures(self, suffix: str, batch_usage: Tensor, end_of_epoch: bool) -> dict[str, Any]:
        usage = self._usage[suffix]
        figures = {
            "num_prototypes": len(usage),
            "live_prototypes": int((batch_usage > 0).sum()),
            **usage_figures(usage),
        }
        earlier = self._epoch_usage.pop(suffix, None)
        of_epoch = usage if earlier is None else usage + earlier.to(usage.device)
        if end_of_epoch:
            figures["live_prototypes_epoch"] = int((of_epoch > 0).sum())
            figures["dead_prototypes"] = (of_epoch == 0).nonzero().flatten().tolist()
        else:
            self._epoch_usage[suffix] = of_epoch
        return figures

    def _publish(self, runner: Runner, figures: dict[str, Any], logged_by_model: dict) -> None:
        known = {"iter", "epoch", "iterations_per_epoch", "lr", "time", "grad_norm" if self._grad_norm is None else ""}
        for name, value in figures.items():
            constant = name in known or name.startswith("num_prototypes")
            if isinstance(value, (int, float)) and not constant and name not in logged_by_model:
                runner.message_hub.update_scalar(f"train/{name}", value)
        if is_main_process():
            append_json_line(self.path(runner), figures)

    def _warn(self, figures: dict[str, Any], suffixes: Iterable[str]) -> None:
        for suffix in dict.fromkeys(suffixes):
            own, whose = figures, ""
            if suffix:
                own = {k.removesuffix(suffix): v for k, v in figures.items() if k.endswith(suffix)}
                own, whose = {"epoch": figures["epoch"], **own}, f"Head {suffix[1:]}: "
            for situation, text in self._alarms[suffix].judge(own):
                print_log(whose + text, "current", logging.WARNING)
                if situation.collapse and self.stop_on_collapse:
                    raise CollapseError(f"stopped at iteration {figures['iter']} (stop_on_collapse): {whose}{text}")


def heads_of(monitor: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Map each head's suffix ('' for top-level entries) to its part of the monitor."""
    own = {name: value for name, value in monitor.items() if not isinstance(value, Mapping)}
    heads = {f"_{name}": dict(value) for name, value in monitor.items() if isinstance(value, Mapping)}
    return {"": own, **heads} if own else heads


def _by_head(saved: Any) -> dict[str, Any]:
    """What a checkpoint holds for each head; files from before there were several hold one thing without a name."""
    if saved is None:
        return {}
    return saved if isinstance(saved, dict) and "streaks" not in saved else {"": saved}


def monitored_figures(monitor: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a pretrainer's ``monitor`` that need no history; see :class:`SlotHealthHook`.

    They are means over ranks, except ``num_queries``, which is summed.
    """
    figures: dict[str, Tensor] = {}
    for suffix, head in heads_of(monitor).items():
        figures |= {f"{name}{suffix}": value.detach().float() for name, value in head.items() if value.ndim == 0}
        if "center" in head:
            figures[f"center_norm{suffix}"] = head["center"].norm()
        vectors = head["slots"][head["present"]] if "slots" in head else head.get("features")
        if vectors is not None:
            figures[f"effective_rank{suffix}"] = torch.tensor(effective_rank(vectors))
    if not figures:
        return {}
    device = max((value.device for value in figures.values()), key=lambda device: device.type != "cpu")
    total, ranks = all_reduce_sum(
        torch.stack([value.to(device) for value in figures.values()]), torch.ones((), device=device)
    )
    summed = dict(zip(figures, total.tolist()))
    return {name: value if name.startswith("num_queries") else value / ranks.item() for name, value in summed.items()}
