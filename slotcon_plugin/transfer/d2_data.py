"""Data sets of detectron2: the built-in ones put elsewhere, and all of them checked before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.datasets import builtin, register_coco_instances
from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from detectron2.data.datasets.cityscapes import load_cityscapes_instances

from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.annotations import category_names
from slotcon_plugin.transfer.d2_evaluation import check_evaluable
from slotcon_plugin.transfer.own_boxes import has_outline, read_own_boxes

COCO_FILES = "train2017/*.jpg, val2017/*.jpg, annotations/instances_{train,val}2017.json"
CITYSCAPES_FILES = (
    "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png, gtFine/{train,val}/CITY/*_gtFine_{polygons.json,instanceIds.png,"
    "labelIds.png}"
)
VOC_FILES = "JPEGImages/*.jpg, Annotations/*.xml, ImageSets/Main/SPLIT.txt"
_FILES = {"coco": COCO_FILES, "cityscapes_instance": CITYSCAPES_FILES, "pascal_voc": VOC_FILES}
_BUILT_IN = {name for splits in builtin._PREDEFINED_SPLITS_COCO.values() for name in splits}
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


def is_own(name: str) -> bool:
    """Whether a registered data set was registered by the user, as one of COCO's form."""
    known = MetadataCatalog.get(name)
    of_coco = known.get("evaluator_type") == "coco" and known.get("json_file") and known.get("image_root")
    return bool(of_coco) and name not in _BUILT_IN


def check_data(cfg: CfgNode) -> None:
    """Everything that the data sets read is there, with the classes that the heads count.

    Training takes whatever detectron2 has registered; what is evaluated has to be of a type with an evaluator here.
    Annotation files that were registered as COCO's are read, and compared with their photos.

    Raises:
        UserError: a data set that is not registered, or that cannot be evaluated; which path is missing and which
            layout was expected; which classes do not agree; or what is wrong with an annotation file.
    """
    classes: dict[str, list[str]] = {}
    for name in dict.fromkeys(_registered(cfg)):
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
        own = is_own(name)
        if own:
            _check_annotations(cfg, name, known)
        classes[name] = _classes(name, known)
        _check_count(cfg, name, len(classes[name]))
        if own or (kind == "coco" and known.get("json_file") and name in cfg.DATASETS.TEST):
            _check_categories(name, Path(known.json_file), classes[name])
    _check_same_classes(classes)


def _classes(name: str, known: Metadata) -> list[str]:
    classes = known.get("thing_classes")
    if not classes and known.get("json_file"):  # register_coco_instances: read with the first photo
        classes = category_names(Path(known.json_file))
    if not classes:
        raise UserError(
            f"{name}: expected a data set of objects with boxes, and its metadata has no thing_classes; set them "
            "where it is registered"
        )
    return list(classes)


def _check_count(cfg: CfgNode, name: str, count: int) -> None:
    heads = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"
    if count != cfg.MODEL[heads].NUM_CLASSES:
        raise UserError(
            f"class count mismatch: MODEL.{heads}.NUM_CLASSES is {cfg.MODEL[heads].NUM_CLASSES}, {name} has {count} "
            "classes"
        )


def _check_categories(name: str, path: Path, classes: Sequence[str]) -> None:
    """A file's own categories replace what its data set was registered with."""
    found = category_names(path)
    if found != classes:
        odd = sorted(set(found) ^ set(classes))
        raise UserError(
            f"class mismatch: {path} lists {len(found)} categories, {name} has {len(classes)}; differing: "
            f"{odd[:5] or 'their order'}. Register a data set of your own (detectron2's register_coco_instances) and "
            "set NUM_CLASSES"
        )


def _check_annotations(cfg: CfgNode, name: str, known: Metadata) -> None:
    """Most of what is wrong with a file would stop detectron2 in the middle of a run, or after it."""
    path = Path(known.json_file)
    annotations = read_own_boxes(path, Path(known.image_root), area=name in cfg.DATASETS.TEST)["annotations"]
    of_all = f"of {len(annotations)} annotations of {path}"
    if ignored := sum(bool(one.get("ignore")) for one in annotations):
        raise UserError(
            f"{name}: {ignored} {of_all} are marked 'ignore', which detectron2 does not read: leave them out, or give "
            "them iscrowd: 1 in its place"
        )
    unknown = sum("iscrowd" in one and one["iscrowd"] is None for one in annotations)
    if unknown and name in cfg.DATASETS.TRAIN:
        raise UserError(
            f"{name}: {unknown} {of_all} have iscrowd: null, which detectron2 takes for crowds: give 0 in its place"
        )
    if not cfg.MODEL.MASK_ON:
        return
    if bare := sum(not has_outline(one) for one in annotations):
        raise UserError(
            f"{name}: {bare} {of_all} have no outline, and MODEL.MASK_ON is True: give MODEL.MASK_ON False, or outline "
            "all objects"
        )
    lengths = sum(isinstance(one["segmentation"], dict) and not one.get("iscrowd") for one in annotations)
    if lengths and name in cfg.DATASETS.TRAIN and cfg.INPUT.MASK_FORMAT == "polygon":
        raise UserError(
            f"{name}: the outlines of {lengths} {of_all} are run lengths (RLE), and INPUT.MASK_FORMAT is polygon: give "
            "INPUT.MASK_FORMAT bitmask"
        )


def _check_same_classes(classes: dict[str, list[str]]) -> None:
    """A label is a place in the list of its own data set."""
    first = next(iter(classes), None)
    for name, found in classes.items():
        expected = classes[first]
        if found != expected:
            place = next(index for index, pair in enumerate(zip(found, expected)) if pair[0] != pair[1])
            raise UserError(
                f"class mismatch: class {place} of {name} is {found[place]!r}, of {first} {expected[place]!r}. "
                "detectron2 numbers classes in the order of the categories' ids, so all data sets need the same names "
                "under the same ids"
            )
