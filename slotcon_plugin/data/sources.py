"""Where unlabelled photos come from: folders, list files, COCO annotation files, and several of them together.

A source is a sized collection of paths. It holds them as packed bytes, so that a million of them cost tens of
megabytes once, shared by all the workers, instead of a list that every worker copies by touching its refcounts.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from slotcon_plugin.data.coco import read_file_names
from slotcon_plugin.errors import UserError
from slotcon_plugin.photos import evenly_spaced, list_photos, printable
from slotcon_plugin.registry import DATASETS

_INTERFACE = ("__len__", "path", "read", "origin")


class PackedStrings(Sequence[str]):
    """An immutable list of strings in two numpy arrays, free of Python objects."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(s) for s in strings]
        self._ends = np.cumsum([len(s) for s in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} outside a list of {len(self)}")
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]].tobytes())


class PhotoSource:
    """Paths of photos below one root.

    A source of another kind (an archive, a data base) has the same four parts: ``len()``, :meth:`path`, a name of each
    photo that no other has and that stays the same from run to run, :meth:`read`, and :attr:`origin`. What its ``read``
    raises makes that photo a broken one, which another takes the place of.

    Args:
        root: folder that the names are relative to.
        names: path of each photo relative to ``root``; an absolute one stands for itself.
        origin: what to call this source in messages.

    Raises:
        UserError: if there is no photo.
    """

    def __init__(self, root: str | Path, names: Iterable[str], origin: str) -> None:
        self.root = os.fspath(root)
        self.origin = origin
        self.names = PackedStrings(names)
        if not len(self.names):
            raise UserError(f"{origin} names no photo")

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Path of photo ``index``."""
        return os.path.join(self.root, self.names[index])

    def read(self, index: int) -> bytes:
        """The file of photo ``index`` as it lies on the disk. Raises OSError."""
        with open(self.path(index), "rb") as file:
            return file.read()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.origin}, {len(self)} photos)"


@DATASETS.register_module()
class ImageFolder(PhotoSource):
    """All photos in a folder and the folders below it (a flat folder, ImageNet's ``train/``, ...), sorted by name.

    Args:
        root: the folder. Hidden files and folders are left out.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__(root, list_photos(root), origin=f"folder {printable(root)}")


@DATASETS.register_module()
class ListFile(PhotoSource):
    """Photos named in a text file, a path a line; empty lines and lines that start with ``#`` are left out.

    Args:
        path: the list file.
        root: folder that the paths are relative to; the list file's own folder when None.
    """

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        _require_file(path, "path of the ListFile")
        if root is not None:
            _require_folder(root, "root of the ListFile")
        lines = (line.strip() for line in _lines(path))
        names = [os.fsdecode(line) for line in lines if line and not line.startswith(b"#")]
        super().__init__(root or Path(path).parent, names, origin=f"list file {printable(path)}")
        _require_photos(self)


@DATASETS.register_module()
class CocoImages(PhotoSource):
    """The photos of a COCO annotation file; its labels are not looked at.

    Args:
        ann_file: JSON file with an ``images`` list, e.g. ``annotations/instances_train2017.json`` or
            ``annotations/image_info_unlabeled2017.json``.
        root: folder of the photos, e.g. ``train2017``.
    """

    def __init__(self, ann_file: str | Path, root: str | Path) -> None:
        _require_file(ann_file, "ann_file of the CocoImages")
        _require_folder(root, "root of the CocoImages")
        super().__init__(root, read_file_names(ann_file), origin=f"COCO file {printable(ann_file)}")
        _require_photos(self)


@DATASETS.register_module()
class ConcatSources:
    """Several sources one after the other, e.g. COCO+ = train2017 and unlabeled2017.

    Args:
        sources: sources or their configs.
    """

    def __init__(self, sources: Sequence[PhotoSource | dict]) -> None:
        self.sources = [build_source(source) for source in sources]
        if not self.sources:
            raise UserError("ConcatSources got no source; give it a list of at least one in `sources`")
        self._ends = np.cumsum([len(source) for source in self.sources])
        self.origin = " + ".join(source.origin for source in self.sources)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _locate(self, index: int) -> tuple[PhotoSource, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} outside {len(self)} photos")
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self.sources[which], index - (int(self._ends[which - 1]) if which else 0)

    def path(self, index: int) -> str:
        """Path of photo ``index``."""
        source, local = self._locate(index)
        return source.path(local)

    def read(self, index: int) -> bytes:
        """The file of photo ``index`` as it lies on the disk. Raises OSError."""
        source, local = self._locate(index)
        return source.read(local)

    def __repr__(self) -> str:
        return f"ConcatSources({self.sources})"


def build_source(source: PhotoSource | ConcatSources | dict) -> PhotoSource | ConcatSources:
    """A source from its config; one that is already built passes through.

    Raises:
        UserError: it lacks a part of :class:`PhotoSource`'s interface.
    """
    source = DATASETS.build(source) if isinstance(source, dict) else source
    if lacking := [part for part in _INTERFACE if not hasattr(source, part)]:
        raise UserError(
            f"the photo source {type(source).__name__} has no {', '.join(lacking)}; a source has "
            f"{', '.join(_INTERFACE)} as slotcon_plugin.data.PhotoSource describes them"
        )
    return source


def _lines(path: str | Path) -> list[bytes]:
    """Lines of a list file as bytes: names of files are bytes, in whatever encoding they were given."""
    content = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        raise UserError(
            f"{printable(path)}: expected a path a line in UTF-8, found NUL bytes. A list in UTF-16 has to be saved in "
            "UTF-8; for an archive give the folder that it unpacks to, for a single picture its folder"
        )
    return content.split(b"\n")


def _require_folder(path: str | Path, what: str) -> None:
    if not os.path.isdir(path):
        raise UserError(f"{what} is not a folder: {path} (seen from {os.getcwd()}); set it to where your photos are")


def _require_file(path: str | Path, what: str) -> None:
    if not os.path.isfile(path):
        raise UserError(
            f"{what} is not a file: {path} (seen from {os.getcwd()}); set it (--data-root, where the config has one), "
            "or --photos FOLDER for photos of your own"
        )


def _require_photos(source: PhotoSource) -> None:
    """A wrong root makes every photo missing: tell it from a few of them instead of from thousands of warnings."""
    if not any(os.path.isfile(source.path(index)) for index in evenly_spaced(len(source), 16)):
        first = source.path(0)
        wrong = "which is a folder: give that instead" if os.path.isdir(first) else "check `root` and the names"
        raise UserError(f"no photo of {source.origin} is there, the first would be {printable(first)}; {wrong}")
