"""Data sets of mmdet and mmseg configs: put elsewhere, and checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from PIL import Image

from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.annotations import check_for_mmdet
from slotcon_plugin.transfer.mm_model import parts_of

_COCO = "train2017/*.jpg, val2017/*.jpg, annotations/instances_{train,val}2017.json"
# What each data set class expects below its data_root; shown when something is missing.
EXPECTED = {
    "CocoDataset": _COCO,
    "CocoObjectDataset": _COCO,
    "CityscapesDataset": "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png, gtFine/{train,val}/CITY/*_labelTrainIds.png "
    "(made by cityscapesscripts' createTrainIdLabelImgs)",
    "PascalVOCDataset": "JPEGImages/*.jpg, SegmentationClass/*.png, SegmentationClassAug/*.png, "
    "ImageSets/Segmentation/{train,aug,val}.txt",
    "ADE20KDataset": "images/{training,validation}/*.jpg, annotations/{training,validation}/*.png",
    "BaseSegDataset": "images/{train,val,test}/*.jpg, annotations/{train,val,test}/*.png (class indices)",
    "LabelledPhotosDataset": "images/{train,val}/*, annotations/{train,val}/*.png (class indices), classes.txt",
}
MASKS_LOOKED_AT = 8
BY_PILLOW = {"type": "LoadImageFromFile", "imdecode_backend": "pillow"}
"""Step of a pipeline that ``LoadPhoto`` does in a run. mmdet's and mmseg's inferencers look for a step of this name."""


def datasets_of(cfg: Config) -> Iterator[ConfigDict]:
    """Every data set of the dataloaders, those inside ConcatDataset and the like too."""
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if cfg.get(loader):
            yield from leaves_of(cfg[loader].dataset)


def leaves_of(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """The data sets that a wrapper (ConcatDataset, RepeatDataset, ...) holds; one that is none is its own."""
    inner = dataset.get("datasets") or ([dataset.dataset] if "dataset" in dataset else [])
    for each in inner:
        yield from leaves_of(each)
    if not inner:
        yield dataset


def num_photos(dataset: Any) -> int:
    """Of a built data set; one that repeats its photos has no more of them."""
    if hasattr(dataset, "datasets"):
        return sum(map(num_photos, dataset.datasets))
    return num_photos(dataset.dataset) if hasattr(dataset, "dataset") else len(dataset)


def read_by_load_photo(section: Any) -> None:
    """Put ``LoadPhoto`` in the place of every step that is :data:`BY_PILLOW`, in place."""
    for part in parts_of(section):
        if part == BY_PILLOW:
            part.clear()
            part["type"] = "LoadPhoto"


def relocate(cfg: Config, root: str | Path) -> None:
    """Let every data set, and the annotation files of the evaluators, lie below ``root``.

    Raises:
        UserError: the config's data sets do not share one data_root.
    """
    roots = {dataset.get("data_root") for dataset in datasets_of(cfg)}
    if len(roots) != 1 or None in roots:
        found = sorted(map(str, roots))
        raise UserError(f"--data-root needs a config whose data sets share one data_root, found {found}")
    old = str(roots.pop()).rstrip("/") + "/"
    for dataset in datasets_of(cfg):
        dataset.data_root = str(root)
    for evaluator in (*evaluators_of(cfg, "val"), *evaluators_of(cfg, "test")):
        if str(evaluator.get("ann_file", "")).startswith(old):
            evaluator.ann_file = str(Path(root) / evaluator.ann_file[len(old) :])


def evaluators_of(cfg: Config, part: str) -> list[ConfigDict]:
    """Metrics of ``val`` or ``test``: mmengine takes one, a list, or an Evaluator of them, or None."""
    given = cfg.get(f"{part}_evaluator") or []
    if isinstance(given, dict):
        given = given.get("metrics", given)
    return [given] if isinstance(given, dict) else list(given)


def root_of(dataset: ConfigDict) -> Path:
    """Where the files of a data set are looked for; without data_root their paths are whole."""
    return Path(dataset.get("data_root") or ".")


def check_evaluations(cfg: Config) -> None:
    """mmengine takes the three parts of an evaluation, or none of them.

    Raises:
        UserError: which part is missing.
    """
    for part in ("val", "test"):
        keys = [f"{part}_{name}" for name in ("dataloader", "cfg", "evaluator")]
        lacking = [key for key in keys if cfg.get(key) is None]
        if lacking and len(lacking) < len(keys):
            raise UserError(
                f"the config has no {' and no '.join(lacking)}: expected all of {', '.join(keys)}, or None for each "
                "of them to go without"
            )


def check_data(cfg: Config) -> None:
    """Everything that the data sets read is there, and has the classes of the config's heads.

    Raises:
        UserError: which path is missing and which layout was expected; or which classes do not agree or are not known.
    """
    heads = dict(_heads(cfg.model, "model"))
    for dataset in datasets_of(cfg):
        root = root_of(dataset)
        wanted = [dataset.get("ann_file"), *dataset.get("data_prefix", {}).values()]
        for path in (root, *(root / part for part in wanted if part)):
            if not path.exists():
                layout = EXPECTED.get(dataset.type, "what the config's data_prefix and ann_file say")
                raise UserError(
                    f"{dataset.type}: {path} does not exist. Expected below {root}: {layout}. "
                    "Another place: --data-root DIR"
                )
        classes = class_names(dataset)
        for name, count in heads.items():
            if count != len(classes):
                raise UserError(
                    f"class count mismatch: {name}.num_classes is {count}, {dataset.type} has {len(classes)} classes "
                    f"({', '.join(classes[:3])}, ...)"
                )
    for dataset in leaves_of(cfg.val_dataloader.dataset) if cfg.get("val_dataloader") else ():
        if dataset.get("data_prefix", {}).get("seg_map_path"):
            _check_masks(dataset, len(class_names(dataset)))
    _check_coco_files(cfg)


def class_names(dataset: ConfigDict) -> Sequence[str]:
    """Classes of a data set's config: its metainfo's, or those of its class in mmdet or mmseg.

    Raises:
        UserError: neither says them, or there is no such class.
    """
    if "classes" in (dataset.get("metainfo") or {}):
        return dataset.metainfo["classes"]
    from mmengine.registry import DATASETS, DefaultScope

    scope = DefaultScope.get_current_instance()
    kind = DATASETS.switch_scope_and_registry(scope.scope_name if scope else None)
    with kind as registry:
        found = dataset.type if isinstance(dataset.type, type) else registry.get(dataset.type)
    if found is None:
        raise UserError(
            f"{dataset.type}: {scope.scope_name if scope else 'mmengine'} has no data set of this type; expected one "
            "of its own, or one that a module of the config's custom_imports registers"
        )
    classes = getattr(found, "METAINFO", {}).get("classes")
    if classes is None:
        raise UserError(
            f"{dataset.type}: the config does not say which classes the data set has: give each of its data sets "
            "metainfo=dict(classes=('road', 'car', ...)), in the order of the indices"
        )
    return classes


def _heads(model: Any, where: str) -> Iterator[tuple[str, int]]:
    """(path, num_classes) of every head; the region proposals' head has none that counts classes."""
    if isinstance(model, dict):
        if isinstance(model.get("num_classes"), int):
            yield where, model["num_classes"]
        for key, value in model.items():
            if key != "rpn_head":
                yield from _heads(value, f"{where}.{key}")
    elif isinstance(model, (list, tuple)):
        for index, value in enumerate(model):
            yield from _heads(value, f"{where}[{index}]")


