"""GPUs x images per GPU is not the recipe's total batch: one rule for pretraining, mmdet, mmseg and detectron2.

Learning rate and schedule of a recipe are for one total batch. Two things can be done on other hardware:

* ``accumulate``, the default: keep the recipe. A batch that is too large is divided among the processes, one that is
  too small is accumulated over several passes before the optimiser steps.
* ``scale-lr``: follow the hardware. The total batch is what the processes hold; the learning rate follows linearly and
  the number of steps inversely (Goyal et al. 2017), the teacher's momentum is raised to the power of the ratio
  (Busbridge et al., "How to scale your EMA", 2023), so that all move as far in an epoch as before.

Where the loss is a mean over images (detection, segmentation), accumulated passes give the whole batch's gradient,
BatchNorm apart, whatever the optimiser: hence the default. Where the loss relates the images of a batch (contrast,
queue, center) they do not, and more and smaller steps are the better bargain: pretraining configs say so beside their
batch, ``auto_scale_lr = dict(base_batch_size=512, mode='scale-lr')``. ``--batch-mode`` overrides either.

A config that has been fitted, such as the copy that a run leaves in its work dir, is a recipe for the batch that it was
fitted to: fitted again on as many processes it stays as it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.runner import Runner

from slotcon_plugin.errors import UserError

MODES = ("accumulate", "scale-lr")
WITH_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes of ``torch.compile``. Their graphs' memory is written over at the next pass, gradients of the last one with it
(pytorch issue 169545)."""
# What counts iterations in schedules, in a loop, and in the hook that saves checkpoints.
_ITERATIONS = {
    *("begin", "end", "T_max", "step_size", "total_steps"),
    *("max_iters", "val_begin", "val_interval", "interval", "save_begin"),
}
_LISTS_OF_ITERATIONS = {"milestones", "periods"}
_VAL_INTERVAL = 1000  # mmengine's, of a loop that counts iterations


class BatchPlan(NamedTuple):
    """How a recipe runs on the processes at hand.

    Attributes:
        per_process: images of a forward pass on each process.
        accumulate: forward and backward passes per optimiser step.
        lr_factor: total batch here / the recipe's. Multiplies the learning rate and divides the number of optimiser
            steps, so that as many images are seen.
        text: what a user should read about it.
    """

    per_process: int
    accumulate: int
    lr_factor: float
    text: str


