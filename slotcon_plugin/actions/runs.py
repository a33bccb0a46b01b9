"""What a pretraining has made, and how it is found again from its work dir."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slotcon_plugin.checkpoints import runs
from slotcon_plugin.checkpoints.runs import locate
from slotcon_plugin.errors import UserError


@dataclass(frozen=True)
class Pretrained:
    """A pretraining that has ended.

    Attributes:
        work_dir: where all of it lies.
        checkpoint: the last one, with all branches and heads; :func:`slotcon_plugin.export` takes the backbone out.
        config: of the run, complete.
        method: ``'slotcon'``.
        title: for people: ``'SlotCon'``, or ``'ImageNet, then SlotCon on 2,915 photos'``.
        photos: how many it has learned from.
        epochs: that it ran; of a run that its budget has ended early, fewer than planned.
    """

    work_dir: Path
    checkpoint: Path
    config: Path
    method: str
    title: str
    photos: int
    epochs: float


Run = Pretrained | str | Path
"""A pretraining as functions take it: what :func:`slotcon_plugin.pretrain` gave, its work dir, or a checkpoint file.

Also ``torchvision://resnet50`` and ``detectron2://...``, see :func:`slotcon_plugin.checkpoints.runs.locate`.
"""


def checkpoint_of(run: Run) -> Path:
    """The checkpoint that is meant: of a work dir the newest whole one, of a model zoo's name the file in its cache.

    Raises:
        UserError: there is none.
    """
    if isinstance(run, Pretrained):
        return run.checkpoint
    path = locate(run)
    if not path.is_file():
        raise UserError(f"there is no checkpoint or work dir {run}")
    return path


def config_of(run: Run) -> Path:
    """The config that a run has left in its work dir.

    Raises:
        UserError: there is none.
    """
    return run.config if isinstance(run, Pretrained) else runs.config_of(run)


def own_config(run: Run) -> Path | None:
    """:func:`config_of` a run; None of a single checkpoint: it may be anybody's."""
    return config_of(run) if isinstance(run, Pretrained) or Path(run).is_dir() else None
