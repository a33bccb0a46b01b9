"""Write demo scenes in the folder layouts and with the class ids that the frameworks' own dataset classes expect.

The ids are stand-ins: in the Cityscapes layout a demo mushroom is stored as a `rider`, because it has to be one of the
19 classes. `OUT` is always the dataset's root: `data/coco`, `data/cityscapes`, `ADEChallengeData2016`, `VOC2012`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from slotcon_plugin.demo_scenes.coco_categories import COCO_CATEGORIES
from slotcon_plugin.demo_scenes.polygons import mask_to_polygons
from slotcon_plugin.demo_scenes.render import CLASSES, OBJECTS, Scene

Scenes = Iterable[tuple[int, Scene]]
IGNORE = 255

# demo class -> (id, name) in COCO (detection) and COCO-Stuff (raw ids of the stuffthingmaps are id - 1)
COCO_IDS = {
    "ball": (37, "sports ball"), "car": (3, "car"), "crate": (33, "suitcase"),
    "mushroom": (28, "umbrella"), "sheep": (20, "sheep"), "tree": (64, "potted plant"),
}  # fmt: skip
COCO_STUFF_IDS = {"sky": 157, "grass": 124, "gravel": 125, "water": 178, "tiles": 117}
# demo class -> (trainId, labelId, name, whether its instances are told apart)
CITYSCAPES_IDS = {
    "sky": (10, 23, "sky", False), "grass": (9, 22, "terrain", False), "gravel": (0, 7, "road", False),
    "water": (3, 12, "wall", False), "tiles": (1, 8, "sidewalk", False), "ball": (18, 33, "bicycle", True),
    "car": (13, 26, "car", True), "crate": (14, 27, "truck", True), "mushroom": (12, 25, "rider", True),
    "sheep": (11, 24, "person", True), "tree": (8, 21, "vegetation", False),
}  # fmt: skip
# position in ADE20K's list of 150, counted from 1; 0 is "other", which the recipes ignore
ADE20K_IDS = {
    "sky": 3, "grass": 10, "gravel": 14, "water": 22, "tiles": 4, "ball": 120, "car": 21, "crate": 42,
    "mushroom": 18, "sheep": 127, "tree": 5,
}  # fmt: skip
VOC_IDS = {
    "sky": 0, "grass": 0, "gravel": 0, "water": 0, "tiles": 0, "ball": 5, "car": 7, "crate": 20,
    "mushroom": 9, "sheep": 17, "tree": 16,
}  # fmt: skip
CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
CAMVID_IDS = {
    "sky": 0, "water": 1, "mushroom": 2, "gravel": 3, "tiles": 4, "tree": 5, "crate": 6, "grass": 7, "car": 8,
    "sheep": 9, "ball": 10,
}  # fmt: skip


def _table(ids: dict[str, int]) -> np.ndarray:
    """Look-up table (uint8) from the index in `CLASSES` to a layout's id."""
    return np.array([ids[name] for name in CLASSES], np.uint8)


def _write(path: Path, image: np.ndarray) -> None:
    """Write RGB or an index map; the suffix says as what."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image, options):
        raise OSError(f"{path}: could not be written")


def _write_text(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_plain(root: Path, split: str, scenes: Scenes) -> None:
    """`images/SPLIT/*.jpg`, `annotations/SPLIT/*.png` (index in classes.txt), `instances/SPLIT/*.png` (16 bit)."""
    for index, scene in scenes:
        name = f"scene_{index:06d}"
        _write(root / "images" / split / f"{name}.jpg", scene.image)
        _write(root / "annotations" / split / f"{name}.png", scene.semantic)
        _write(root / "instances" / split / f"{name}.png", scene.instances)
    _write_text(root / "classes.txt", CLASSES)


def write_camvid(root: Path, split: str, scenes: Scenes) -> None:
    """As plain, with CamVid's eleven classes in its order."""
    table = _table(CAMVID_IDS)
    for index, scene in scenes:
        _write(root / "images" / split / f"scene_{index:06d}.jpg", scene.image)
        _write(root / "annotations" / split / f"scene_{index:06d}.png", table[scene.semantic])
    _write_text(root / "classes.txt", [*CAMVID_CLASSES, "unlabelled(ignore=11)"])


def write_coco(root: Path, split: str, scenes: Scenes) -> None:
    """`SPLIT2017/*.jpg`, `annotations/instances_SPLIT2017.json`, `stuffthingmaps/SPLIT2017/*.png` (COCO-Stuff ids)."""
    stuff = {name: COCO_IDS[name][0] - 1 if name in COCO_IDS else COCO_STUFF_IDS[name] - 1 for name in CLASSES}
    table = _table(stuff)
    images, annotations = [], []
    for index, scene in scenes:
        image_id = index + 1
        name = f"{image_id:012d}"
        _write(root / f"{split}2017" / f"{name}.jpg", scene.image)
        _write(root / "stuffthingmaps" / f"{split}2017" / f"{name}.png", table[scene.semantic])
        height, width = scene.semantic.shape
        images.append({"id": image_id, "file_name": f"{name}.jpg", "width": width, "height": height})
        for number, category in enumerate(scene.categories, start=1):
            mask = scene.instances == number
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": COCO_IDS[CLASSES[category]][0],
                    "iscrowd": 0,
                    "area": int(mask.sum()),
                    "bbox": [int(cols[0]), int(rows[0]), int(np.ptp(cols)) + 1, int(np.ptp(rows)) + 1],
                    "segmentation": [polygon.ravel().tolist() for polygon in mask_to_polygons(mask)],
                }
            )
    # All of COCO's categories, as in its own files: detectron2's built-in data set wants them complete.
    stands_for = {COCO_IDS[name][0]: name for name in OBJECTS}
    categories = [
        {"id": number, "name": name, "supercategory": stands_for.get(number, "none")}
        for number, name in COCO_CATEGORIES.items()
    ]
    path = root / "annotations" / f"instances_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    info = {"description": "demo scenes of slotcon_plugin; category names are stand-ins, see supercategory"}
    content = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content), encoding="utf-8")


