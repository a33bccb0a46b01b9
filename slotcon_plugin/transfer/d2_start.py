"""Where a run of detectron2 begins: with which weights, or at which step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from slotcon_plugin.convert import check_compatible, read_checkpoint
from slotcon_plugin.convert.writers.detectron2 import network_of_config
from slotcon_plugin.engine.batch import BatchPlan
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_text
from slotcon_plugin.transfer.backbone import RANDOM, Origin, prepare_backbone
from slotcon_plugin.transfer.checkpoint import IMAGES, PASSES, TransferCheckpoint


def identity_of(cfg: CfgNode, backbone: str | None, resume: bool) -> dict[str, Any]:
    """Seed and first weights of a run; None where a resumed run's own is to be taken."""
    first_weights = None if resume else RANDOM.pretraining
    if backbone and not (resume and not Path(backbone).exists()):
        first_weights = read_checkpoint(backbone, network=network_of_config(cfg)).meta["backbone_sha256"]
    seed = cfg.SEED if cfg.SEED >= 0 else (None if resume else 0)
    return {"seed": seed, "backbone": first_weights}


def use_backbone(cfg: CfgNode, backbone: str | None, pretraining: str | None, fpn: bool = True) -> Origin:
    """Convert and prove, once and before processes are started."""
    output = Path(cfg.OUTPUT_DIR)
    as_run = output / "transfer_config.yaml"
    write_text(as_run, cfg.dump())
    weights, network = output / "backbone.pkl", network_of_config(cfg)
    origin, meta = prepare_backbone(backbone, weights, "detectron2", as_run, pretraining, network, fpn)
    cfg.MODEL.WEIGHTS = str(origin.file or "")
    if origin.file:
        check_compatible(meta, **input_convention(cfg))
    return origin


def input_convention(cfg: CfgNode) -> dict[str, Any]:
    """What a config's network sees and is built like: arguments of :func:`~slotcon_plugin.convert.check_compatible`."""
    convention = {"colour_order": cfg.INPUT.FORMAT, "mean": cfg.MODEL.PIXEL_MEAN, "std": cfg.MODEL.PIXEL_STD}
    if network_of_config(cfg) is None:
        convention["stride_in_1x1"] = cfg.MODEL.RESNETS.STRIDE_IN_1X1
    return convention


def build_on_cpu(cfg: CfgNode) -> torch.nn.Module:
    """A config's model, wherever it is to be trained."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "cpu"
    return build_model(cfg)


def step_of(cfg: CfgNode, plan: BatchPlan) -> dict[str, int]:
    """What a position is counted in: detectron2 counts steps of the optimiser, not passes, and scales them itself."""
    return {PASSES: 1, IMAGES: round(cfg.SOLVER.IMS_PER_BATCH * plan.lr_factor)}


def is_finished(checkpoint: TransferCheckpoint, steps: int) -> bool:
    """Whether a run has made all of its ``steps``.

    Raises:
        UserError: it has made more, and would tell of a length that its weights do not have.
    """
    if checkpoint.steps is not None and checkpoint.steps > steps:
        raise UserError(
            f"cannot resume {checkpoint.path}: it has made {checkpoint.steps} steps, and SOLVER.MAX_ITER asks for "
            f"{steps}. Give the length that it was started with, or more; a shorter run needs an OUTPUT_DIR of its own"
        )
    return checkpoint.steps == steps
