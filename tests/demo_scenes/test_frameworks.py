"""The frameworks' own dataset classes read the layouts, and see what was drawn."""

import numpy as np
import pytest

from slotcon_plugin.demo_scenes import CLASSES, layouts, make_demo_scenes, render_scene

SIZE = (96, 64)
PIPELINE = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
MMSEG = {
    "cityscapes": (
        "CityscapesDataset",
        dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        {name: entry[0] for name, entry in layouts.CITYSCAPES_IDS.items()},
    ),
    # reduce_zero_label of the dataset turns 1..150 into 0..149
    "ade20k": (
        "ADE20KDataset",
        dict(img_path="images/validation", seg_map_path="annotations/validation"),
        {name: k - 1 for name, k in layouts.ADE20K_IDS.items()},
    ),
    "voc": (
        "PascalVOCDataset",
        dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        layouts.VOC_IDS,
    ),
}


@pytest.mark.parametrize("layout", MMSEG)
def test_mmsegmentation(tmp_path, layout):
    datasets = pytest.importorskip("mmseg.datasets")
    from mmseg.utils import register_all_modules

    register_all_modules()
    name, prefix, ids = MMSEG[layout]
    root = make_demo_scenes(tmp_path / "out", {"train": 1, "val": 2}, SIZE, layout=layout)
    extra = {"ann_file": "ImageSets/Segmentation/val.txt"} if layout == "voc" else {}
    data = getattr(datasets, name)(data_root=str(root), data_prefix=prefix, pipeline=PIPELINE, **extra)
    assert len(data) == 2
    table = np.array([ids[name] for name in CLASSES])
    for index in range(2):
        sample, scene = data[index], render_scene(0, 1_000_000 + index, SIZE)
        np.testing.assert_array_equal(sample["gt_seg_map"], table[scene.semantic])
        assert np.abs(sample["img"][..., ::-1].astype(float) - scene.image).mean() < 6


def test_mmdetection(tmp_path):
    datasets = pytest.importorskip("mmdet.datasets")
    from mmdet.utils import register_all_modules

    register_all_modules()
    root = make_demo_scenes(tmp_path / "out", {"train": 3, "val": 1}, SIZE, layout="coco")
    data = datasets.CocoDataset(
        data_root=str(root),
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True)],
    )
    assert len(data) == 3
    for index in range(3):
        sample, scene = data[index], render_scene(0, index, SIZE)
        masks = sample["gt_masks"].to_ndarray()
        labels = [data.metainfo["classes"][k] for k in sample["gt_bboxes_labels"]]
        assert labels == [layouts.COCO_IDS[CLASSES[category]][1] for category in scene.categories]
        for number, mask in enumerate(masks, start=1):
            np.testing.assert_array_equal(mask, scene.instances == number)
