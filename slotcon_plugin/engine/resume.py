"""Going on with a run: exactly, where nothing has changed, and at the right place, where something has."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from slotcon_plugin.engine.checkpoint import FORMER_ITER, require_fit
from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import HOOKS

CIRCUMSTANCES = "circumstances"
"""Key of a checkpoint's ``meta``: what :func:`circumstances` gave when it was written."""


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes ``--resume`` give the run that would have been without the stop: on a CPU bit for bit, if threads, torch,
    photos, batch and ranks are the same.

    Random numbers drawn in a step depend on ``(seed, rank, iteration)`` alone, so that there is no state of
    generators to save; a checkpoint that does not fit the model stops the run instead of half loading.

    Checkpoints carry what the position and the schedule depend on. Where it has changed, the log says so, and:

    * optimiser, schedule, ``max_epochs``: the config's values hold from here on; the learning rate is the one that a
      run with these values would have at this iteration;
    * model, views: the config's values hold from here on;
    * number of photos, batch, ranks: the epoch goes on at the first photo that has not been seen in it (after a change
      of the photos: at the same share of the epoch), and schedule and teacher at the share of the run that is done;
    * threads, torch, device: said, since the numbers will differ in the last bits.
    """

    def __init__(self) -> None:
        self._now: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what a resumed run will be compared with."""
        self._now = self._now or circumstances(runner)
        checkpoint["meta"][CIRCUMSTANCES] = self._now

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare weights and circumstances with the checkpoint's; rewrite its position and schedule if need be.

        Raises:
            UserError: a key is missing, unknown or has another shape; another optimiser; a position that no epoch of
                this run has.
        """
        require_fit(checkpoint["state_dict"], unwrapped(runner.model), "the checkpoint to resume from")
        if not runner._resume:
            return
        now = self._now = circumstances(runner)
        then = {**now, **checkpoint["meta"].get(CIRCUMSTANCES, {})}  # checkpoints of old do not tell all of it
        _say_what_differs(then, now)
        share = _move(checkpoint, then, now)
        if any(then[part] != now[part] for part in ("optimizer", "schedule", "iterations_per_epoch")):
            renew_schedule(runner, checkpoint, now["iterations_per_epoch"], share)

    def before_train(self, runner: Runner) -> None:
        """Hand the sampler the seed of the run, which a resumed checkpoint may have replaced; of the first rank, since
        with ``randomness.diff_rank_seed`` each has one of its own.
        """
        seed = [runner.seed]
        broadcast_object_list(seed)
        runner.train_dataloader.sampler.seed = seed[0]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Seed every generator from seed, rank and iteration."""
        words = np.random.SeedSequence((runner.seed, get_rank(), runner.iter)).generate_state(2)
        torch.manual_seed(int(words[0]))
        np.random.seed(words[1])
        random.seed(int(words[1]))


def circumstances(runner: Runner) -> dict[str, Any]:
    """What position, schedule and the last bits of a run depend on; plain containers."""
    loader, cfg = runner.train_dataloader, runner.cfg
    source = getattr(loader.dataset, "source", None)
    device = next(unwrapped(runner.model).parameters()).device
    return {
        "photos": len(loader.dataset),
        "names": names_hash([source.path(i) for i in range(len(source))]) if source and is_main_process() else None,
        "batch_size": loader.batch_size,
        "ranks": get_world_size(),
        "iterations_per_epoch": len(loader),
        # where the weights come from that it once started from, and where the photos lie, is no matter
        "model": plain({name: value for name, value in cfg.model.items() if name != "init"}),
        "views": plain({name: value for name, value in cfg.train_dataloader.dataset.items() if name != "source"}),
        "optimizer": plain(cfg.get("optim_wrapper")),
        # the config's epochs, since the loop's are whole ones
        "schedule": {"max_epochs": cfg.train_cfg.max_epochs, "param_scheduler": plain(cfg.get("param_scheduler"))},
        "arithmetic": {
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "torch": str(torch.__version__),
            "device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        },
    }


def names_hash(paths: Sequence[str]) -> str | None:
    """A hash of photos' names in their order; the folder that all are in does not count, since it may be moved."""
    if not paths:
        return None
    # one folder can be written in several ways; few names are, and normpath takes its time
    paths = [os.path.normpath(path) if "./" in path or "//" in path else path for path in paths]
    first, last = min(paths), max(paths)
    if os.path.isabs(first) != os.path.isabs(last):  # a list may name photos both ways, and those have no common folder
        paths = [os.path.abspath(path) for path in paths]
        first, last = min(paths), max(paths)
    root = os.path.commonpath([os.path.dirname(first), os.path.dirname(last)])
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path[len(root) :] if root else f"/{path}") + b"\0")
    return digest.hexdigest()


def require_same_optimizer(then: dict[str, Any] | None, now: dict[str, Any] | None) -> None:
    """Compare the kinds of optimiser of two ``optim_wrapper`` configs.

    Raises:
        UserError: they differ.
    """
    types = [(wrapper or {}).get("optimizer", {}).get("type") for wrapper in (then, now)]
    if types[0] != types[1]:
        raise UserError(
            f"cannot resume: the checkpoint's optimiser is {types[0]}, the config's is {types[1]}, which could not go "
            "on with its state. Resume with the former, or start a new work dir"
        )


