"""The backbone of a pretraining, in the format of the framework that goes on with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slotcon_plugin.actions.runs import Pretrained, Run, checkpoint_of
from slotcon_plugin.actions.settings import defaults_of, require_settings
from slotcon_plugin.convert import convert
from slotcon_plugin.convert.summary import summary
from slotcon_plugin.convert.writers import TARGETS
from slotcon_plugin.errors import UserError


@dataclass(frozen=True)
class Exported:
    """A backbone that was proved and written; ``str()`` tells all of it.

    Attributes:
        path: the file.
        target: format.
        metadata: what also stands in the file, see :mod:`slotcon_plugin.convert.metadata`.
    """

    path: Path
    target: str
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        return summary(str(self.path), self.metadata)


def export(
    run: Run, out: str | Path | None = None, target: str = "torchvision", *, overwrite: bool = False, **options: Any
) -> Exported:
    """Convert the backbone of a pretraining, or of any checkpoint that is known, having proved that it arrives intact.

    Args:
        run: what :func:`slotcon_plugin.pretrain` gave, a work dir, a checkpoint of any known kind, or a zoo's name
            (``torchvision://resnet50``) already downloaded to that library's cache.
        out: file to write; its suffix is the target's. None = ``backbone_TARGET`` in the run's work dir.
        target: ``'detectron2'``, ``'mmdet'``, ``'mmseg'``, ``'timm'`` or ``'torchvision'``.
        overwrite: whether ``out`` may exist.
        options: ``branch``, ``network``, ``kind``, ``prefix``, ``fpn``, ``config``, ``declared``, see
            :func:`slotcon_plugin.convert.convert`.

    Raises:
        UserError: an unknown target or option.
        ConversionError: unreadable or unknown source, unfit suffix, or a proof that failed; nothing is written.
    """
    require_settings("export", options, defaults_of(convert))
    if target not in TARGETS:
        raise UserError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    checkpoint = checkpoint_of(run)
    if out is None:
        if not (isinstance(run, Pretrained) or Path(run).is_dir()):
            raise UserError("out: say where to write what comes from a single checkpoint")
        out = checkpoint.parent / f"backbone_{target}{TARGETS[target].suffixes[0]}"
    return Exported(Path(out), target, convert(checkpoint, out, target, overwrite=overwrite, **options))
