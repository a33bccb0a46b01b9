"""Make a folder of demo scenes, all or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from slotcon_plugin.demo_scenes.layouts import WRITERS
from slotcon_plugin.demo_scenes.objects import hsv
from slotcon_plugin.demo_scenes.render import CLASSES, Scene, render_scene
from slotcon_plugin.errors import UserError

MARKER = "demo_scenes.json"
VERSION = 1  # raise it when the same parameters give other pictures or masks; folders of the old one are then refused
_SPLIT_STRIDE = 1_000_000  # scenes a split may have; fixed, so that more training scenes leave val as it is
_SPLITS = ("train", "val", "test")


def default_splits(num_images: int, layout: str) -> dict[str, int]:
    """Share `num_images` out: a fifth (at least one) to val, for CamVid a fifth to test as well, the rest to train."""
    others = ("val", "test") if layout == "camvid" else ("val",)
    share = max(num_images // 5, 1)
    if num_images <= share * len(others):
        raise UserError(f"num_images: expected more than {len(others)}, one for each split, got {num_images}")
    return {"train": num_images - share * len(others), **dict.fromkeys(others, share)}


def make_demo_scenes(
    out_dir: str | Path,
    num_images: int | Mapping[str, int] = 250,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    layout: str = "plain",
) -> Path:
    """Write scenes with their ground truth, in the layout that a framework expects.

    The scenes are made beside `out_dir` and moved there when all are written, with the marker `demo_scenes.json`
    inside: a folder that exists is whole. A folder that was made with the same parameters is kept as it is.

    Args:
        out_dir: the dataset's root; must not exist, be empty, or be an earlier result.
        num_images: scenes in all (see `default_splits`), or scenes a split, such as ``{'train': 80, 'val': 20}``.
        size: (width, height) in pixels.
        seed: another seed gives other scenes.
        layout: a key of `WRITERS`.

    Returns:
        `out_dir`.

    Raises:
        UserError: unknown layout or split, a count below one, or `out_dir` holds something else.
    """
    out_dir = Path(out_dir)
    if layout not in WRITERS:
        raise UserError(f"layout: expected one of {', '.join(WRITERS)}, got {layout!r}")
    write, known_splits = WRITERS[layout]
    splits = default_splits(num_images, layout) if isinstance(num_images, int) else dict(num_images)
    for split, count in splits.items():
        if split not in known_splits or not 1 <= count < _SPLIT_STRIDE:
            expected = (
                f"splits among {', '.join(known_splits)} ({layout} layout), each of 1 to {_SPLIT_STRIDE - 1} scenes"
            )
            raise UserError(f"num_images: expected {expected}; got {split!r}: {count}")
    parameters = {"version": VERSION, "layout": layout, "splits": splits, "size": list(size), "seed": seed}
    if _is_finished(out_dir, parameters):
        return out_dir

    place = out_dir.resolve()  # behind links
    if place.is_mount():
        raise UserError(f"{out_dir}: is a mount point: expected a folder, or the name of one to be made, inside it")
    place.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".unfinished", dir=place.parent))
    try:
        for split, count in splits.items():
            write(workshop, split, _scenes(seed, split, count, size))
        (workshop / MARKER).write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")
        workshop.chmod(0o755)  # mkdtemp lets nobody else in
        if not _is_finished(out_dir, parameters):  # another process may have been faster
            if place.exists():
                place.rmdir()
            workshop.rename(place)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return out_dir


def _scenes(seed: int, split: str, count: int, size: tuple[int, int]) -> Iterator[tuple[int, Scene]]:
    start = _SPLITS.index(split) * _SPLIT_STRIDE
    return ((index, render_scene(seed, index, size)) for index in range(start, start + count))


def _is_finished(out_dir: Path, parameters: dict) -> bool:
    """Whether `out_dir` holds these very scenes; False if there is nothing; UserError if there is something else."""
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return False
    marker = out_dir / MARKER
    found = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None
    if found == parameters:
        return True
    what = f"holds demo scenes made with {found}" if found else f"is not empty and has no {MARKER}"
    raise UserError(f"{out_dir}: {what}; expected {parameters}. Choose another folder or delete this one.")


def contact_sheet(seed: int = 0, size: tuple[int, int] = (320, 240)) -> np.ndarray:
    """Twelve training scenes, four a row, every second row their classes in colour over the picture: RGB uint8."""
    palette = np.array([255 * hsv(0.382 * k, 0.75, 0.95) for k in range(len(CLASSES))])
    lines = []
    for first in range(0, 12, 4):
        scenes = [render_scene(seed, index, size) for index in range(first, first + 4)]
        lines.append(np.hstack([scene.image for scene in scenes]))
        painted = [0.35 * scene.image + 0.65 * palette[scene.semantic] for scene in scenes]
        for scene, picture in zip(scenes, painted):
            edge = np.zeros(scene.instances.shape, bool)
            edge[:, 1:] |= scene.instances[:, 1:] != scene.instances[:, :-1]
            edge[1:] |= scene.instances[1:] != scene.instances[:-1]
            picture[edge] = 255
        lines.append(np.hstack(painted).astype(np.uint8))
    return np.vstack(lines)
