"""detectron2's built-in data sets: put elsewhere, and checked before anything is built."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import builtin, register_coco_instances
from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from detectron2.data.datasets.cityscapes import load_cityscapes_instances

from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.annotations import category_names

COCO_FILES = "train2017/*.jpg, val2017/*.jpg, annotations/instances_{train,val}2017.json"
CITYSCAPES_FILES = (
    "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png, gtFine/{train,val}/CITY/*_gtFine_{polygons.json,instanceIds.png,"
    "labelIds.png}"
)


def relocate(cfg: CfgNode, root: str | Path) -> None:
    """Let the config's COCO 2017 and Cityscapes data sets lie in ``root``, the folder of that one data set.

    detectron2 itself looks below the folder that the environment variable DETECTRON2_DATASETS names.

    Raises:
        UserError: the config uses another data set.
    """
    root = Path(root)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        split = name.rsplit("_", 1)[-1]
        coco = builtin._PREDEFINED_SPLITS_COCO["coco"].get(name)
        if not coco and name != f"cityscapes_fine_instance_seg_{split}":
            raise UserError(
                f"--data-root knows COCO 2017 and Cityscapes, not {name}: set DETECTRON2_DATASETS or register it"
            )
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        if coco:
            images, annotations = (root / path.removeprefix("coco/") for path in coco)
            register_coco_instances(name, _get_builtin_metadata("coco"), str(annotations), str(images))
        else:
            _register_cityscapes(name, root / "leftImg8bit" / split, root / "gtFine" / split)


def _register_cityscapes(name: str, images: Path, truth: Path) -> None:
    def load() -> list[dict]:
        return load_cityscapes_instances(str(images), str(truth), from_json=True, to_polygons=True)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        image_dir=str(images),
        gt_dir=str(truth),
        evaluator_type="cityscapes_instance",
        **_get_builtin_metadata("cityscapes"),
    )


def check_data(cfg: CfgNode) -> None:
    """Everything that the data sets read is there, with the classes that the heads count.

    Raises:
        UserError: which path is missing and which layout was expected; or which classes do not agree.
    """
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        known = MetadataCatalog.get(name)
        coco = known.get("evaluator_type") == "coco"
        paths = [known.json_file, known.image_root] if coco else [known.image_dir, known.gt_dir]
        for path in map(Path, paths):
            if not path.exists():
                raise UserError(
                    f"{name}: {path} does not exist. Expected: {COCO_FILES if coco else CITYSCAPES_FILES}. "
                    "Another place: --data-root DIR, or the environment variable DETECTRON2_DATASETS"
                )
        count = len(known.thing_classes)
        if count != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
            raise UserError(
                f"class count mismatch: MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, "
                f"{name} has {count} classes"
            )
        if coco and name in cfg.DATASETS.TEST:
            _check_categories(Path(known.json_file), list(known.thing_classes))


def _check_categories(path: Path, classes: list[str]) -> None:
    found = category_names(path)
    if found != classes:
        odd = sorted(set(found) ^ set(classes))
        raise UserError(
            f"class mismatch: {path} lists {len(found)} categories, COCO 2017 has {len(classes)}; differing: "
            f"{odd[:5]}. Register a data set of your own (detectron2's register_coco_instances) and set NUM_CLASSES"
        )
