"""detectron2's default trainer with evaluation, accumulation, and checkpoints that say which run wrote them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data.common import ToIterableDataset
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import LRMultiplier
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset, Sampler

from slotcon_plugin.checkpoints.runs import RUN
from slotcon_plugin.convert import ConversionError
from slotcon_plugin.convert.names import DETECTRON2
from slotcon_plugin.convert.network import Network
from slotcon_plugin.d2_timm import TimmMaps
from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.transfer.backbone import Origin, check_arrived, hashed_weights
from slotcon_plugin.transfer.checkpoint import FACTS, facts_of_run
from slotcon_plugin.transfer.d2_data import is_own
from slotcon_plugin.transfer.d2_evaluation import build_evaluator
from slotcon_plugin.transfer.d2_photo import PhotoMapper


class AccumulatingTrainer(SimpleTrainer):
    """A step on the loader's whole batch, in several passes of fewer images.

    The loss of every pass is an average over its images, so the step is that of the whole batch, BatchNorm apart.

    Args:
        whole: the trainer that would do it in one pass; if it is an ``AMPTrainer``, its precision and gradient scaler
            are used.
        passes: how many; they share the batch evenly.
    """

    def __init__(self, whole: SimpleTrainer, passes: int) -> None:
        super().__init__(whole.model, whole.data_loader, whole.optimizer)
        self.passes = passes
        self.mixed = isinstance(whole, AMPTrainer)
        self.precision = whole.precision if self.mixed else torch.float32
        self.grad_scaler = whole.grad_scaler if self.mixed else torch.amp.GradScaler(enabled=False)

    def run_step(self) -> None:
        """One optimiser step."""
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        total: dict[str, Tensor] = {}
        size = len(data) // self.passes
        for number in range(self.passes):
            last = number == self.passes - 1
            keep_local = not last and isinstance(self.model, DistributedDataParallel)
            part = data[number * size : (number + 1) * size]
            with self.model.no_sync() if keep_local else nullcontext():
                with torch.autocast(self.device_type, self.precision, enabled=self.mixed):
                    losses = self.model(part)
                self.grad_scaler.scale(sum(losses.values()) / self.passes).backward()
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value.detach() / self.passes
        self._write_metrics(total, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    @property
    def device_type(self) -> str:
        """Where the model is."""
        return next(self.model.parameters()).device.type

    def state_dict(self) -> dict[str, Any]:
        """With the gradient scaler's, under the name that ``AMPTrainer`` gives it."""
        scaler = {"grad_scaler": self.grad_scaler.state_dict()} if self.mixed else {}
        return super().state_dict() | scaler

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.mixed:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


class _LaterIndices(Sampler):
    """What a sampler gives after its first indices."""

    def __init__(self, sampler: Sampler, skipped: int) -> None:
        self.sampler, self.skipped = sampler, skipped

    def __iter__(self) -> Iterator[int]:
        return islice(iter(self.sampler), self.skipped, None)


def skip_batches(loader: IterableDataset, batches: int) -> None:
    """Have a training loader of detectron2's begin behind the photos of its first ``batches``, on this rank.

    A few photos near the seam may come twice, or not in this round: those that waited for others of their shape
    (``DATALOADER.ASPECT_RATIO_GROUPING``), or that a worker had ready.
    """
    photos = _drawn_photos(loader)
    photos.sampler = _LaterIndices(photos.sampler, batches * photos.shard_chunk_size)


def num_photos(loader: IterableDataset) -> int:
    """That a training loader of detectron2's draws from; those without objects may have been left out."""
    return len(_drawn_photos(loader).dataset)


