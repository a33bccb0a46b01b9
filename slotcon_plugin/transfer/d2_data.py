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
from slotcon_plugin.transfer.d2_evaluation import check_evaluable

COCO_FILES = "train2017/*.jpg, val2017/*.jpg, annotations/instances_{train,val}2017.json"
CITYSCAPES_FILES = (
    "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png, gtFine/{train,val}/CITY/*_gtFine_{polygons.json,instanceIds.png,"
    "labelIds.png}"
)
VOC_FILES = "JPEGImages/*.jpg, Annotations/*.xml, ImageSets/Main/SPLIT.txt"
_FILES = {"coco": COCO_FILES, "cityscapes_instance": CITYSCAPES_FILES, "pascal_voc": VOC_FILES}
_PATHS = ("json_file", "image_root", "image_dir", "gt_dir", "dirname")  # keys of metadata; dirname is VOC's


def relocate(cfg: CfgNode, root: str | Path) -> None:
    """Let the config's COCO 2017 and Cityscapes data sets lie in ``root``, the folder of that one data set.

    detectron2 itself looks below the folder that the environment variable DETECTRON2_DATASETS names.

    Raises:
        UserError: the config uses another data set.
    """
    root = Path(root)
    for name in _registered(cfg):
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


def _registered(cfg: CfgNode) -> list[str]:
    """Names of the data sets to train and to test on."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if foreign := [name for name in names if name not in DatasetCatalog]:
        raise UserError(
            f"DATASETS.TRAIN, DATASETS.TEST: detectron2 knows no data set {foreign[0]!r}; expected one of its own, "
            "such as coco_2017_train, or one registered before with its register_coco_instances"
        )
    return names


def check_data(cfg: CfgNode) -> None:
    """Everything that the data sets read is there, with the classes that the heads count.

    Training takes whatever detectron2 has registered; what is evaluated has to be of a type with an evaluator here.

    Raises:
        UserError: a data set that is not registered, or that cannot be evaluated; which path is missing and which
            layout was expected; or which classes do not agree.
    """
    for name in _registered(cfg):
        known = MetadataCatalog.get(name)
        kind = known.get("evaluator_type")
        if name in cfg.DATASETS.TEST:
            check_evaluable(name, "DATASETS.TEST: ")
        for path in (Path(known.get(key)) for key in _PATHS if known.get(key)):
            if not path.exists():
                raise UserError(
                    f"{name}: {path} does not exist. Expected: {_FILES.get(kind, 'what was registered')}. "
                    "Another place: --data-root DIR, or the environment variable DETECTRON2_DATASETS"
                )
        if kind == "pascal_voc" and cfg.MODEL.MASK_ON:
            raise UserError(f"{name} has boxes and no outlines, and MODEL.MASK_ON is True: give MODEL.MASK_ON False")
        classes = known.get("thing_classes")
        if not classes and known.get("json_file"):  # register_coco_instances: read with the first photo
            classes = category_names(Path(known.json_file))
        if not classes:
            raise UserError(
                f"{name}: expected a data set of objects with boxes, and its metadata has no thing_classes; set them "
                "where it is registered"
            )
        count = len(classes)
        if count != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
            raise UserError(
                f"class count mismatch: MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, "
                f"{name} has {count} classes"
            )
        if kind == "coco" and name in cfg.DATASETS.TEST:
            _check_categories(Path(known.json_file), list(classes))


def _check_categories(path: Path, classes: list[str]) -> None:
    found = category_names(path)
    if found != classes:
        odd = sorted(set(found) ^ set(classes))
        raise UserError(
            f"class mismatch: {path} lists {len(found)} categories, COCO 2017 has {len(classes)}; differing: "
            f"{odd[:5]}. Register a data set of your own (detectron2's register_coco_instances) and set NUM_CLASSES"
        )
