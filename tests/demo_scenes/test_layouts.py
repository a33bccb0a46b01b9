import json

import cv2
import numpy as np
import pytest

from slotcon_plugin.demo_scenes import CLASSES, make_demo_scenes, render_scene
from slotcon_plugin.demo_scenes import layouts as layouts_module
from slotcon_plugin.demo_scenes.polygons import mask_to_polygons

SIZE = (96, 64)
SPLITS = {"train": 4, "val": 2}
VAL_START = 1_000_000


def read(path):
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def make(tmp_path, layout, splits=SPLITS):
    return make_demo_scenes(tmp_path / "out", splits, SIZE, seed=1, layout=layout)


def test_plain(tmp_path):
    out = make(tmp_path, "plain")
    assert (out / "classes.txt").read_text().split() == list(CLASSES)
    for split, start in (("train", 0), ("val", VAL_START)):
        for index in range(start, start + SPLITS[split]):
            scene = render_scene(1, index, SIZE)
            np.testing.assert_array_equal(read(out / "annotations" / split / f"scene_{index:06d}.png"), scene.semantic)
            np.testing.assert_array_equal(read(out / "instances" / split / f"scene_{index:06d}.png"), scene.instances)
            photo = read(out / "images" / split / f"scene_{index:06d}.jpg")[..., ::-1]
            assert np.abs(photo.astype(float) - scene.image).mean() < 6, "JPEG of the same picture, RGB order"


def test_coco_annotations_rasterise_to_the_masks(tmp_path):
    coco_api = pytest.importorskip("pycocotools.coco")
    out = make(tmp_path, "coco")
    for split, start in (("train", 0), ("val", VAL_START)):
        coco = coco_api.COCO(out / "annotations" / f"instances_{split}2017.json")
        assert len(coco.imgs) == SPLITS[split]
        for image_id, image in coco.imgs.items():
            scene = render_scene(1, image_id - 1, SIZE)
            assert image_id - 1 in range(start, start + SPLITS[split])
            assert read(out / f"{split}2017" / image["file_name"]).shape == (image["height"], image["width"], 3)
            annotations = coco.loadAnns(coco.getAnnIds(image_id))
            assert len(annotations) == len(scene.categories)
            for number, annotation in enumerate(annotations, start=1):
                mask = scene.instances == number
                np.testing.assert_array_equal(coco.annToMask(annotation), mask)
                assert annotation["area"] == mask.sum()
                ys, xs = np.nonzero(mask)
                x, y, w, h = annotation["bbox"]
                assert (x, y, x + w, y + h) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
                assert coco.cats[annotation["category_id"]]["supercategory"] == CLASSES[scene.categories[number - 1]]
            stuff = read(out / "stuffthingmaps" / f"{split}2017" / image["file_name"].replace("jpg", "png"))
            for annotation in annotations:  # COCO-Stuff stores a thing as its COCO id - 1
                assert (stuff[coco.annToMask(annotation) > 0] == annotation["category_id"] - 1).all()
            assert (stuff[scene.instances == 0] >= 91).all()


