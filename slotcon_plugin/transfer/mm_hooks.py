"""What a transfer run in mmengine does beside training: look that the backbone arrived, keep the result."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from slotcon_plugin.engine.resume import differences, plain, renew_schedule, require_same_optimizer
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.results import FILE_NAME, write_result
from slotcon_plugin.transfer.annotations import measurable_sizes
from slotcon_plugin.transfer.backbone import (
    Origin,
    check_arrived,
    hashed_weights,
    timm_network,
    warn_of_frozen_parts,
    warn_of_untaught_norms,
)
from slotcon_plugin.transfer.checkpoint import FACTS, facts_of_run
from slotcon_plugin.transfer.mm_data import evaluators_of, leaves_of, num_photos

CURE = "model.backbone.frozen_stages=-1, norm_eval=False and norm_cfg=dict(type='SyncBN', requires_grad=True)"


_KINDS = {"bbox": "box", "segm": "mask"}  # COCO's name of what is compared -> that of tables


class TransferRun(Hook):
    """Check the backbone before the first step; write the result after the last validation, or after a test.

    Args:
        task: the result's task.
        recipe: config as the user gave it, before it was fitted to this machine.
        origin: of the backbone.
        seed: of the run.
        seconds: that the run took before it was resumed.
        length: what its position is counted in, for who resumes it.
        test_path: of a test's result.
        trained_on: how many photos the tested checkpoint has learned from; None = it does not say.
        facts: further ones for the result file.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        task: str,
        recipe: Config,
        origin: Origin,
        seed: int,
        seconds: float = 0.0,
        length: Mapping[str, Any] | None = None,
        test_path: Path | None = None,
        trained_on: int | None = None,
        **facts: Any,
    ) -> None:
        self.task, self.recipe, self.origin, self.seed = task, recipe, origin, seed
        self.length, self.test_path, self.trained_on, self.facts = dict(length or {}), test_path, trained_on, facts
        self.metrics: dict[str, float] | None = None  # nothing was measured, while {} is a detector that found nothing
        self.started = time.monotonic() - seconds

    def before_train(self, runner: Runner) -> None:
        """Compare the network's backbone with what was converted, unless the run continues a former one."""
        model = unwrapped(runner.model)
        network = timm_network(runner.cfg.model.backbone)
        if network is None:  # timm's are trained whole; norm_eval is not their default
            warn_of_frozen_parts(model.train().backbone, CURE)
        elif self.origin.sha256 is None and runner.iter == 0:
            warn_of_untaught_norms(model.train().backbone)
        if runner.iter == 0:
            check_arrived(hashed_weights(model.backbone.state_dict(), network), self.origin)
        print_log(f"Backbone: {self.origin}", "current")
        if runner.cfg.get("val_evaluator") is None:
            text = f"The config has no val_evaluator: nothing is measured, and no {FILE_NAME} is written"
            print_log(text, "current", logging.WARNING)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put origin, seed, time, length and number of photos into the checkpoint."""
        told = facts_of_run(self.origin, self.seed, self._seconds())
        photos = num_photos(runner.train_dataloader.dataset)
        checkpoint["meta"][FACTS] = {**told, **self._course(runner), "trained_on": photos}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """A run that is made longer, or gets another rate, goes on as it would have with that from the beginning.

        Raises:
            UserError: the checkpoint is another optimiser's.
        """
        if not runner._resume:
            return
        now, facts = self._course(runner), (checkpoint.get("meta") or {}).get(FACTS, {})
        then = {part: facts.get(part, now[part]) for part in now}
        require_same_optimizer(then["optim_wrapper"], now["optim_wrapper"])
        if changed := list(differences(then, now)):
            told = "this config's values hold from here on, as if they had from the beginning"
            print_log(f"Changed since the checkpoint: {', '.join(changed)}: {told}", "current", logging.WARNING)
            renew_schedule(runner, checkpoint, len(runner.train_dataloader))

    def _course(self, runner: Runner) -> dict[str, Any]:
        """What positions and rates of a run follow from."""
        return {
            "length": self.length,
            **{part: plain(runner.cfg.get(part)) for part in ("optim_wrapper", "param_scheduler")},
        }

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the newest metrics."""
        self.metrics = dict(metrics or {})

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the metrics and write them: a test has no other end."""
        self.metrics = dict(metrics or {})
        self._write(runner, "test", self.test_path, self.trained_on)

    def after_train(self, runner: Runner) -> None:
        """Write the result of the last validation; of a run that was at its end before it was resumed, validate it."""
        if self.metrics is None and runner.val_loop is not None:
            runner.val_loop.run()  # all ranks do
        photos = num_photos(runner.train_dataloader.dataset)
        self._write(runner, "val", Path(runner.work_dir) / FILE_NAME, photos, iterations=runner.iter)

    def _seconds(self) -> float:
        return time.monotonic() - self.started

    def _write(self, runner: Runner, part: str, path: Path, trained_on: int | None, **extra: Any) -> None:
        if not is_main_process() or runner.cfg.get(f"{part}_evaluator") is None:
            return
        found, evaluators = self.metrics or {}, evaluators_of(runner.cfg, part)
        if not found and all(evaluator.get("format_only") for evaluator in evaluators):
            print_log(f"The evaluator writes predictions and measures nothing: no {path.name} is written", "current")
            return
        metrics = tidy_metrics(found) if found else nothing_detected(evaluators)
        if not metrics:
            text = f"Nothing could be measured on these photos and labels ({found}): no {path.name} is written"
            print_log(text, "current", logging.WARNING)
            path.unlink(missing_ok=True)  # an earlier one is of other labels
            return
        if root := next(leaves_of(runner.cfg[f"{part}_dataloader"].dataset)).get("data_root"):
            extra["data"] = Path(root).resolve().name
        if trained_on is not None:
            judged = runner.val_dataloader if part == "val" else runner.test_dataloader
            extra["num_images"] = [trained_on, num_photos(judged.dataset)]
        write_result(
            path,
            task=self.task,
            metrics=metrics,
            pretraining=self.origin.pretraining,
            config=self.recipe,
            backbone_sha256=self.origin.sha256,
            seed=self.seed,
            wall_time_s=self._seconds(),
            **self.origin.told,
            **self.facts,
            **extra,
        )
        print_log(f"Result: {', '.join(f'{k} {v:g}' for k, v in metrics.items())} -> {path}", "current")


def nothing_detected(evaluators: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Figures of a detector that found nothing at all: mmdet's CocoMetric then returns none, which is an AP of 0.

    Those of a size of which there is no object are left out, as they are of other detectors; all, where there is none.
    """
    figures = {}
    for evaluator in evaluators:
        asked, truth = evaluator.get("metric") or [], Path(evaluator.get("ann_file") or "")
        kinds = {asked} if isinstance(asked, str) else set(asked)
        sizes = measurable_sizes(truth) if truth.is_file() and kinds & {*_KINDS, "proposal"} else []
        if truth.is_file() and not sizes:
            continue
        if "proposal" in kinds:
            figures["AR100_box"] = 0.0
        for kind in [kind for kind in _KINDS if kind in kinds]:
            figures |= {f"AP{part}_{_KINDS[kind]}": 0.0 for part in ("", "50", "75", *sizes)}
    return figures