def _say_what_differs(then: dict, now: dict) -> None:
    require_same_optimizer(then["optimizer"], now["optimizer"])
    for part, place, consequence in (
        ("model", "model", "this config's values hold from here on"),
        ("views", "train_dataloader.dataset", "this config's values hold from here on"),
        ("optimizer", "", "this config's values hold from here on"),
        ("schedule", "", "this config's schedule holds from here on, as if it had from the beginning"),
        ("arithmetic", "", "the result will not be that of a run without the stop to the last bit"),
    ):
        if changed := list(differences(then[part], now[part], place)):
            print_log(f"Changed since the checkpoint: {', '.join(changed)}: {consequence}", "current", logging.WARNING)
    if then["photos"] != now["photos"] or (None not in (then["names"], now["names"]) and then["names"] != now["names"]):
        print_log(
            f"The photos have changed since the checkpoint ({then['photos']} then, {now['photos']} now, other names or "
            "another order): from here on they come in another order than without the change",
            "current",
            logging.WARNING,
        )


def _move(checkpoint: dict, then: dict, now: dict) -> float:
    """Translate the checkpoint's position into this run's count of iterations.

    Returns:
        This run's iterations for one of the former.
    """
    meta = checkpoint["meta"]
    epoch, before, after = meta["epoch"], then["iterations_per_epoch"], now["iterations_per_epoch"]
    done = meta["iter"] - epoch * before
    if not 0 <= done <= before:
        raise UserError(
            f"cannot resume: iteration {meta['iter']} is not in epoch {epoch + 1} of {before} iterations. The number "
            "of photos, the batch or the number of processes is not the checkpoint's; resume with those"
        )
    totals = [part["batch_size"] * part["ranks"] for part in (then, now)]
    accumulated = [(part["optimizer"] or {}).get("accumulative_counts", 1) for part in (then, now)]
    counted_alike = (before, totals[0], then["photos"]) == (after, totals[1], now["photos"])
    if counted_alike and accumulated[0] == accumulated[1]:
        return 1.0
    seen = done * totals[0] * now["photos"] // then["photos"]
    done = after if done == before else min(seen // totals[1], after)  # a photo twice rather than not at all
    share = 1.0 if counted_alike else (epoch * after + done) / max(meta["iter"], 1)
    if "teacher_steps" in checkpoint["state_dict"]:
        steps = checkpoint["state_dict"]["teacher_steps"]
        steps.copy_((steps * share * accumulated[0] / accumulated[1]).round())
    if counted_alike:
        return share
    meta[FORMER_ITER], meta["iter"] = meta["iter"], epoch * after + done
    print_log(
        f"Epochs had {before} iterations ({then['ranks']} x {then['batch_size']} of {then['photos']} photos) and have "
        f"{after} now ({now['ranks']} x {now['batch_size']} of {now['photos']}): iteration {meta[FORMER_ITER]} is "
        f"iteration {meta['iter']} by this count, {done} of {after} of epoch {epoch + 1} are done",
        "current",
        logging.WARNING,
    )
    return share


def renew_schedule(runner: Runner, checkpoint: dict, iterations_per_epoch: int, share: float = 1.0) -> None:
    """Give a checkpoint the optimiser's settings and the schedule that this config would have led to by now.

    Args:
        runner: built, and about to resume from it.
        checkpoint: with its position in this run's iterations; changed in place.
        iterations_per_epoch: of this run.
        share: iterations of this run for one of the checkpoint's.

    Raises:
        UserError: the parameters are grouped otherwise.
    """
    # the wrapper's own list has one more where the parts have settings of their own: those that they differ from
    groups, stored = runner.optim_wrapper.optimizer.param_groups, checkpoint["optimizer"]["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in stored]:
        raise UserError(
            "cannot resume: optim_wrapper.paramwise_cfg groups the parameters otherwise than when the checkpoint was "
            "written. Resume with that, or start a new work dir"
        )
    schedulers = runner.param_schedulers or []
    steps = [state["_global_step"] for state in checkpoint.get("param_schedulers", ())]
    by_iteration = round(max((n for n, s in zip(steps, schedulers) if not s.by_epoch), default=0) * share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimiser has not stepped yet
        for iteration in range(1, max(by_iteration, checkpoint["meta"]["iter"]) + 1):
            for scheduler in schedulers:
                if iteration % iterations_per_epoch == 0 if scheduler.by_epoch else iteration <= by_iteration:
                    scheduler.step()
    checkpoint["param_schedulers"] = [scheduler.state_dict() for scheduler in schedulers]
    checkpoint["optimizer"].pop("base_param_settings", None)
    for group, former in zip(groups, stored):
        former.update({name: value for name, value in group.items() if name != "params"})
    rates = ", ".join(f"{group['lr']:g}" for group in groups)
    print_log(f"The learning rate goes on at {rates}", "current")


def plain(config: Any) -> Any:
    """A piece of config as a checkpoint may hold it."""
    return json.loads(json.dumps(config, default=str))


def differences(then: Any, now: Any, place: str = "") -> Iterator[str]:
    """Of two pieces of config that :func:`plain` gave: ``optimizer.lr 0.1 -> 0.05``."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys()):
            yield from differences(then.get(name), now.get(name), f"{place}.{name}" if place else name)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, pair in enumerate(zip(then, now)):
            yield from differences(*pair, f"{place}[{number}]")
    elif then != now:
        yield f"{place} {then} -> {now}"