def test_cityscapes_files_agree_with_each_other(tmp_path):
    out = make(tmp_path, "cityscapes")
    to_train = {0: 7, 1: 8, 3: 12, 8: 21, 9: 22, 10: 23, 11: 24, 12: 25, 13: 26, 14: 27, 18: 33}  # from its labels.py
    photos = sorted((out / "leftImg8bit" / "train" / "demo").glob("*_leftImg8bit.png"))
    assert len(photos) == 4
    for photo in photos:
        stem = photo.name.removesuffix("_leftImg8bit.png")
        base = out / "gtFine" / "train" / "demo"
        train_ids, labels, instances = (
            read(base / f"{stem}_gtFine_{kind}.png") for kind in ("labelTrainIds", "labelIds", "instanceIds")
        )
        assert instances.dtype == np.uint16
        np.testing.assert_array_equal(np.vectorize(to_train.get)(train_ids), labels)
        np.testing.assert_array_equal(np.where(instances >= 1000, instances // 1000, instances), labels)
        scene = render_scene(1, int(stem.split("_")[1]), SIZE)
        trees = CLASSES.index("tree")
        countable = sum(category != trees for category in scene.categories)
        assert (np.unique(instances) >= 1000).sum() == countable, "vegetation has no instances in Cityscapes"
        content = json.loads((base / f"{stem}_gtFine_polygons.json").read_text())
        assert (content["imgWidth"], content["imgHeight"]) == SIZE
        assert len(content["objects"]) >= len(scene.categories)


def test_ade20k(tmp_path):
    out = make(tmp_path, "ade20k")
    names = sorted(path.name for path in (out / "annotations" / "training").iterdir())
    assert names == [f"ADE_train_{k:08d}.png" for k in range(1, 5)]
    assert sorted(p.stem for p in (out / "images" / "training").iterdir()) == [name[:-4] for name in names]
    assert min(p.name for p in (out / "images" / "validation").iterdir()) == f"ADE_val_{VAL_START + 1:08d}.jpg"
    mask = read(out / "annotations" / "training" / names[0])
    assert mask.min() >= 1
    assert mask.max() <= 150
    sky = render_scene(1, 0, SIZE).semantic == 0
    np.testing.assert_array_equal(mask == 3, sky)


def test_voc_lists_point_at_files(tmp_path):
    out = make(tmp_path, "voc")
    lists = {path.stem: path.read_text().split() for path in (out / "ImageSets" / "Segmentation").iterdir()}
    assert {name: len(ids) for name, ids in lists.items()} == {"train": 3, "aug": 1, "trainaug": 4, "val": 2}
    assert not set(lists["train"]) & set(lists["aug"])
    for name in lists["trainaug"] + lists["val"]:
        assert (out / "JPEGImages" / f"{name}.jpg").is_file()
        assert read(out / "SegmentationClassAug" / f"{name}.png").max() <= 20
    for name in lists["train"] + lists["val"]:
        mask = read(out / "SegmentationClass" / f"{name}.png")
        np.testing.assert_array_equal(mask > 0, render_scene(1, int(name[5:]), SIZE).instances > 0)
    assert not (out / "SegmentationClass" / f"{lists['aug'][0]}.png").exists()


def test_camvid(tmp_path):
    out = make(tmp_path, "camvid", {"train": 3, "val": 1, "test": 1})
    classes = (out / "classes.txt").read_text().splitlines()
    assert len(classes) == 12
    assert classes[11] == "unlabelled(ignore=11)"
    masks = sorted((out / "annotations").rglob("*.png"))
    assert [path.parent.name for path in masks] == ["test", "train", "train", "train", "val"]
    seen = set()
    for path in masks:
        assert (out / "images" / path.parent.name / f"{path.stem}.jpg").is_file()
        seen |= set(np.unique(read(path)).tolist())
    assert seen <= set(range(11))
    assert len(set(layouts_module.CAMVID_IDS.values())) == len(CLASSES), "one CamVid class for each of ours"


@pytest.mark.parametrize(
    ("dataset", "ids"),
    [
        ("ADE20KDataset", {"sky": "sky", "grass": "grass", "gravel": "earth", "water": "water", "tiles": "floor",
                           "ball": "ball", "car": "car", "crate": "box", "mushroom": "plant", "sheep": "animal",
                           "tree": "tree"}),
        ("PascalVOCDataset", {"car": "car", "sheep": "sheep", "tree": "pottedplant", "crate": "tvmonitor"}),
        ("CityscapesDataset", {name: entry[2] for name, entry in layouts_module.CITYSCAPES_IDS.items()}),
    ],
)  # fmt: skip
def test_ids_are_those_of_mmsegmentation(dataset, ids):
    datasets = pytest.importorskip("mmseg.datasets")
    names = getattr(datasets, dataset).METAINFO["classes"]
    table = {
        "ADE20KDataset": {name: k - 1 for name, k in layouts_module.ADE20K_IDS.items()},
        "PascalVOCDataset": layouts_module.VOC_IDS,
        "CityscapesDataset": {name: entry[0] for name, entry in layouts_module.CITYSCAPES_IDS.items()},
    }[dataset]
    for name, expected in ids.items():
        assert names[table[name]].split(",")[0].replace(" ", "") == expected.replace(" ", "")


@pytest.mark.parametrize(
    "rows",
    [
        ["1"],
        ["110", "011"],  # touches along an edge
        ["10", "01"],  # touches at a corner: two polygons
        ["111", "101", "111"],  # a hole
        ["11111", "10101", "11111", "10001", "11111"],  # several
        ["1111", "1001", "1011", "1110"],
        ["0110", "1001", "0110"],
    ],
)
def test_polygons_are_exact(rows):
    coco_mask = pytest.importorskip("pycocotools.mask")
    mask = np.array([[int(c) for c in row] for row in rows], np.uint8)
    mask = np.pad(mask, ((1, 3), (2, 1)))
    polygons = mask_to_polygons(mask)
    assert all(len(polygon) >= 4 for polygon in polygons)
    rle = coco_mask.merge(coco_mask.frPyObjects([p.ravel().astype(float).tolist() for p in polygons], *mask.shape))
    np.testing.assert_array_equal(coco_mask.decode(rle), mask)


def test_polygons_of_random_masks_are_exact():
    coco_mask = pytest.importorskip("pycocotools.mask")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask = (cv2.blur(rng.random((24, 31)), (3, 3)) > 0.5).astype(np.uint8)
        polygons = [p.ravel().astype(float).tolist() for p in mask_to_polygons(mask)]
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))
        np.testing.assert_array_equal(coco_mask.decode(rle), mask)
