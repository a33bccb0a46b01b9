"""From a pretraining checkpoint to the weights of a transfer run: converted, proved, and seen to arrive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import Tensor

from slotcon_plugin.convert import ConversionError, convert
from slotcon_plugin.convert.canonical import backbone_sha256


class Origin(NamedTuple):
    """Where a run's backbone comes from, as its result file will say.

    Attributes:
        pretraining: ``slotcon``, ``moco``, ... or ``random``.
        sha256: of the backbone's weights at the start; None = random initialisation.
        file: converted weights, None = random initialisation.
    """

    pretraining: str
    sha256: str | None
    file: Path | None


RANDOM = Origin("random", None, None)


def prepare_backbone(
    checkpoint: str | Path | None, out: Path, target: str, config: Path, name: str | None = None
) -> tuple[Origin, dict[str, Any]]:
    """Convert ``checkpoint`` for ``target`` with the proof made on the backbone that ``config`` builds.

    Args:
        checkpoint: of any kind that the converters read; None = random initialisation.
        out: where the converted weights go.
        target: ``mmdet``, ``mmseg`` or ``detectron2``.
        config: the transfer config as it will run.
        name: what to call the pretraining in tables; None = the method that made the checkpoint.

    Returns:
        The origin and the conversion's metadata (empty for random initialisation).

    Raises:
        ConversionError: no such file, wrong kind, or the proof failed.
    """
    if checkpoint is None:
        if name not in (None, RANDOM.pretraining):
            raise ConversionError(f"pretraining is called {name!r}, but no backbone is given (--backbone CKPT)")
        return RANDOM, {}
    if not Path(checkpoint).is_file():
        raise ConversionError(f"backbone {checkpoint} does not exist")
    meta = convert(checkpoint, out, target, config=str(config), overwrite=True)
    if meta["fpn"]:
        print_log("The checkpoint's FPN carries over", "current")
    elif "fpn_left_out" in meta:
        print_log(f"The checkpoint's FPN does not carry over: {meta['fpn_left_out']}", "current")
    return Origin(name or meta["method"], meta["backbone_sha256"], out), meta


def check_arrived(state_dict: Mapping[str, Tensor], origin: Origin) -> None:
    """The network about to be trained holds exactly the weights that were converted.

    Args:
        state_dict: of the network's backbone, under torchvision's names.
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
