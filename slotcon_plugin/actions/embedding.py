"""Embeddings by a pretraining, or by any weights that are known, in one call."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from slotcon_plugin.actions.runs import Run, checkpoint_of, own_config
from slotcon_plugin.actions.settings import defaults_of, require_settings
from slotcon_plugin.embedding import Embeddings, check_out, embed_photos
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.arms import load_backbone
from slotcon_plugin.photos import collect_photos

Boxes = Mapping[str, Sequence[Sequence[float]]]


def embed(
    run: Run,
    photos: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    level: str = "photo",
    *,
    overwrite: bool = False,
    grid: tuple[int, int] | None = None,
    boxes: str | Path | Boxes | None = None,
    limit: int | None = None,
    config: str | Path | None = None,
    branch: str | None = None,
    decoder: bool = False,
    network: str | None = None,
    **settings: Any,
) -> Embeddings:
    """Embed photos, crops of them, or every position of their feature maps.

    Args:
        run: what :func:`slotcon_plugin.pretrain` gave, a work dir, or weights of any known kind.
        photos: a folder, a photo, or several of either.
        out: file to write, ``.npz`` or ``.parquet``; None writes none.
        level: ``'photo'``, ``'crop'`` (cells of ``grid``, or ``boxes``) or ``'pixel'``.
        overwrite: replace ``out`` if it exists.
        grid: crops: (rows, columns) of them; None = 3 x 3.
        boxes: crops: path of a photo -> boxes x0, y0, x1, y1 in its pixels; or a COCO annotation file, whose photos
            are then those that are embedded, looked for below ``photos``; those that are not there are left out.
        limit: embed only so many photos, spread evenly; with ``boxes`` so many of those that have some.
        config: of the run, to take a single checkpoint's network as it was trained; a work dir brings it.
        branch: ``'teacher'`` or ``'student'``; None = what the method transfers.
        decoder: append the decoder's map to the stage maps; take it with ``stages=[-1]`` (VADeR).
        network: timm's name of the network in a file of somebody else's.
        settings: ``stages``, ``short_side``, ``batch_size``, ``device``, ``dtype``, see
            :func:`slotcon_plugin.embedding.embed_photos`.

    Raises:
        UserError: weights or photos that cannot be used; a setting that there is none; a file that cannot be written.
    """
    require_settings("embed", settings, defaults_of(embed_photos) | defaults_of(embed))
    if out:
        check_out(out)
        if Path(out).exists() and not overwrite:
            raise UserError(f"{out} exists: give another name, or --overwrite (overwrite=True) to replace it")
    for name, value in (("boxes", boxes), ("grid", grid)):
        if value is not None and level != "crop":
            raise UserError(f"{name}: for level 'crop', and the level asked for is {level!r}")
    if isinstance(boxes, (str, Path)):
        boxes = _of_coco(Path(boxes), photos)
        paths = list(boxes)
    else:
        paths = collect_photos([photos] if isinstance(photos, (str, Path)) else photos)
        boxes = {os.path.normpath(path): value for path, value in boxes.items()} if boxes is not None else None
        # a limit counts photos that have boxes; of none at all embed_photos says what is wrong
        paths = [path for path in paths if boxes and os.path.normpath(path) in boxes] or paths
    paths = collect_photos(paths, limit)
    loaded = load_backbone(
        checkpoint_of(run), config or own_config(run), branch=branch, decoder=decoder, network=network
    )
    embeddings = embed_photos(loaded.backbone, paths, level, grid=grid or (3, 3), boxes=boxes, **settings)
    if out:
        embeddings.save(out)
    return embeddings


def _of_coco(file: Path, root: str | Path | Sequence[str | Path]) -> dict[str, list[list[float]]]:
    """Boxes of a COCO annotation file by the paths of its photos; left out are photos without a box, and those that are
    not below the folder: parts of a data set come with the annotations of all of it.
    """
    if not isinstance(root, (str, Path)) or not Path(root).is_dir():
        raise UserError(f"photos: with boxes from {file} expected the one folder that its file names are below")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {image["id"]: str(Path(root) / image["file_name"]) for image in content["images"]}
        found: dict[str, list[list[float]]] = {}
        for annotation in content["annotations"]:
            x, y, width, height = annotation["bbox"]
            if width > 0 and height > 0:
                found.setdefault(names[annotation["image_id"]], []).append([x, y, x + width, y + height])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"boxes: {file} is no COCO annotation file with boxes: {error!r}") from error
    if not found:
        raise UserError(f"boxes: {file} has no box")
    there = {path: boxes for path, boxes in found.items() if Path(path).is_file()}
    if not there:
        raise UserError(
            f"boxes: none of the {len(found):,} photos of {file} is below {root}: no {next(iter(found))}, ..."
        )
    if absent := len(found) - len(there):
        print_log(
            f"boxes: left out {absent:,} of {len(found):,} photos of {file} that are not below {root}",
            "current",
            logging.WARNING,
        )
    return there
