"""Data of one's own in mm configs: what a config leaves open, by None, follows from the labels.

    dataset=dict(metainfo=dict(classes=None))    # those of the labels
    decode_head=dict(num_classes=None)           # as many
    val_evaluator=dict(ann_file=None)            # the validation data set's

A detector's mask head is left out where an annotation has no outline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.mm_data import datasets_of, evaluators_of, leaves_of, root_of
from slotcon_plugin.transfer.own_boxes import has_outline, read_own_boxes

_CLASSES_SHOWN = 12


def follow_labels(cfg: Config) -> None:
    """Fill in what a config leaves to its labels, in place; a config that leaves nothing open stays as it is.

    Raises:
        UserError: labels that are not there or not whole, splits of different classes, boxes without a class.
    """
    left_open = [dataset for dataset in datasets_of(cfg) if _is_open(dataset)]
    if not left_open:
        return
    train = left_open[0]
    if cfg.default_scope == "mmdet":
        files = {_annotations(dataset): dataset for dataset in left_open}
        labels = {path: _read(dataset) for path, dataset in files.items()}
        classes = _categories(labels)
        if bare := _without_outline(labels):
            _leave_out_masks(cfg, bare)
        _fill_annotation_files(cfg)
        for dataset in filter(_is_open, leaves_of(cfg.train_dataloader.dataset)):
            _tell_filtered(labels[_annotations(dataset)], dataset)
    else:
        classes = _mask_classes(left_open)
    for dataset in left_open:
        dataset.metainfo.classes = tuple(classes)
    for head in _open_heads(cfg.model):
        head["num_classes"] = len(classes)
    more = ", ..." if len(classes) > _CLASSES_SHOWN else ""
    print_log(f"{len(classes)} classes of {root_of(train)}: {', '.join(classes[:_CLASSES_SHOWN])}{more}", "current")


def _is_open(dataset: ConfigDict) -> bool:
    return (dataset.get("metainfo") or {}).get("classes", ()) is None


def _mask_classes(datasets: Sequence[ConfigDict]) -> Sequence[str]:
    """Those of all splits; where no file names them they are counted in the masks, and a split may lack the last."""
    # half a second that pretraining need not wait for
    from slotcon_plugin.evaluation import open_labelled_set
    from slotcon_plugin.evaluation.labelled_set import too_few_classes

    sets = {(str(root_of(each)), each.get("split", "train")): each for each in datasets}
    found = [open_labelled_set(*place) for place in sets]
    classes = max((each.classes for each in found), key=len)
    train, *_ = (labelled.check() for labelled in found)  # complains about foreign indices now, not after an hour
    if len(train) < 2:
        raise too_few_classes(found[0].name, [found[0].classes[k] for k in train])
    return classes


def _annotations(dataset: ConfigDict) -> Path:
    return root_of(dataset) / dataset.ann_file


def _read(dataset: ConfigDict) -> dict[str, Any]:
    path, root = _annotations(dataset), root_of(dataset)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist. Expected below {root}: photos in images/{{train,val}}/, annotations of COCO's "
            "form in annotations/{train,val}.json. Another folder: `slotcon finetune FOLDER`, or --data-root of "
            "tools/train.py; other names: --cfg-options train_dataloader.dataset.ann_file=FILE "
            "train_dataloader.dataset.data_prefix.img=FOLDER, and "
            "the same with val_dataloader and test_dataloader"
        )
    return read_own_boxes(path, root / dataset.data_prefix.img)


def _categories(labels: Mapping[Path, dict[str, Any]]) -> list[str]:
    """Names in the order of the first file, which is that of mmdet's class indices; the same in all files."""
    found = {path: [(c["id"], c["name"]) for c in each["categories"]] for path, each in labels.items()}
    (first, expected), *others = found.items()
    for path, categories in others:
        if categories != expected:
            odd = sorted(set(categories) ^ set(expected), key=repr)[:6]  # ids may be numbers here and texts there
            raise UserError(
                f"{path} has other categories (id, name) than {first}: {odd or 'in another order'}. All splits need "
                "the same list"
            )
    if not expected:
        raise UserError(f"{first} has no category: there is nothing to detect")
    return [name for _, name in expected]


def _without_outline(labels: Mapping[Path, dict[str, Any]]) -> str:
    """How many annotations of which file have none, in words; empty if all have one."""
    bare = {path: sum(not has_outline(one) for one in found["annotations"]) for path, found in labels.items()}
    counts = {path: len(found["annotations"]) for path, found in labels.items()}
    return ", ".join(f"{count:,} of {counts[path]:,} annotations of {path}" for path, count in bare.items() if count)


def _leave_out_masks(cfg: Config, bare: str) -> None:
    if not cfg.model.get("roi_head", {}).get("mask_head"):
        return
    print_log(f"A detector of boxes, without masks: there is no outline in {bare}", "current")
    cfg.model.roi_head.update(mask_head=None, mask_roi_extractor=None)
    for dataset in datasets_of(cfg):
        for step in dataset.pipeline:
            if step.get("with_mask"):
                step.with_mask = False
    for evaluator in (*evaluators_of(cfg, "val"), *evaluators_of(cfg, "test")):
        if "segm" in (evaluator.get("metric") or ()):  # one word, or a list of them
            evaluator.metric = "bbox"


def _tell_filtered(labels: Mapping[str, Any], dataset: ConfigDict) -> None:
    """mmdet leaves photos out of a training without a word."""
    rule, images = dataset.get("filter_cfg") or {}, labels["images"]
    of_all = f"of {len(images)} photos of {_annotations(dataset)}"
    option = "(--cfg-options train_dataloader.dataset.filter_cfg"
    with_object = {one["image_id"] for one in labels["annotations"]}
    empty = sum(image["id"] not in with_object for image in images) if rule.get("filter_empty_gt") else 0
    if empty:
        print_log(
            f"{empty} {of_all} have no object: not trained on {option}.filter_empty_gt=False keeps them)", "current"
        )
    least = rule.get("min_size", 0)
    if small := sum(min(image["width"], image["height"]) < least for image in images):
        text = f"{small} {of_all} have a side of less than {least} pixels: not trained on"
        print_log(f"{text} {option}.min_size=0 keeps them)", "current")


def _fill_annotation_files(cfg: Config) -> None:
    for part in ("val", "test"):
        for evaluator in evaluators_of(cfg, part):
            if evaluator.get("ann_file", "") is None:
                evaluator.ann_file = str(_annotations(cfg[f"{part}_dataloader"].dataset))


def _open_heads(section: Any) -> Iterator[dict[str, Any]]:
    if isinstance(section, dict):
        if section.get("num_classes", 0) is None:
            yield section
        for value in section.values():
            yield from _open_heads(value)
    elif isinstance(section, (list, tuple)):
        for value in section:
            yield from _open_heads(value)
