"""Find photos and masks of a data set on the disk, in the layouts that people have them in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.coco_stuff import COARSE_CLASSES, FINE_TO_COARSE, UNLABELLED
from slotcon_plugin.evaluation.labelled_set import FOREIGN, LabelledSet, too_few_classes
from slotcon_plugin.evaluation.metrics import IGNORE
from slotcon_plugin.photos import list_photos

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
# labelId -> trainId, for copies of Cityscapes without *_labelTrainIds.png
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
PICIE_SIDE = 320


def open_labelled_set(
    data: str | Path, split: str = "val", layout: str = "auto", protocol: str | None = None
) -> LabelledSet:
    """Open one split of a labelled data set.

    Args:
        data: root folder of the data set.
        split: "train", "val", or what the layout calls its splits.
        layout: a key of `READERS`, or "auto" to tell it from the folders' names.
        protocol: "picie" for COCO-Stuff at a short side of 320 and a centre crop; its 27 classes are always used.

    Raises:
        UserError: no such folder, no photo, photos without masks; says which and what was expected.
    """
    root = Path(data)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected the root of a data set in one of: {', '.join(READERS)}")
    if layout == "auto":
        layout = _guess(root)
    if layout not in READERS:
        raise UserError(f"layout: expected one of {', '.join(READERS)}, got {layout!r}")
    if protocol not in (None, "picie") or (protocol and layout != "cocostuff"):
        raise UserError(f"protocol: expected 'picie' with layout cocostuff, got {protocol!r} with layout {layout}")
    found = READERS[layout][1](root, split)
    if not found.items:
        raise UserError(
            f"{root}: no labelled photo of split {split} where layout {layout} has them, see docs/evaluate.md"
        )
    return found if protocol is None else replace(found, square=PICIE_SIDE)


def _guess(root: Path) -> str:
    if (root / "classes.txt").is_file():  # whatever the splits are called
        return "folder"
    for name, (signs, _) in READERS.items():
        if any((root / sign).exists() for sign in signs):
            if name == "folder":
                _require_own_names(root)
            return name
    signs = "; ".join(f"{name}: {' or '.join(signs)}" for name, (signs, _) in READERS.items())
    raise UserError(f"{root}: layout not recognised. Expected one of these inside ({signs})")


def _require_own_names(root: Path) -> None:
    """Refuse folders named like ADE20K's, whose masks count from 1, that lack ADE20K's own files."""
    if any((root / "annotations" / split).is_dir() for split in ("training", "validation")):
        raise UserError(
            f"{root}: ADE20K, or masks of your own? ADE20K has objectInfo150.txt and sceneCategories.txt beside its "
            "annotations/: put one of them there. Beside masks of your own write a classes.txt, a name a line, or call "
            "their folders train and val"
        )


def value_table(meaning: Mapping[int, int]) -> np.ndarray:
    """Table (256,) int16 of `LabelledSet`: stored value -> class index; 255 is ignored, all others are unknown."""
    table = np.full(256, FOREIGN, np.int16)
    table[IGNORE] = IGNORE
    for value, index in meaning.items():
        table[value] = index
    return table


def _photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        there = sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
        raise UserError(f"{folder}: no such folder; {folder.parent} holds {', '.join(there[:12]) or 'nothing'}")
    return [folder / name for name in list_photos(folder)]


def _pair(photos: Iterable[Path], mask_of: Callable[[Path], Path]) -> tuple[tuple[Path, Path], ...]:
    pairs = tuple((photo, mask_of(photo)) for photo in photos)
    if missing := [(photo, mask) for photo, mask in pairs if not mask.is_file()]:
        photo, mask = missing[0]
        raise UserError(f"{len(missing)} of {len(pairs)} images have no mask; first: {photo}, expected {mask}")
    return pairs


def read_folder(root: Path, split: str) -> LabelledSet:
    """`images/SPLIT`, `annotations/SPLIT` (.png of the same stem), and `classes.txt` if there is one.

    `classes.txt` has a name a line; a line such as ``unlabelled(ignore=11)`` says which value is ignored (255 always
    is), wherever it stands: the names are those of the other values, from 0 on. Lines that begin with # are comments.
    Without the file, the classes are counted from the masks.
    """
    images, masks = root / "images" / split, root / "annotations" / split
    items = _pair(_photos(images), lambda photo: masks / photo.relative_to(images).with_suffix(".png"))
    name = f"{root.resolve().name}/{split}"
    listing = root / "classes.txt"
    if not listing.is_file():
        return _count_classes(LabelledSet(name, items, (), value_table({k: k for k in range(IGNORE)})))
    classes, ignored = _read_classes(listing)
    values = (value for value in range(IGNORE) if value not in ignored)
    meaning = dict(zip(values, range(len(classes)))) | dict.fromkeys(ignored, IGNORE)
    return LabelledSet(name, items, tuple(classes), value_table(meaning))


def _read_classes(listing: Path) -> tuple[list[str], list[int]]:
    """Names, and values to ignore, of a `classes.txt`."""
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()  # Windows' editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise UserError(f"{listing}: expected UTF-8, got another encoding ({error}); save it as UTF-8") from error
    classes, ignored = [], []
    for line in filter(None, map(str.strip, lines)):
        if line.startswith("#"):
            continue
        if match := re.search(r"\(ignore\s*=\s*(\d+)\)$", line):
            ignored.append(int(match[1]))
        else:
            classes.append(line)
    if wrong := [value for value in ignored if value > IGNORE]:
        raise UserError(f"{listing}: (ignore={wrong[0]}): expected a value that a mask can hold, 0 to {IGNORE}")
    most = IGNORE - len({*ignored} - {IGNORE})
    if len(classes) > most:
        raise UserError(f"{listing}: expected at most {most} names, for the values below {IGNORE}, got {len(classes)}")
    return classes, ignored


def _count_classes(data: LabelledSet) -> LabelledSet:
    highest = -1
    for index in range(len(data)):
        label = data.read_label(index)
        highest = int(np.max(label[label != IGNORE].astype(int), initial=highest))
    if highest < 1:
        raise too_few_classes(data.name, range(highest + 1))
    meaning = {k: k for k in range(highest + 1)}
    return LabelledSet(data.name, data.items, _counted(highest + 1), value_table(meaning))


def _counted(number: int) -> tuple[str, ...]:
    return tuple(f"class {k}" for k in range(number))


def with_same_classes(*sets: LabelledSet) -> tuple[LabelledSet, ...]:
    """Splits of one data set; where their classes were counted in the masks, one may lack the last and gets them.

    Raises:
        UserError: they have different classes.
    """
    longest = max(sets, key=lambda each: len(each.classes))
    for each in sets:
        counted = each.classes == _counted(len(each.classes))
        if each.classes != longest.classes and not (counted and longest.classes == _counted(len(longest.classes))):
            got = f"{longest.name}: {longest.classes}, {each.name}: {each.classes}"
            raise UserError(f"expected the same classes, got {got}")
    return tuple(replace(each, classes=longest.classes, table=longest.table) for each in sets)


def read_voc(root: Path, split: str) -> LabelledSet:
    """VOC2012 (or VOCdevkit above it): `ImageSets/Segmentation/SPLIT.txt`; `aug` lists take SegmentationClassAug."""
    root = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise UserError(f"{listing}: no such list of images")
    names = listing.read_text(encoding="utf-8").split()
    if not names:
        raise UserError(f"{listing}: no image in it")
    masks = root / ("SegmentationClassAug" if "aug" in split else "SegmentationClass")
    photos = [root / "JPEGImages" / f"{name}.jpg" for name in names]
    items = _pair(photos, lambda photo: masks / f"{photo.stem}.png")
    return LabelledSet(f"voc/{split}", items, VOC_CLASSES, value_table({k: k for k in range(21)}))


def read_cityscapes(root: Path, split: str) -> LabelledSet:
    """`leftImg8bit/SPLIT/CITY`, `gtFine/SPLIT/CITY`: *_labelTrainIds.png if made, else *_labelIds.png; 19 classes."""
    images, masks = root / "leftImg8bit" / split, root / "gtFine" / split
    photos = [photo for photo in _photos(images) if photo.stem.endswith("_leftImg8bit")]
    converted = any(masks.rglob("*_gtFine_labelTrainIds.png"))
    kind = "labelTrainIds" if converted else "labelIds"

    def mask_of(photo: Path) -> Path:
        stem = photo.stem.removesuffix("_leftImg8bit")
        return masks / photo.relative_to(images).parent / f"{stem}_gtFine_{kind}.png"

    meaning = {k: k for k in range(19)}
    if not converted:
        meaning = dict.fromkeys(range(34), IGNORE) | {value: k for k, value in enumerate(CITYSCAPES_LABEL_IDS)}
    return LabelledSet(f"cityscapes/{split}", _pair(photos, mask_of), CITYSCAPES_CLASSES, value_table(meaning))


def read_ade20k(root: Path, split: str) -> LabelledSet:
    """ADEChallengeData2016: `images/{training,validation}`, `annotations/...`; 1 to 150 are classes, 0 is ignored.

    Names come from `objectInfo150.txt` if it is there.
    """
    folder = {"train": "training", "val": "validation"}.get(split, split)
    images, masks = root / "images" / folder, root / "annotations" / folder
    items = _pair(_photos(images), lambda photo: masks / f"{photo.stem}.png")
    info = root / "objectInfo150.txt"
    rows = info.read_text(encoding="utf-8").splitlines()[1:] if info.is_file() else []
    names = [row.split("\t")[-1].split(",")[0].strip() for row in rows if row.strip()]
    classes = tuple(names) if len(names) == 150 else tuple(f"class {k}" for k in range(1, 151))
    return LabelledSet(f"ade20k/{split}", items, classes, value_table({0: IGNORE} | {k + 1: k for k in range(150)}))


def read_cocostuff(root: Path, split: str) -> LabelledSet:
    """COCO-Stuff 164k with raw values 0-181, merged to PiCIE's 27 coarse classes (see `coco_stuff`).

    Photos: `images/SPLIT2017` (PiCIE, STEGO) or `SPLIT2017` (COCO). Masks: `annotations/SPLIT2017` or
    `stuffthingmaps/SPLIT2017`. If PiCIE's list `curated/SPLIT2017/Coco164kFull_Stuff_Coarse_7.txt` is there, only the
    images it names are used; else all images.
    """
    folder = f"{split.removesuffix('2017')}2017"
    images = root / "images" / folder if (root / "images" / folder).is_dir() else root / folder
    masks = root / "annotations" / folder
    masks = masks if masks.is_dir() else root / "stuffthingmaps" / folder
    listing = root / "curated" / folder / "Coco164kFull_Stuff_Coarse_7.txt"
    if listing.is_file():
        photos = [images / f"{name}.jpg" for name in listing.read_text(encoding="utf-8").split()]
    else:
        photos = _photos(images)
    items = _pair(photos, lambda photo: masks / f"{photo.stem}.png")
    kept = "PiCIE's list" if listing.is_file() else "all images"
    meaning = dict(enumerate(FINE_TO_COARSE)) | {UNLABELLED: IGNORE}
    return LabelledSet(f"cocostuff27/{split} ({kept})", items, COARSE_CLASSES, value_table(meaning))


# layout -> (paths that give it away, reader); the first that fits is taken
READERS: dict[str, tuple[tuple[str, ...], Callable[[Path, str], LabelledSet]]] = {
    "cityscapes": (("leftImg8bit",), read_cityscapes),
    "voc": (("ImageSets/Segmentation", "VOC2012/ImageSets/Segmentation"), read_voc),
    "ade20k": (("objectInfo150.txt", "sceneCategories.txt"), read_ade20k),
    "cocostuff": (("curated", "stuffthingmaps", "annotations/val2017", "annotations/train2017"), read_cocostuff),
    "folder": (("annotations",), read_folder),
}
