"""Vectors of photos, of crops of them, and of the positions of their feature maps: for search and deduplication."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.features import photo_batches, stage_features
from slotcon_plugin.evaluation.labelled_set import resize_image
from slotcon_plugin.files import replacing, require_writable
from slotcon_plugin.models.timm_backbone import even_sides
from slotcon_plugin.photos import network_sides, read_photos

LEVELS = ("photo", "crop", "pixel")
SUFFIXES = (".npz", ".parquet")
_ROWS = 256  # of a matrix of similarities at once
_ROUNDING = 1e-6  # of a cosine in float32


@dataclass(frozen=True)
class Embeddings:
    """N vectors and what they are of.

    Attributes:
        vectors: ``(N, D)`` float16 or float32, of length 1 but for rounding: the dot product of two is their cosine
            similarity.
        photo: ``(N,)`` int32, which of ``paths`` each vector is of.
        boxes: ``(N, 4)`` float32, which part of the upright photo: x0, y0, x1, y1 in its pixels.
        paths: of the photos, those that could be read.
        level: ``'photo'``, ``'crop'`` or ``'pixel'``.
    """

    vectors: np.ndarray
    photo: np.ndarray
    boxes: np.ndarray
    paths: tuple[str, ...]
    level: str

    def __len__(self) -> int:
        return len(self.vectors)

    def __str__(self) -> str:
        return f"{len(self):,} vectors of {self.vectors.shape[1]} of {len(self.paths):,} photos, one a {self.level}"

    def nearest(self, queries: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The vectors most like some others.

        Args:
            queries: ``(Q, D)``, for example rows of ``vectors``, which then find themselves first.
            k: how many of each.

        Returns:
            Rows of ``vectors`` ``(Q, k)`` int64, most similar first, and their cosine similarities ``(Q, k)``.

        Raises:
            UserError: ``k`` is below 1.
        """
        if k < 1:
            raise UserError(f"k: expected at least 1 neighbour, got {k}")
        queries, bank = torch.from_numpy(np.atleast_2d(queries)).float(), self._bank()
        found = [(F.normalize(part, dim=1) @ bank.T).topk(min(k, len(self))) for part in queries.split(_ROWS)]
        return torch.cat([f.indices for f in found]).numpy(), torch.cat([f.values for f in found]).numpy()

    def duplicates(self, similarity: float = 0.95) -> list[list[int]]:
        """Groups of vectors that are alike, directly or by way of others of the group.

        Args:
            similarity: cosine from which two count as alike; look at pairs near it before deleting anything.

        Returns:
            Rows of each group of two and more, in ascending order; groups by their first row.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        bank = self._bank()
        pairs = [
            (part @ bank.T >= similarity - _ROUNDING).nonzero() + torch.tensor([_ROWS * i, 0])
            for i, part in enumerate(bank.split(_ROWS))
        ]
        first, second = torch.cat(pairs).T.numpy()
        links = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(self), len(self)))
        group = connected_components(links, directed=False)[1]
        members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
        return sorted(rows.tolist() for rows in members if len(rows) > 1)

    def _bank(self) -> Tensor:
        """The vectors in float32, of length 1 again: rounded to float16, equal ones have a cosine of .9999."""
        return F.normalize(torch.from_numpy(self.vectors).float(), dim=1)

    def save(self, path: str | Path) -> Path:
        """Write a file, complete or not at all.

        Args:
            path: ``.npz`` (arrays of the attributes' names; ``numpy.load(path)``) or ``.parquet`` (a row a vector:
                ``path``, ``x0``, ``y0``, ``x1``, ``y1``, ``embedding``; needs pyarrow).

        Raises:
            UserError: see :func:`check_out`.
        """
        path = check_out(path)
        with replacing(path) as partial:
            if path.suffix == ".npz":
                arrays = {name: getattr(self, name) for name in ("vectors", "photo", "boxes", "level")}
                np.savez(partial, paths=np.array(self.paths), **arrays)
            else:
                self._write_parquet(partial)
        return path

    def _write_parquet(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        width = self.vectors.shape[1]
        # Parquet knows UTF-8 alone, file systems any bytes.
        names = pa.array([os.fsencode(path).decode("utf-8", "replace") for path in self.paths])
        columns = {"path": names.take(pa.array(self.photo))}
        columns |= {name: pa.array(self.boxes[:, i]) for i, name in enumerate(("x0", "y0", "x1", "y1"))}
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(self.vectors.ravel()), width)
        pq.write_table(pa.table(columns).replace_schema_metadata({"level": self.level}), path)


def load_embeddings(path: str | Path) -> Embeddings:
    """What :meth:`Embeddings.save` has written as ``.npz``."""
    with np.load(path) as file:
        level, paths = str(file["level"]), tuple(file["paths"].tolist())
        return Embeddings(file["vectors"], file["photo"], file["boxes"], paths, level)


def check_out(path: str | Path) -> Path:
    """The file to write, refused before hours of work if it could not be.

    Raises:
        UserError: a suffix that is not known, no pyarrow for ``.parquet``, or a folder that cannot be written to.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"embeddings go to a file ending in {' or '.join(SUFFIXES)}, got {path.name!r}")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UserError(f"{path.name}: parquet needs pyarrow: pip install pyarrow, or write .npz") from error
    require_writable(path)
    return path


