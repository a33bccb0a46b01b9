"""Pictures of what a pretraining has learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from slotcon_plugin.actions.runs import Pretrained, Run, checkpoint_of, config_of
from slotcon_plugin.actions.settings import defaults_of, require_settings
from slotcon_plugin.errors import UserError
from slotcon_plugin.loading import load_pretrainer
from slotcon_plugin.photos import collect_photos
from slotcon_plugin.visualization.run import plot_run, visualize_groups, visualize_prototypes, visualize_retrieval
from slotcon_plugin.visualization.write import require_picture_path

KINDS = {
    "curves": "losses, live prototypes, teacher entropy, ... of one run or several; needs no photos",
    "groups": "photos beside their segments by prototype (SlotCon)",
    "prototypes": "for each prototype the segments nearest to it (SlotCon)",
    "retrieval": "points of one photo and where another shows the same (VADeR, DenseCL); takes two photos",
}


def look(
    run: Run,
    photos: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    kind: str | None = None,
    **settings: Any,
) -> Path:
    """Draw what a pretraining has learned.

    Args:
        run: what :func:`slotcon_plugin.pretrain` gave, a work dir, or a checkpoint beside its config.
        photos: photos, or folders of them; for ``'curves'`` work dirs of further runs, to compare.
        out: picture (``.png``) or page (``.html``) to write; None = ``KIND.html`` in the work dir.
        kind: a key of :data:`KINDS`; None = ``'curves'`` without photos, ``'groups'`` if the method has prototypes,
            else ``'retrieval'``.
        settings: of the function in :mod:`slotcon_plugin.visualization.run` that draws this kind.

    Returns:
        The file written.

    Raises:
        UserError: no such kind or setting, the method cannot do it, or a file that cannot be written.
    """
    photos = [str(p) for p in ([photos] if isinstance(photos, (str, Path)) else photos)]
    if kind is None and not photos:
        kind = "curves"
    if kind not in (None, *KINDS):
        raise UserError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if kind != "curves" and not photos:
        raise UserError(f"photos: to draw {kind}, give photos or folders of them")
    if out:
        require_picture_path(out)
    if kind == "curves":
        require_settings(kind, settings, defaults_of(plot_run))
        work_dir = run.work_dir if isinstance(run, Pretrained) else Path(run)
        if work_dir.is_file():  # a checkpoint
            work_dir = work_dir.parent
        return plot_run([str(work_dir), *photos], str(out or work_dir / "curves.html"), **settings)
    checkpoint, config = checkpoint_of(run), config_of(run)
    if kind is None:
        kind = "groups" if load_pretrainer(config, checkpoint).method.groups else "retrieval"
    draw = {"groups": visualize_groups, "prototypes": visualize_prototypes, "retrieval": visualize_retrieval}[kind]
    require_settings(kind, settings, defaults_of(draw))
    if kind == "retrieval":
        first, *rest = collect_photos(photos)
        photos = [first, (rest or [first])[0]]
        print_log(f"Points of {photos[0]}, looked for in {photos[1]}", "current")
    return draw(str(config), str(checkpoint), photos, str(out or checkpoint.parent / f"{kind}.html"), **settings)