def _check_coco_files(cfg: Config) -> None:
    evaluators = (*evaluators_of(cfg, "val"), *evaluators_of(cfg, "test"))
    judged = {str(each.ann_file) for each in evaluators if _is_coco(each, "CocoMetric")}
    datasets = [dataset for dataset in datasets_of(cfg) if _is_coco(dataset, "CocoDataset")]
    for path, dataset in {root_of(dataset) / dataset.ann_file: dataset for dataset in datasets}.items():
        check_for_mmdet(path, class_names(dataset), str(path) in judged)


def _is_coco(section: ConfigDict, kind: str) -> bool:
    """Whether a data set or an evaluator is mmdet's own for COCO's files; others number classes by their own rules."""
    name = section.type if isinstance(section.type, str) else section.type.__name__
    return name.rpartition(".")[2] == kind and str(section.get("ann_file", "")).endswith(".json")


def _check_masks(dataset: ConfigDict, num_classes: int) -> None:
    folder = root_of(dataset) / dataset.data_prefix["seg_map_path"]
    reduce_zero = any(step.get("reduce_zero_label") for step in dataset.get("pipeline", ()))
    ignored = {dataset.get("ignore_index", 255)}
    highest = num_classes if reduce_zero else num_classes - 1
    usual = "_gtFine_labelTrainIds.png" if dataset.type == "CityscapesDataset" else ".png"
    suffix = dataset.get("seg_map_suffix", usual)
    masks = sorted(folder.rglob(f"*{suffix}"))
    if not masks:
        layout = EXPECTED.get(dataset.type, "class indices as png")
        raise UserError(f"{dataset.type}: no mask *{suffix} in {folder}. Expected: {layout}")
    for path in masks[:: max(len(masks) // MASKS_LOOKED_AT, 1)][:MASKS_LOOKED_AT]:
        found = set(np.unique(np.asarray(Image.open(path))).tolist())
        if odd := sorted(index for index in found - ignored if index > highest):
            raise UserError(
                f"class count mismatch: {path} has index {odd[0]}, the config has {num_classes} classes "
                f"(0..{highest}) and ignores {sorted(ignored)}"
            )
