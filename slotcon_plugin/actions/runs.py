"""What a pretraining has made, and how it is found again from its work dir."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slotcon_plugin.engine.checkpoint import numbered_checkpoints
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import zip_damage


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
        epochs: that it ran.
    """

    work_dir: Path
    checkpoint: Path
    config: Path
    method: str
    title: str
    photos: int
    epochs: int


Run = Pretrained | str | Path
"""A pretraining as functions take it: what :func:`slotcon_plugin.pretrain` gave, its work dir, or a checkpoint file."""


def checkpoint_of(run: Run) -> Path:
    """The checkpoint that is meant: of a work dir the newest whole one.

    Raises:
        UserError: there is none.
    """
    if isinstance(run, Pretrained):
        return run.checkpoint
    path = Path(run)
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"there is no checkpoint or work dir {run}")
        return path
    found = [file for file in numbered_checkpoints(path) if zip_damage(file) is None]
    if not found:
        raise UserError(f"the folder {run} holds no whole checkpoint (iter_N.pth or epoch_N.pth)")
    return found[0]


def config_of(run: Run) -> Path | None:
    """The config that a run has left beside its checkpoint, the newest if there are several; None without one."""
    if isinstance(run, Pretrained):
        return run.config
    folder = Path(run) if Path(run).is_dir() else Path(run).parent
    return max(folder.glob("*.py"), key=lambda file: file.stat().st_mtime, default=None)


def required_config(run: Run) -> Path:
    """:func:`config_of`, for what cannot do without.

    Raises:
        UserError: there is none.
    """
    if config := config_of(run):
        return config
    raise UserError(
        f"{run}: no config (.py) beside the checkpoint; expected the work dir of a pretraining, which has one"
    )
