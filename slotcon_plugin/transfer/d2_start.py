"""Where a run of detectron2 begins: with which weights, or at which step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from slotcon_plugin.checkpoints.runs import locate
from slotcon_plugin.convert import check_compatible, read_checkpoint
from slotcon_plugin.convert.metadata import UNKNOWN
from slotcon_plugin.convert.writers.detectron2 import network_of_config
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_text
from slotcon_plugin.transfer.backbone import FROM_RANDOM, Origin, prepare_backbone
from slotcon_plugin.transfer.checkpoint import TransferCheckpoint, check_whole, read_transfer_checkpoint


class FirstWeights(NamedTuple):
    """What a run is to begin with.

    Attributes:
        path: file or work dir; None = random weights.
        detector: what is in it, if it is a whole detector of the config's kind, and not asked for as a backbone.
    """

    path: str | Path | None
    detector: TransferCheckpoint | None = None


def first_weights(cfg: CfgNode, backbone: str | None, resume: bool) -> FirstWeights:
    """The backbone that was asked for; if none was, what MODEL.WEIGHTS names, which may hold more than a backbone.

    Raises:
        UserError: there is no such file, or none with weights; a run that is resumed does not need it any more.
    """
    path = backbone or cfg.MODEL.WEIGHTS
    if backbone or not path or (resume and not Path(path).exists()):
        return FirstWeights(path or None)
    given = read_transfer_checkpoint(locate(path))
    heads = (name for name in build_on_cpu(cfg).state_dict() if not name.startswith("backbone."))
    return FirstWeights(given.path, given) if any(name in given.weights for name in heads) else FirstWeights(path)


def identity_of(cfg: CfgNode, weights: str | Path | None, resume: bool) -> dict[str, Any]:
    """Seed and first weights of a run; None where a resumed run's own is to be taken."""
    first_weights = None if resume else FROM_RANDOM.pretraining
    if weights and not (resume and not Path(weights).exists()):
        first_weights = read_checkpoint(weights, network=network_of_config(cfg)).meta["backbone_sha256"]
    seed = cfg.SEED if cfg.SEED >= 0 else (None if resume else 0)
    return {"seed": seed, "backbone": first_weights}


def use_weights(cfg: CfgNode, first: FirstWeights, pretraining: str | None, fpn: bool = True) -> Origin:
    """Have a run begin with its first weights: a backbone converted and proved, a detector as it is.

    Of a detector's heads detectron2 takes what fits, as for other classes, and logs the rest.

    Raises:
        UserError: a detector's backbone or pyramid is not the config's.
        ConversionError: a backbone that does not fit; weights that are known to want other pixels.
    """
    if first.detector is None:
        return use_backbone(cfg, first.path, pretraining, fpn)
    check_whole(build_on_cpu(cfg), first.detector, "backbone.")
    cfg.MODEL.WEIGHTS = str(first.path)
    meta = read_checkpoint(first.path, network=network_of_config(cfg)).meta
    # a detector's file seldom says which pixels it wants; they are then the config's, as detectron2 has it
    known = {name: value for name, value in input_convention(cfg).items() if meta[name] != UNKNOWN}
    check_compatible(meta, **known)
    return first.detector.origin(pretraining)._replace(sha256=meta["backbone_sha256"], file=Path(first.path), fpn=True)


def use_backbone(cfg: CfgNode, backbone: str | Path | None, pretraining: str | None, fpn: bool = True) -> Origin:
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
