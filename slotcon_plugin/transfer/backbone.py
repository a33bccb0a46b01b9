"""From a pretraining checkpoint to the weights of a transfer run: converted, proved, and seen to arrive."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import Tensor, nn

from slotcon_plugin import results
from slotcon_plugin.convert import convert
from slotcon_plugin.convert.canonical import backbone_sha256
from slotcon_plugin.convert.decoders import DECODERS
from slotcon_plugin.convert.metadata import started_from
from slotcon_plugin.convert.names import TIMM_BACKBONE
from slotcon_plugin.convert.network import Network, network_of_backbone
from slotcon_plugin.errors import ConversionError, UserError
from slotcon_plugin.results import is_random


class Origin(NamedTuple):
    """Where a run's backbone comes from, as its result file will say.

    Attributes:
        pretraining: ``slotcon``, ``moco``, ..., ``random`` or ``unknown``; ``ImageNet, then VADeR on 2,915 photos``.
        sha256: of the backbone's weights at the start; None = random initialisation, or unknown.
        file: converted weights, None = no conversion was made.
        told: of a pretraining that itself started from weights: its ``title``, and what it started from, ``init``.
        fpn: whether a decoder of the checkpoint's was to come along.
    """

    pretraining: str
    sha256: str | None
    file: Path | None
    told: Mapping[str, Any] = MappingProxyType({})
    fpn: bool = True

    def __str__(self) -> str:
        return f"{self.pretraining}, sha256 {self.sha256[:12]}" if self.sha256 else f"{self.pretraining} weights"


FROM_RANDOM = Origin(results.RANDOM, None, None)


def measured_as(task: str, fpn: bool) -> str:
    """Name of a result's task: with decoders left behind it is another column of a table."""
    return task if fpn else f"{task}_no_fpn"


def prepare_backbone(
    checkpoint: str | Path | None,
    out: Path,
    target: str,
    config: Path,
    name: str | None = None,
    network: Network | None = None,
    fpn: bool = True,
) -> tuple[Origin, dict[str, Any]]:
    """Convert ``checkpoint`` for ``target`` with the proof made on the backbone that ``config`` builds.

    Args:
        checkpoint: of any kind that the converters read; None = random initialisation.
        out: where the converted weights go.
        target: ``mmdet``, ``mmseg`` or ``detectron2``.
        config: the transfer config as it will run.
        name: what to call the pretraining in tables; None = what the checkpoint says of itself.
        network: that the config builds, if it is one of timm's.
        fpn: whether a decoder goes with the backbone, where it fits.

    Returns:
        The origin and the conversion's metadata (empty for random initialisation).

    Raises:
        UserError: a name without a checkpoint.
        ConversionError: no such file, wrong kind, or the proof failed.
    """
    if checkpoint is None:
        if name and not is_random(name):
            raise UserError(f"pretraining is called {name!r}, but no backbone is given (--backbone CKPT)")
        return FROM_RANDOM._replace(pretraining=name or FROM_RANDOM.pretraining), {}
    meta = convert(checkpoint, out, target, config=str(config), overwrite=True, fpn=fpn, network=network)
    for part, kind in DECODERS.items():
        if meta[part]:
            print_log(f"The checkpoint's {kind.title} carries over", "current")
        elif f"{part}_left_out" in meta:
            print_log(f"The checkpoint's {kind.title} does not carry over: {meta[f'{part}_left_out']}", "current")
    told = started_from(meta)
    return Origin(name or told.get("title") or meta["method"], meta["backbone_sha256"], out, told, fpn), meta


def require_checkpoint_to_leave_behind(fpn: bool, backbone: str | Path | None, resume: bool | str) -> None:
    """``--no-fpn`` is about a checkpoint's decoder.

    Raises:
        UserError: it was asked for, and there is no checkpoint.
    """
    if not fpn and not backbone and not resume:
        raise UserError("--no-fpn leaves out the decoder of a checkpoint, and no backbone is given (--backbone CKPT)")


def require_start(work_dir: str | Path, backbone: str | Path | None, name: str | None) -> None:
    """A run that was to be resumed and has no checkpoint begins anew, but from random weights only if they are meant.

    Raises:
        UserError: no backbone is given, and the pretraining is not called ``random``.
    """
    if not backbone and not is_random(name or ""):
        raise UserError(
            f"--resume: there is no checkpoint in {work_dir}, and no --backbone to begin with. Give one, or "
            "--pretraining random if random weights are meant"
        )


def timm_network(backbone: Mapping[str, Any]) -> Network | None:
    """The network of timm's that an mm config builds; None if it is another, which the checkpoint's keys tell."""
    network = network_of_backbone(backbone)
    return network if network and network.library == "timm" else None


def hashed_weights(state_dict: Mapping[str, Tensor], network: Network | None) -> dict[str, Tensor]:
    """What a backbone's hash is made of, under the names that it is made of.

    Args:
        state_dict: of a backbone as mmdet and mmseg hold it, or of a ``TimmBackbone`` anywhere.
        network: of timm's, whose weights behind the last map do not count; None = a ResNet under torchvision's names.
    """
    if network is None:
        return dict(state_dict)
    return {name: state_dict[TIMM_BACKBONE.to_target(name)] for name in network.shapes}


def check_arrived(state_dict: Mapping[str, Tensor], origin: Origin) -> None:
    """The network about to be trained holds exactly the weights that were converted.

    Args:
        state_dict: of the network's backbone, under the names that the hash was made of.
        origin: of the run.

    Raises:
        ConversionError: it holds others; the framework loaded nothing, or not all.
    """
    if origin.sha256 is None:
        return
    found = backbone_sha256(state_dict)
    if found != origin.sha256:
        raise ConversionError(
            f"the network's backbone does not hold the weights of {origin.file}: sha256 {found[:12]} instead of "
            f"{origin.sha256[:12]}. Something after the conversion replaced them or loaded only a part."
        )


def frozen_parts(backbone: nn.Module) -> str:
    """What of a backbone in training mode does not learn, in words; empty if all of it does."""
    still = {name.partition(".")[0]: None for name, p in backbone.named_parameters() if not p.requires_grad}
    norms = [module for module in backbone.modules() if hasattr(module, "running_mean")]
    fixed = [norm for norm in norms if not norm.training or "weight" in dict(norm.named_buffers(recurse=False))]
    parts = [f"the parameters of {', '.join(still)}"] if still else []
    parts += [f"the statistics of {len(fixed)} of {len(norms)} norm layers"] if fixed else []
    return " and ".join(parts)


def warn_of_untaught_norms(backbone: nn.Module) -> None:
    """Say that a backbone of random weights is trained by a recipe for weights that are good already."""
    if parts := frozen_parts(backbone):
        print_log(
            f"The backbone starts from random weights, and {parts} in it stay as they are, which is for weights that "
            "are good already: model.backbone.norm_eval=False lets BatchNorm learn its statistics, and "
            "optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=1.0 lets the backbone learn as fast as the heads",
            "current",
            logging.WARNING,
        )


def warn_of_frozen_parts(backbone: nn.Module, cure: str) -> None:
    """Say once that a recipe trains less than the papers do. ``cure``: the settings that train all."""
    if parts := frozen_parts(backbone):
        print_log(
            f"{parts[0].upper()}{parts[1:]} in the backbone stay as they are (the framework's default). The papers "
            f"fine-tune the whole backbone with SyncBN, and so do the configs in configs/transfer: {cure}",
            "current",
            logging.WARNING,
        )