def tidy_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Framework's metrics under one naming, in percent.

    ``coco/bbox_mAP`` 0.41 -> ``AP_box`` 41.0, ``coco/segm_mAP_50`` -> ``AP50_mask``, ``coco/bbox_mAP_s`` ->
    ``APs_box``, ``coco/AR@100`` (boxes of any class, the metric ``proposal``) -> ``AR100_box``; mmseg's ``mIoU``,
    ``mAcc`` and ``aAcc`` are percentages already. What was not measured (-1: no object of that size; NaN) is left out.
    Of evaluators that report none of these all finite figures are kept, under their own names and in their own units:
    ``pascal_voc/mAP`` 0.41.
    """
    tidy, others = {}, {}
    for name, value in metrics.items():
        if match := re.fullmatch(r"(?:.*/)?(bbox|segm)_mAP(?:_(50|75|s|m|l))?", name):
            if value >= 0:
                tidy[f"AP{match[2] or ''}_{_KINDS[match[1]]}"] = round(100 * float(value), 4)
        elif re.fullmatch(r"(?:.*/)?AR(?:_[sml])?@\d+", name) and value < 0:
            continue
        elif name.rpartition("/")[2] == "AR@100":
            tidy["AR100_box"] = round(100 * float(value), 4)
        elif name in ("mIoU", "mAcc", "aAcc"):
            if value == value:
                tidy[name] = round(float(value), 4)
        elif isinstance(value, (int, float, np.number)) and np.isfinite(value):
            others[name] = float(value)
    return tidy or others
