"""Run mmdet and mmsegmentation configs from a pretrained backbone, on any number of processes."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from slotcon_plugin.apis import start_processes
from slotcon_plugin.convert import check_compatible
from slotcon_plugin.engine import RunStampHook, allow_checkpoint_classes, claim_work_dir, shared
from slotcon_plugin.engine.batch import fit_batch
from slotcon_plugin.engine.cpu import keep_freed_memory
from slotcon_plugin.transfer.backbone import RANDOM, Origin, prepare_backbone
from slotcon_plugin.transfer.mm_data import check_data, relocate
from slotcon_plugin.transfer.mm_hooks import TransferRun

SCOPES = ("mmdet", "mmseg")


def is_transfer_config(cfg: Config) -> bool:
    """Whether a config is one of mmdet's or mmseg's."""
    return cfg.get("default_scope") in SCOPES


def train(
    cfg: Config,
    backbone: str | None = None,
    data_root: str | None = None,
    batch_mode: str | None = None,
    pretraining: str | None = None,
    resume: bool | str = False,
    overwrite: bool = False,
) -> Runner:
    """Fine-tune as the config says, evaluate, leave ``result.json`` in the work dir.

    Args:
        cfg: with ``work_dir`` set.
        backbone: checkpoint of any kind that the converters read; None = random initialisation.
        data_root: where the data sets lie, if not where the config says.
        batch_mode: takes the place of the config's, see :func:`~slotcon_plugin.engine.batch.fit_batch`.
        pretraining: what to call the backbone in tables; None = the checkpoint's kind.
        resume: True = from the newest whole checkpoint in the work dir, or a checkpoint's path.
        overwrite: set a used work dir aside.

    Raises:
        ValueError: missing data, class counts that disagree, a batch that cannot be split, a work dir in use.
        ConversionError: the checkpoint is of another kind, or does not fit the config.
    """
    recipe = _prepare(cfg, data_root)
    cfg.randomness = {"seed": 0, **(cfg.get("randomness") or {})}
    identity = {"task": task_name(cfg), "seed": cfg.randomness["seed"]}
    claim = claim_work_dir(cfg.work_dir, identity, resume, overwrite)
    processes = start_processes(cfg)
    fit_batch(cfg, processes, batch_mode)
    claim = shared(claim)
    origin = RANDOM
    if claim.checkpoint:
        cfg.resume, cfg.load_from = True, str(claim.checkpoint)
    else:
        origin = use_backbone(cfg, backbone, pretraining)
    if processes > 1 and not torch.cuda.is_available():
        print_log("No GPU: SyncBN works on GPUs alone, each process normalises its own images", "current")
        _replace_sync_bn(cfg.model)
    if not torch.cuda.is_available():
        keep_freed_memory()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(TransferRun(task_name(cfg), recipe, origin, cfg.randomness["seed"]))
    runner.register_hook(RunStampHook(claim.run))
    runner.train()
    return runner


def evaluate(cfg: Config, checkpoint: str, data_root: str | None = None) -> dict[str, float]:
    """Evaluate a checkpoint of a transfer run on the config's test set; leave ``test_result.json`` in the work dir.

    Raises:
        ValueError: missing data, class counts that disagree.
    """
    recipe = _prepare(cfg, data_root)
    if start_processes(cfg) > 1 and not torch.cuda.is_available():
        _replace_sync_bn(cfg.model)
    cfg.load_from = checkpoint
    cfg.model.pop("pretrained", None)
    cfg.model.backbone.init_cfg = None
    runner = Runner.from_cfg(cfg)
    runner.register_hook(TransferRun(task_name(cfg), recipe, RANDOM, 0))
    return runner.test()


def task_name(cfg: Config) -> str:
    """``mmseg_fcn_r50_cityscapes``: the column that a result belongs to."""
    return f"{cfg.default_scope}_{Path(cfg.filename).stem}"


def _prepare(cfg: Config, data_root: str | None) -> Config:
    """Everything that can be wrong is found here; returns the recipe as it was given."""
    allow_checkpoint_classes()
    recipe = copy.deepcopy(cfg)
    init_default_scope(cfg.default_scope)
    if data_root:
        relocate(cfg, data_root)
    check_data(cfg)
    return recipe


def use_backbone(cfg: Config, checkpoint: str | None, pretraining: str | None) -> Origin:
    """Convert, prove and put into the config; the config's own ``init_cfg`` may name the checkpoint too.

    Raises:
        ConversionError: no such file, wrong kind, failed proof, or another input convention than the config's.
    """
    model = cfg.model
    older_spelling = model.pop("pretrained", None)  # mmseg's, which would win over init_cfg
    checkpoint = checkpoint or (model.backbone.get("init_cfg") or {}).get("checkpoint") or older_spelling
    work_dir = Path(cfg.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    as_run = work_dir / "transfer_config.py"
    partial = work_dir / f".{os.getpid()}.transfer_config.py"  # every process writes it; none may read half of it
    partial.write_text(cfg.pretty_text, encoding="utf-8")
    partial.replace(as_run)
    origin, meta = prepare_backbone(checkpoint, work_dir / "backbone.pth", cfg.default_scope, as_run, pretraining)
    model.backbone.init_cfg = None
    if origin.file:
        check_compatible(meta, **input_convention(model))
        model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": str(origin.file)}
        if meta["fpn"]:
            model.neck.init_cfg = {"type": "Pretrained", "checkpoint": str(origin.file), "prefix": "neck."}
    return origin


def input_convention(model: dict[str, Any]) -> dict[str, Any]:
    """What a config's network sees and is built like: arguments of :func:`~slotcon_plugin.convert.check_compatible`."""
    pixels, backbone = model["data_preprocessor"], model["backbone"]
    deep = backbone.get("deep_stem") or backbone["type"] in ("ResNetV1c", "ResNetV1d")
    return {
        "colour_order": "RGB" if pixels.get("bgr_to_rgb") else "BGR",  # images are loaded as BGR
        "mean": pixels["mean"],
        "std": pixels["std"],
        "stem": "deep" if deep else "7x7",
        "stride_in_1x1": backbone.get("style", "pytorch") == "caffe",
    }


def _replace_sync_bn(section: Any) -> None:
    if isinstance(section, dict):
        if section.get("type") == "SyncBN":
            section["type"] = "BN"
        for value in section.values():
            _replace_sync_bn(value)
    elif isinstance(section, (list, tuple)):
        for value in section:
            _replace_sync_bn(value)


__all__ = ["evaluate", "is_transfer_config", "task_name", "train", "use_backbone"]
