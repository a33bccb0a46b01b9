"""What the tools call: prepare and run a pretraining."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from slotcon_plugin.config import resolve
from slotcon_plugin.config.check import check_arguments
from slotcon_plugin.engine import RunStampHook, allow_checkpoint_classes, claim_work_dir, shared
from slotcon_plugin.engine.batch import fit_batch
from slotcon_plugin.engine.budget import BudgetHook, plan_budget
from slotcon_plugin.engine.checkpoint import open_checkpoint
from slotcon_plugin.engine.console import run_console
from slotcon_plugin.engine.cpu import keep_freed_memory
from slotcon_plugin.engine.failures import failures_told
from slotcon_plugin.engine.lock import put_back_if_refused
from slotcon_plugin.engine.processes import start_processes
from slotcon_plugin.engine.progress import ProgressHook
from slotcon_plugin.engine.report import pretraining_head, pretraining_made
from slotcon_plugin.engine.resume import CIRCUMSTANCES
from slotcon_plugin.engine.runner import TerseRunner
from slotcon_plugin.engine.seed import check_seed
from slotcon_plugin.engine.settings import SETTINGS, settle_for_run
from slotcon_plugin.engine.stop import signals_given_back
from slotcon_plugin.engine.work_dir import started_again
from slotcon_plugin.errors import UserError
from slotcon_plugin.initialization import read_initial_weights
from slotcon_plugin.models.distributed import unwrapped

RANDOM_WEIGHTS = "random weights"


def use_photos(cfg: Config, path: str) -> None:
    """Make a pretraining config read the photos of a folder (nested or flat) or of a list file.

    Raises:
        UserError: there is neither a folder nor a list file at ``path``.
    """
    if Path(path).is_dir():
        source = dict(type="ImageFolder", root=path)
    elif Path(path).is_file() and not path.endswith(".json"):
        source = dict(type="ListFile", path=path)
    else:
        raise UserError(
            f"{path} is neither a folder of photos nor a text file that lists them; for a COCO annotation file set "
            "photos in the config, as configs/pretrain/_base_/coco.py does"
        )
    cfg.train_dataloader.dataset.source = source


def pretrain(
    cfg: Config,
    resume: bool | str = False,
    batch_mode: str | None = None,
    overwrite: bool = False,
    budget: float | None = None,
    next_steps: bool = True,
) -> Runner:
    """Run the pretraining that a config describes.

    Args:
        cfg: a config with ``work_dir`` set.
        resume: True continues from the newest whole checkpoint of the run in the work dir (or starts, when there is
            none); a path continues from that checkpoint.
        batch_mode: takes the place of the config's, see :func:`~slotcon_plugin.engine.batch.fit_batch`.
        overwrite: set a used work dir aside and start anew. It is put back if the run ends before it has left
            anything.
        budget: seconds that the run may take, over all its resumptions; its length follows in place of
            ``train_cfg.max_epochs``. None = as the checkpoint has it that is gone on with, ``math.inf`` = none.
        next_steps: say at the end which commands go on from here.

    Raises:
        UserError: the config is refused, or the work dir is another run's
            (:func:`~slotcon_plugin.engine.claim_work_dir`), or ``init`` cannot be started from.
        RunFailedError: the run ended itself, and says why.
    """
    progress = ProgressHook(pretraining_head, partial(pretraining_made, next_steps=next_steps))
    with run_console() as at_the_end, signals_given_back():
        at_the_end.callback(progress.close)
        return _pretrain(cfg, resume, batch_mode, overwrite, budget, progress)


def _pretrain(
    cfg: Config,
    resume: bool | str,
    batch_mode: str | None,
    overwrite: bool,
    budget: float | None,
    progress: ProgressHook,
) -> Runner:
    began = time.monotonic()
    resolve(cfg)
    check_arguments(cfg)
    check_seed(cfg)
    init = cfg.get("init")
    # Read before a used work dir is set aside for it; a run that goes on needs none, and the file may be gone by then.
    again = resume or started_again(cfg.work_dir)
    initial = read_initial_weights(init, cfg.model.backbone) if init and not again else None
    identity = {"method": cfg.model.type, "seed": cfg.get("randomness", {}).get("seed"), "init": _name_of(init, again)}
    claim = claim_work_dir(cfg.work_dir, identity, resume, overwrite, cfg.get("launcher"))
    # Much of what a run may be refused for shows when its parts are built, and by then a used folder is set aside.
    with put_back_if_refused(cfg.work_dir, claim and claim.aside):
        allow_checkpoint_classes()
        if not torch.cuda.is_available():
            keep_freed_memory()
            cfg.train_dataloader.pin_memory = False  # torch would warn that there is nothing to pin it for
        processes = start_processes(cfg)
        recipe_batch = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
        fit_batch(cfg, processes, batch_mode)
        with failures_told(cfg.work_dir):
            claim = shared(claim)
            meta = open_checkpoint(claim.checkpoint).get("meta", {}) if claim.checkpoint else {}
            plan = plan_budget(cfg, budget, began, meta)
            from_weights = (claim.run["identity"]["init"] or _name_of(init, again=False)) != RANDOM_WEIGHTS
            settings = settle_for_run(cfg, processes, recipe_batch, from_weights, meta.get(SETTINGS))
            if init and not claim.checkpoint:
                initial = initial or read_initial_weights(init, cfg.model.backbone)
                initial.set_input(cfg)
            elif claim.checkpoint and from_weights:
                _keep_input(cfg, meta)
            runner = TerseRunner.from_cfg(cfg)
            if claim.checkpoint:
                runner.go_on_from(claim.checkpoint)
            elif initial:
                initial.put_into(unwrapped(runner.model))
            runner.register_hook(RunStampHook(claim.run, settings))
            runner.register_hook(progress)
            if plan:
                runner.register_hook(BudgetHook(plan, began))
            runner.train()
    return runner


def _keep_input(cfg: Config, meta: Mapping[str, Any]) -> None:
    """Pixels that the weights want which the run once began with, unless the config says otherwise itself; the
    checkpoint knows them, ``init`` may be gone.
    """
    former = meta.get(CIRCUMSTANCES, {}).get("model", {}).get("data_preprocessor", {})
    for name in ("mean", "std"):
        if name in former:
            cfg.model.data_preprocessor.setdefault(name, former[name])


def _name_of(init: str | Mapping | None, again: bool) -> str | None:
    """What a run starts from, to tell runs apart; None = as the run that is to be gone on with."""
    file = init.get("file") if isinstance(init, Mapping) else init
    return Path(file).name if file else None if again else RANDOM_WEIGHTS