def _drawn_photos(loader: IterableDataset) -> ToIterableDataset:
    while not isinstance(loader, ToIterableDataset):
        loader = loader.dataset
    return loader


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What an optimiser does with each group of parameters, wherever the schedule stands."""
    return [{name: group[name] for name in group if name not in ("params", "lr")} for group in optimizer.param_groups]


def hold_settings(optimizer: torch.optim.Optimizer, schedule: LRMultiplier, asked: list[dict[str, Any]]) -> None:
    """Let a config's rate, weight decay and momentum hold after a checkpoint was loaded, as its SOLVER.STEPS do anyway.

    detectron2 goes on with those of the checkpoint, and the run would tell of the config's.

    Args:
        optimizer, schedule: as the checkpoint left them.
        asked: :func:`settings_of` the optimiser before.

    Raises:
        UserError: the checkpoint's is another optimiser.
    """
    changed = {}
    for group, former, own in zip(optimizer.param_groups, settings_of(optimizer), asked):
        if ("momentum" in own) != ("momentum" in former):
            raise UserError(
                "cannot resume: the checkpoint's optimiser is another one. SOLVER.OPTIMIZER must be as when the run "
                "was started; or begin anew in an OUTPUT_DIR of its own"
            )
        changed |= {name: f"{name} {former.get(name)} -> {own[name]}" for name in own if own[name] != former.get(name)}
        group.update(own)
    schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, schedule.get_lr()):
        group["lr"] = rate
    if changed:
        text = "Changed since the checkpoint: %s: this config's values hold from here on"
        logging.getLogger("detectron2").warning(text, ", ".join(changed.values()))


class TransferTrainer(DefaultTrainer):
    """Args: ``cfg``; ``passes``: forward and backward passes per optimiser step."""

    def __init__(self, cfg: CfgNode, passes: int = 1) -> None:
        self.passes = passes
        super().__init__(cfg)
        if passes > 1:
            self._trainer = AccumulatingTrainer(self._trainer, passes)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """detectron2's SGD, or AdamW where ``SOLVER.OPTIMIZER`` says so."""
        if cfg.SOLVER.OPTIMIZER == "SGD":
            return super().build_optimizer(cfg, model)
        if cfg.SOLVER.OPTIMIZER != "AdamW":
            raise UserError(f"SOLVER.OPTIMIZER must be SGD or AdamW, got {cfg.SOLVER.OPTIMIZER!r}")
        parameters = get_default_optimizer_params(model, weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM)
        settings = {"lr": cfg.SOLVER.BASE_LR, "weight_decay": cfg.SOLVER.WEIGHT_DECAY}
        return maybe_add_gradient_clipping(cfg, torch.optim.AdamW(parameters, **settings))

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> IterableDataset:
        """detectron2's; where a data set is the user's own, photos of every kind are read as they were checked."""
        own = any(map(is_own, cfg.DATASETS.TRAIN))
        return build_detection_train_loader(cfg, mapper=PhotoMapper(cfg, is_train=True) if own else None)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        """As :meth:`build_train_loader`."""
        mapper = PhotoMapper(cfg, is_train=False) if is_own(dataset_name) else None
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """By what the data set says of itself."""
        return build_evaluator(cfg, dataset_name)

    def build_hooks(self) -> list[HookBase | None]:
        """As detectron2's; precise BN sees as many images as there, no more of them at once than a pass."""
        whole, self.cfg = self.cfg, self.cfg.clone()
        self.cfg.defrost()
        self.cfg.SOLVER.IMS_PER_BATCH //= self.passes
        self.cfg.TEST.PRECISE_BN.NUM_ITER *= self.passes
        hooks = super().build_hooks()
        self.cfg = whole
        return hooks

    def go_on_from(self, checkpoint: Path) -> None:
        """Take up model, optimiser, schedule and the order of the photos where a checkpoint left them.

        The config's rate, weight decay and momentum hold from here on, see :func:`hold_settings`.

        Raises:
            UserError: the optimiser is another one, or one of other parameters.
        """
        asked = settings_of(self.optimizer)
        try:
            self.checkpointer.load(str(checkpoint))
        except (ValueError, KeyError) as error:  # torch's, of the optimiser: that the model fits is known
            raise UserError(
                f"cannot resume {checkpoint}: its optimiser is another one ({error}). What SOLVER.OPTIMIZER, "
                "SOLVER.AMP.ENABLED, SOLVER.BIAS_LR_FACTOR and MODEL.BACKBONE.FREEZE_AT say must be as when the run "
                "was started; or begin anew in an OUTPUT_DIR of its own"
            ) from error
        hold_settings(self.optimizer, self.scheduler, asked)
        self.start_iter = self.iter + 1
        skip_batches(self._trainer.data_loader, self.start_iter)

    @property
    def results(self) -> dict[str, Any]:
        """Of the last evaluation; empty on all processes but the first."""
        return getattr(self, "_last_eval_results", None) or {}


class RunMeta:
    """What every checkpoint says of its run, under ``meta`` as in mmengine's."""

    def __init__(
        self,
        run: dict[str, Any],
        origin: Origin,
        seed: int,
        length: dict[str, int],
        photos: int,
        seconds_before: float = 0.0,
    ) -> None:
        self.run, self.origin, self.seed, self.length, self.photos = run, origin, seed, length, photos
        self.started = time.monotonic() - seconds_before

    def seconds(self) -> float:
        """Of training and evaluation, those before a resume included."""
        return time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        facts = facts_of_run(self.origin, self.seed, self.seconds())
        return {RUN: self.run, FACTS: {**facts, "length": self.length, "trained_on": self.photos}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing is left to take: the run was looked up before it was resumed."""


def bottom_up_of(model: nn.Module) -> nn.Module:
    """A detector's backbone without its pyramid."""
    backbone = unwrapped(model).backbone
    return getattr(backbone, "bottom_up", backbone)


def backbone_weights(model: nn.Module, network: Network | None = None) -> dict[str, Tensor]:
    """timm's network under its own names, or the ResNet of a detector (C4, FPN, RetinaNet) under torchvision's.

    Raises:
        ConversionError: the model has no such network where these have it.
    """
    model = unwrapped(model)
    if network:
        maps = next(module for module in model.backbone.modules() if isinstance(module, TimmMaps))
        return hashed_weights(maps.net.state_dict(), network)
    bottom_up = bottom_up_of(model).state_dict()
    res5 = getattr(getattr(model, "roi_heads", None), "res5", None)
    if res5:  # C4 keeps the last stage in the head; its extra norm is no part of the ResNet
        last = res5.state_dict()
        bottom_up |= {f"res5.{name}": value for name, value in last.items() if name[0].isdigit()}
    if not bottom_up:
        raise ConversionError("the model has no backbone weights to compare")
    return {DETECTRON2.to_canonical(name): value.cpu() for name, value in bottom_up.items()}


def check_backbone_arrived(model: nn.Module, origin: Origin, network: Network | None = None) -> None:
    """:func:`~slotcon_plugin.transfer.backbone.check_arrived` for a detectron2 model."""
    if origin.sha256 is not None:
        check_arrived(backbone_weights(model, network), origin)