def plan_batch(
    recipe_total: int, processes: int, per_process: int | None = None, mode: str = MODES[0], accumulate: int = 1
) -> BatchPlan:
    """Keep the recipe's total batch, or follow the hardware's.

    Args:
        recipe_total: images per optimiser step in the recipe.
        processes: GPUs (or CPU processes) of this run.
        per_process: images of a forward pass on each, at most; None = its share of the recipe's.
        mode: ``accumulate`` or ``scale-lr``, see the module.
        accumulate: passes per optimiser step that the config asks for; 1 = it does not.

    Raises:
        UserError: unknown mode, counts below 1, or a total that dividing and accumulating cannot reach.
    """
    if mode not in MODES:
        raise UserError(f"batch mode must be one of {', '.join(MODES)}, got {mode!r}")
    counts = (recipe_total, processes, 1 if per_process is None else per_process, accumulate)
    if min(counts) < 1:
        raise UserError(
            f"total batch, processes, images per process and accumulated passes must be at least 1, got {counts}"
        )
    share = max(recipe_total // (processes * accumulate), 1)
    if mode == "scale-lr":
        each = per_process or share
        total = processes * each * accumulate
        ratio = total / recipe_total
        text = f"total batch {total} = {_product(processes, each, accumulate)}, "
        text += f"NOT the recipe's {recipe_total}: " if ratio != 1 else "the recipe's"
        text += f"learning rate x {ratio:g}, optimiser steps x {1 / ratio:g} ({mode})" if ratio != 1 else ""
        return BatchPlan(each, accumulate, ratio, text)

    each = min(per_process or share, share)
    passes = recipe_total // (processes * each)
    if processes * each * passes != recipe_total or accumulate not in (1, passes):
        raise UserError(
            f"the recipe's total batch of {recipe_total} cannot be made of {_product(processes, each, accumulate)}; "
            "choose images per process so that it can (train_dataloader.batch_size, or --images-per-gpu for "
            "detectron2), or --batch-mode scale-lr"
        )
    text = f"total batch {recipe_total} = {_product(processes, each, passes)}, the recipe's"
    if passes > 1:
        text += f", except that BatchNorm sees {processes * each} images at a time"
    return BatchPlan(each, passes, 1.0, text)


def _product(processes: int, per_process: int, passes: int) -> str:
    text = f"{processes} process{'es' if processes > 1 else ''} x {per_process} images"
    return text + (f" x {passes} accumulated passes" if passes > 1 else "")


def fit_batch(cfg: Config, processes: int, mode: str | None = None) -> str:
    """Make a config of mmengine run its recipe on these processes; in place.

    ``auto_scale_lr.base_batch_size`` states the recipe's total batch, ``auto_scale_lr.mode`` what to do elsewhere;
    ``train_dataloader.batch_size``, images of a pass on each process, may be left to the rule. Afterwards
    ``base_batch_size`` is the total batch here, and ``base_accumulative_counts`` the passes a step by which the config
    counts its iterations.

    Args:
        cfg: a pretraining config, or one of mmdet or mmseg.
        processes: of this run.
        mode: takes the place of the config's.

    Returns:
        What was done, as the log says it.

    Raises:
        UserError: see :func:`plan_batch`; a teacher's momentum has to follow and is not stated; or a mode is asked for,
            and the config states no batch to follow.
    """
    rule = cfg.get("auto_scale_lr") or {}
    if rule.get("base_batch_size") is None:
        passes = cfg.optim_wrapper.get("accumulative_counts", 1)
        _refuse_graphs(cfg, passes, f"optim_wrapper.accumulative_counts={passes}")
        each = cfg.train_dataloader.get("batch_size")
        text = "The config states no total batch (auto_scale_lr.base_batch_size)"
        if mode:
            raise UserError(f"--batch-mode {mode}: t{text[1:]}, so there is none to keep or to scale from: add it")
        if each:
            text += f": {processes * each * passes} = {_product(processes, each, passes)}, learning rate as it is"
        print_log(text, "current")
        return text
    mode = mode or rule.get("mode") or MODES[0]
    counted, asked = rule.get("base_accumulative_counts", 1), cfg.optim_wrapper.get("accumulative_counts", 1)
    if mode == "accumulate" and asked == counted:  # nobody's wish, but what an earlier fit has led to
        asked = 1
    plan = plan_batch(rule["base_batch_size"], processes, cfg.train_dataloader.get("batch_size"), mode, asked)
    cfg.train_dataloader.batch_size = plan.per_process
    if max(plan.accumulate, counted) > 1:
        cfg.optim_wrapper.accumulative_counts = rule["base_accumulative_counts"] = plan.accumulate
    _refuse_graphs(cfg, plan.accumulate, plan.text)
    rule["base_batch_size"] = processes * plan.per_process * plan.accumulate
    rule["enable"] = False  # done here; mmengine must not scale again
    text = f"T{plan.text[1:]}"
    if plan.lr_factor != 1:
        text += _follow(cfg, plan.lr_factor)
    print_log(text, "current")
    stretch_iterations(cfg, plan.accumulate / (counted * plan.lr_factor))
    return text


def _refuse_graphs(cfg: Config, passes: int, why: str) -> None:
    if passes > 1 and cfg.model.get("compile") in WITH_CUDA_GRAPHS:
        raise UserError(
            f"model.compile={cfg.model.compile} replays passes as CUDA graphs, and gradients may not be accumulated "
            f"over several of them: {why}. Take model.compile=True, or --batch-mode scale-lr"
        )


def accumulated_passes(runner: Runner) -> int:
    """Of one step of the optimiser."""
    return getattr(runner.optim_wrapper, "_accumulative_counts", 1)


def schedules_of(cfg: Config) -> list[ConfigDict]:
    """The schedules of a config, which mmengine takes as a list, as a single one, or not at all."""
    schedules = cfg.get("param_scheduler") or []
    return [schedules] if isinstance(schedules, dict) else list(schedules)


def _follow(cfg: Config, ratio: float) -> str:
    """Learning rate, the floor of its schedules and the teacher's momentum, after the total batch."""
    optimizer, model = cfg.optim_wrapper.optimizer, cfg.model
    optimizer.lr *= ratio
    text = f"; learning rate {optimizer.lr:g}"
    for schedule in schedules_of(cfg):
        if "eta_min" in schedule:
            schedule.eta_min *= ratio
    if isinstance(model.get("teacher_momentum"), str):
        text += ", teacher momentum after the number of steps"  # slotcon_plugin/config/rules.py
    elif "teacher_momentum" in model:
        model.teacher_momentum **= ratio
        text += f", teacher momentum from {model.teacher_momentum:.6g}"
    elif cfg.get("default_scope") == "slotcon_plugin":
        raise UserError("state model.teacher_momentum in the config: another total batch than the recipe's changes it")
    return text


def stretch_iterations(cfg: Config, factor: float) -> None:
    """Multiply what a config of mmengine counts in iterations; in place.

    Schedules that would shrink to a single step are dropped: a warm-up reaches the full rate in its last step, and one
    whose last is its first would never end. What is counted in epochs stays. A loop of iterations is one epoch to
    mmengine, so that a schedule by the epoch moves after its last iteration, whatever its length.

    Args:
        cfg: a pretraining config, or one of mmdet or mmseg.
        factor: iterations here for one of the config's.
    """
    if factor == 1:
        return
    loop, schedules = cfg.train_cfg, schedules_of(cfg)
    for schedule in schedules:
        if not schedule.get("by_epoch", True):
            _stretch(schedule, factor)
    kept = [one for one in schedules if one.get("by_epoch", True) or one.get("end", math.inf) - one.get("begin", 0) > 1]
    if len(kept) < len(schedules):
        cfg.param_scheduler = kept
    if "max_iters" in loop:  # by type or, without one, by by_epoch=False: a loop that counts iterations has this alone
        loop.setdefault("val_interval", _VAL_INTERVAL)
        _stretch(loop, factor)
        checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint")
        if checkpoint and not checkpoint.get("by_epoch", True):
            _stretch(checkpoint, factor)


def _stretch(section: ConfigDict, factor: float) -> None:
    for key in _ITERATIONS & section.keys():
        value = section[key]
        if isinstance(value, (int, float)) and 0 < value < math.inf:
            section[key] = max(round(value * factor), 0 if key == "begin" else 1)
    for key in _LISTS_OF_ITERATIONS & section.keys():
        section[key] = [max(round(value * factor), 1) for value in section[key]]
