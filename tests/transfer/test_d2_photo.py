"""Which photos detectron2 sees of a data set of one's own, and of a published one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode

from slotcon_plugin.photos import PhotoError, read_photo, upright_size
from slotcon_plugin.photos.photo import EXIF_ORIENTATION
from slotcon_plugin.transfer.d2_photo import PhotoMapper
from slotcon_plugin.transfer.d2_trainer import TransferTrainer

from .d2_configs import load

OWN = "own_photos_of_the_tests"


def config(**of_input):
    cfg = load("mask_rcnn_r50_fpn_1x_coco")
    cfg.MODEL.MASK_ON, cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = False, 0, 1
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.RANDOM_FLIP = (0,), 0, "none"
    cfg.INPUT.merge_from_list([part for pair in of_input.items() for part in pair])
    return cfg


def scene(width=90, height=60):
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    return (np.stack([np.sin(x) * np.cos(y), np.cos(x + y), np.sin(x * y)], axis=-1) * 110 + 128).astype(np.uint8)


def photo_of_kind(folder, kind):
    suffix, tag = {"deep": (".png", 1), "tiff 3": (".tif", 3), "tiff 6": (".tif", 6)}.get(kind, (".jpg", 6))
    path = folder / f"photo{suffix}"
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = tag
    pixels = scene()[..., 0].astype(np.uint16) << 8 if kind == "deep" else scene()
    Image.fromarray(pixels).save(path, **({"tiffinfo": exif} if suffix == ".tif" else {"exif": exif}))
    return path


def as_dict(path):
    """The photo as detectron2's catalogue has it, with an object."""
    width, height = upright_size(path)
    box = {"bbox": [5, 10, 20, 30], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}
    return {"file_name": str(path), "width": width, "height": height, "annotations": [box]}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", ["deep", "tiff 3", "tiff 6", "jpeg"])
def test_the_detector_sees_what_read_photo_gives(tmp_path, kind, train):
    path = photo_of_kind(tmp_path, kind)
    for order, channels in (("BGR", [2, 1, 0]), ("RGB", [0, 1, 2])):
        sample = PhotoMapper(config(FORMAT=order), is_train=train)(as_dict(path))
        np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), read_photo(path)[..., channels])
    assert ("instances" in sample, "annotations" in sample) == (train, False)


def test_an_ordinary_photo_is_as_detectron2_makes_it(tmp_path):
    path = tmp_path / "plain.jpg"
    Image.fromarray(scene(200, 150)).save(path, quality=90)
    cfg = config(MIN_SIZE_TRAIN=(64,), RANDOM_FLIP="horizontal")
    cfg.INPUT.CROP.ENABLED = True
    samples = []
    for kind in (DatasetMapper, PhotoMapper):
        np.random.seed(2)
        samples.append(kind(cfg, is_train=True)(as_dict(path)))
    theirs, ours = samples
    assert theirs.keys() == ours.keys()
    assert (theirs["image"].int() - ours["image"].int()).abs().max() <= 1
    assert torch.equal(theirs["instances"].gt_boxes.tensor, ours["instances"].gt_boxes.tensor)
    assert torch.equal(theirs["instances"].gt_classes, ours["instances"].gt_classes)


def test_a_photo_that_cannot_be_read_is_named(tmp_path):
    path = photo_of_kind(tmp_path, "jpeg")
    known = as_dict(path)
    path.write_bytes(b"no photo")
    with pytest.raises(PhotoError, match=r"photo\.jpg: cannot be read as a photo"):
        PhotoMapper(config(), is_train=True)(known)


@pytest.mark.parametrize(("name", "mapper"), [(OWN, PhotoMapper), ("coco_2014_minival_100", DatasetMapper)])
def test_published_data_sets_keep_detectron2s_reader(boxes, monkeypatch, name, mapper):
    register_coco_instances(OWN, {}, str(boxes / "annotations/val.json"), str(boxes / "images/val"))
    try:
        if name != OWN:
            monkeypatch.setitem(DatasetCatalog.data, name, DatasetCatalog.data[OWN])
        cfg = config()
        cfg.DATASETS.TRAIN = (name,)
        test, train = TransferTrainer.build_test_loader(cfg, name), TransferTrainer.build_train_loader(cfg)
        assert "instances" not in next(iter(test))[0] and "instances" in next(iter(train))[0]
        while not hasattr(train, "_map_func"):
            train = train.dataset
        assert [type(loader._map_func._obj) for loader in (test.dataset, train)] == [mapper, mapper]
    finally:
        DatasetCatalog.remove(OWN)
        MetadataCatalog.remove(OWN)