@torch.no_grad()
def embed_photos(
    backbone: nn.Module,
    photos: Sequence[str | Path],
    level: str = "photo",
    *,
    grid: tuple[int, int] = (3, 3),
    boxes: Mapping[str, Sequence[Sequence[float]]] | None = None,
    stages: Sequence[int] = (-1,),
    short_side: int = 224,
    batch_size: int = 16,
    device: str = "cpu",
    dtype: type = np.float16,
) -> Embeddings:
    """Embed photos; each goes through the network once, whole.

    Args:
        backbone: ``(B, 3, H, W)`` photos normalised by ImageNet's statistics -> tuple of stage maps; put into
            evaluation mode.
        photos: files; those that cannot be read are named and left out.
        level: ``'photo'``: the mean of the map. ``'crop'``: its mean in each cell of ``grid`` or each of ``boxes``.
            ``'pixel'``: every position of the map; the box is its cell.
        grid: (rows, columns) of crops.
        boxes: path of a photo -> boxes x0, y0, x1, y1 in pixels of the upright photo, in place of a grid. Photos
            without boxes give no vectors.
        stages: stage maps put side by side, see :func:`~slotcon_plugin.evaluation.features.stage_features`.
        short_side: of what the network sees, in pixels; both sides are rounded to multiples of 32, or of a ViT's
            patches where 32 is none.
        batch_size: photos of one shape that go through together.
        device: where the network runs.
        dtype: of the vectors that are kept.

    Raises:
        UserError: an unknown level, a size below 1, a grid without cells, an invalid box or one outside its photo,
            boxes for none of the photos, or no photo that can be read.
    """
    if level not in LEVELS:
        raise UserError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
    for name, value in (("short_side", short_side), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name}: expected at least 1, got {value}")
    if min(grid) < 1:
        raise UserError(f"grid: expected ROWS and COLUMNS of at least 1, got {grid}")
    if boxes is not None:
        boxes = {os.path.normpath(path): of_photo for path, of_photo in boxes.items()}
        if not boxes.keys() & {os.path.normpath(path) for path in photos}:
            first = next(iter(boxes), "nothing")
            raise UserError(f"boxes: none is of these photos: boxes are of {first}, photos are {photos[0]}, ...")
    backbone.eval().to(device)
    vectors, owners, parts, names = [], [], [], []
    for images, read in _batches(photos, short_side, even_sides(backbone), batch_size):
        maps = stage_features(backbone, images.to(device), stages)
        for own, (path, height, width) in zip(maps, read):
            if level == "crop" and boxes is not None:
                wanted = _checked(boxes.get(os.path.normpath(path), ()), path, height, width)
            else:
                wanted = _parts((height, width), *{"photo": (1, 1), "crop": grid, "pixel": own.shape[1:]}[level])
            found = own.flatten(1).T if level == "pixel" else _pooled(own, wanted, (height, width))
            vectors.append(F.normalize(found, dim=1).cpu().numpy().astype(dtype))
            owners.append(np.full(len(wanted), len(names), np.int32))
            parts.append(wanted.numpy())
            names.append(path)
    return Embeddings(*(np.concatenate(rows) for rows in (vectors, owners, parts)), tuple(names), level)


def _batches(photos: Sequence[str | Path], short_side: int, multiple: int, size: int) -> Iterator[tuple[Tensor, list]]:
    """Batches of normalised photos, see :func:`photo_batches`, and (path, height, width) of each."""
    resized = (
        (
            resize_image(photo, *network_sides(*photo.shape[:2], short_side, multiple)),
            (str(photos[index]), *photo.shape[:2]),
        )
        for index, photo in read_photos(photos)
    )
    return photo_batches(resized, size)


def _parts(photo: tuple[int, int], rows: int, columns: int) -> Tensor:
    """The cells ``(rows * columns, 4)`` of a photo of (height, width), row by row, in its pixels."""
    (top, bottom), (left, right) = (
        (edges[:-1], edges[1:]) for edges in (torch.linspace(0, side, n + 1) for side, n in zip(photo, (rows, columns)))
    )
    y0, x0 = torch.meshgrid(top, left, indexing="ij")
    y1, x1 = torch.meshgrid(bottom, right, indexing="ij")
    return torch.stack([x0, y0, x1, y1], dim=-1).flatten(0, 1)


def _checked(boxes: Sequence[Sequence[float]], path: str, height: int, width: int) -> Tensor:
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    if not (found[:, 2:] > found[:, :2]).all():
        raise UserError(f"{path}: boxes are x0, y0, x1, y1 with x0 < x1 and y0 < y1, got {boxes}")
    outside = ((found[:, 2:] <= 0) | (found[:, :2] >= torch.tensor([width, height]))).any(dim=1)
    if outside.any():
        box = found[outside][0].tolist()
        raise UserError(f"{path}: a box lies outside the photo, which is {width} x {height} when upright: {box}")
    return found


def _pooled(features: Tensor, boxes: Tensor, photo: tuple[int, int]) -> Tensor:
    """Means ``(N, C)`` of a map ``(C, h, w)`` within boxes in pixels of the photo."""
    size = torch.tensor([features.shape[2] / photo[1], features.shape[1] / photo[0]] * 2)
    rois = torch.cat([torch.zeros(len(boxes), 1), boxes * size], dim=1).to(features)
    return roi_align(features[None], rois, output_size=1, sampling_ratio=-1, aligned=True).flatten(1)