def write_cityscapes(root: Path, split: str, scenes: Scenes) -> None:
    """`leftImg8bit/SPLIT/demo/*_leftImg8bit.png` and `gtFine/SPLIT/demo/*_gtFine_*` with all four kinds of file."""
    train_ids, label_ids = (_table({name: ids[k] for name, ids in CITYSCAPES_IDS.items()}) for k in (0, 1))
    for index, scene in scenes:
        name = f"demo_{index:06d}_000019"
        truth = root / "gtFine" / split / "demo"
        _write(root / "leftImg8bit" / split / "demo" / f"{name}_leftImg8bit.png", scene.image)
        _write(truth / f"{name}_gtFine_labelTrainIds.png", train_ids[scene.semantic])
        labels = label_ids[scene.semantic]
        _write(truth / f"{name}_gtFine_labelIds.png", labels)
        instance_ids = labels.astype(np.uint16)
        objects, seen = [], dict.fromkeys(CLASSES, 0)
        for number, category in enumerate(scene.categories, start=1):
            _, label_id, label, countable = CITYSCAPES_IDS[CLASSES[category]]
            mask = scene.instances == number
            if countable:  # labelId * 1000 + count within the class, as in the original
                instance_ids[mask] = label_id * 1000 + seen[CLASSES[category]]
                seen[CLASSES[category]] += 1
            objects += [{"label": label, "polygon": polygon.tolist()} for polygon in mask_to_polygons(mask)]
        _write(truth / f"{name}_gtFine_instanceIds.png", instance_ids)
        height, width = labels.shape
        content = {"imgHeight": height, "imgWidth": width, "objects": objects}
        (truth / f"{name}_gtFine_polygons.json").write_text(json.dumps(content), encoding="utf-8")


def write_ade20k(root: Path, split: str, scenes: Scenes) -> None:
    """`images/{training,validation}/*.jpg` and `annotations/...png` with 1..150, 0 = ignore; `sceneCategories.txt`."""
    folder, names = {"train": "training", "val": "validation"}[split], []
    table = _table(ADE20K_IDS)
    for index, scene in scenes:
        name = f"ADE_{split}_{index + 1:08d}"
        _write(root / "images" / folder / f"{name}.jpg", scene.image)
        _write(root / "annotations" / folder / f"{name}.png", table[scene.semantic])
        names.append(name)
    with open(root / "sceneCategories.txt", "a", encoding="utf-8") as listing:
        listing.writelines(f"{name} demo\n" for name in names)


def write_voc(root: Path, split: str, scenes: Scenes) -> None:
    """VOC2012: `JPEGImages`, `SegmentationClass`, `SegmentationClassAug`, `ImageSets/Segmentation/*.txt`.

    Two thirds of the training scenes are `train`, the rest is `aug` with masks in SegmentationClassAug alone.
    """
    table = _table(VOC_IDS)
    names: dict[str, list[str]] = {"train": [], "aug": [], "val": []}
    for position, (index, scene) in enumerate(scenes):
        name = f"2012_{index:06d}"
        part = "val" if split == "val" else ("aug" if position % 3 == 2 else "train")
        names[part].append(name)
        _write(root / "JPEGImages" / f"{name}.jpg", scene.image)
        _write(root / "SegmentationClassAug" / f"{name}.png", table[scene.semantic])
        if part != "aug":
            _write(root / "SegmentationClass" / f"{name}.png", table[scene.semantic])
    lists = root / "ImageSets" / "Segmentation"
    if split == "val":
        _write_text(lists / "val.txt", names["val"])
        return
    _write_text(lists / "train.txt", names["train"])
    _write_text(lists / "aug.txt", names["aug"])
    _write_text(lists / "trainaug.txt", names["train"] + names["aug"])


Writer = Callable[[Path, str, Scenes], None]
# layout -> (writer of one split, splits that the layout knows)
WRITERS: dict[str, tuple[Writer, tuple[str, ...]]] = {
    "plain": (write_plain, ("train", "val", "test")),
    "coco": (write_coco, ("train", "val")),
    "cityscapes": (write_cityscapes, ("train", "val")),
    "ade20k": (write_ade20k, ("train", "val")),
    "voc": (write_voc, ("train", "val")),
    "camvid": (write_camvid, ("train", "val", "test")),
}
