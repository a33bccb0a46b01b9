"""Data of one's own in mm configs: what a config leaves open, by None, follows from the labels.

    dataset=dict(metainfo=dict(classes=None))    # those of the labels
    decode_head=dict(num_classes=None)           # as many
    val_evaluator=dict(ann_file=None)            # the validation data set's

A detector's mask head is left out where an annotation has no outline.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from slotcon_plugin.errors import UserError
from slotcon_plugin.photos import evenly_spaced
from slotcon_plugin.transfer.mm_data import MASKS_LOOKED_AT, datasets_of, evaluators_of, root_of

if TYPE_CHECKING:
    from slotcon_plugin.evaluation import LabelledSet

_CLASSES_SHOWN = 12
_NEEDED = {  # by pycocotools and mmdet, which read them without a question
    "categories": ("id", "name"),
    "images": ("file_name", "id", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
}
_TYPES = {  # of what is needed
    **dict.fromkeys(("name", "file_name"), ((str,), "a text")),
    **dict.fromkeys(("id", "image_id", "category_id"), ((int, float, str), "a number or a text")),
    **dict.fromkeys(("width", "height", "area"), ((int, float), "a number")),
    "bbox": ((list,), "a list of four numbers: x, y, width, height"),
}


def follow_labels(cfg: Config) -> None:
    """Fill in what a config leaves to its labels, in place; a config that leaves nothing open stays as it is.

    Raises:
        UserError: labels that are not there or not whole, splits of different classes, boxes without a class.
    """
    left_open = [dataset for dataset in datasets_of(cfg) if (dataset.get("metainfo") or {}).get("classes", ()) is None]
    if not left_open:
        return
    train = left_open[0]
    if cfg.default_scope == "mmdet":
        files = {_annotations(dataset): dataset for dataset in left_open}
        labels = {path: _read(dataset) for path, dataset in files.items()}
        classes = _categories(labels)
        for dataset in left_open:
            _check_photos(dataset, labels[_annotations(dataset)])
        if bare := _without_outline(labels):
            _leave_out_masks(cfg, bare)
        _fill_annotation_files(cfg)
    else:
        classes = _mask_classes(left_open)
    for dataset in left_open:
        dataset.metainfo.classes = tuple(classes)
    for head in _open_heads(cfg.model):
        head["num_classes"] = len(classes)
    more = ", ..." if len(classes) > _CLASSES_SHOWN else ""
    print_log(f"{len(classes)} classes of {root_of(train)}: {', '.join(classes[:_CLASSES_SHOWN])}{more}", "current")


def _mask_classes(datasets: Sequence[ConfigDict]) -> Sequence[str]:
    """Those of all splits; where no file names them they are counted in the masks, and a split may lack the last."""
    from slotcon_plugin.evaluation import open_labelled_set  # half a second that pretraining need not wait for

    sets = {(str(root_of(each)), each.get("split", "train")): each for each in datasets}
    found = [open_labelled_set(*place) for place in sets]
    classes = max((each.classes for each in found), key=len)
    for labelled in found:
        for index in evenly_spaced(len(labelled), MASKS_LOOKED_AT):
            labelled.read(index)  # complains about foreign indices now, and not after an hour
    _require_two_classes(found[0])
    return classes


def _require_two_classes(labelled: LabelledSet) -> None:
    """Refuse what nothing is learned from; a mask or two is enough to know better, save of objects that are rare."""
    from slotcon_plugin.evaluation.metrics import IGNORE
    from slotcon_plugin.evaluation.readers import too_few_classes

    seen: set[int] = set()
    for index in range(len(labelled)):
        seen |= {*np.unique(labelled.read(index).label).tolist()} - {IGNORE}
        if len(seen) > 1:
            return
    raise too_few_classes(labelled.name, [labelled.classes[k] for k in seen])


def _annotations(dataset: ConfigDict) -> Path:
    return root_of(dataset) / dataset.ann_file


def _read(dataset: ConfigDict) -> dict[str, Any]:
    path = _annotations(dataset)
    try:
        found = json.loads(path.read_bytes())
        for part, needed in _NEEDED.items():
            _check_entries(found, part, needed)
        return found
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist. Expected below {root_of(dataset)}: photos in images/{{train,val}}/, annotations "
            "of COCO's form in annotations/{train,val}.json. Another place: --data-root DIR; other names: "
            "--cfg-options train_dataloader.dataset.ann_file=FILE train_dataloader.dataset.data_prefix.img=FOLDER, and "
            "the same with val_dataloader and test_dataloader"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is no whole annotation file of COCO's form: {reason}") from error


def _check_entries(found: dict[str, Any], part: str, needed: Sequence[str]) -> None:
    """Raises what :func:`_read` makes a sentence of."""
    entries = found[part]
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise TypeError(f"{part} has to be a list of objects")
    lacking = [index for index, entry in enumerate(entries) if any(entry.get(key) is None for key in needed)]
    if lacking:
        first = entries[lacking[0]]
        keys = [key for key in needed if first.get(key) is None]
        area = " (area: width x height of the bbox where there is no outline)" if "area" in keys else ""
        raise ValueError(
            f"{part}[{lacking[0]}] (id {first.get('id')}) has no {', '.join(map(repr, keys))}; {len(lacking)} of "
            f"{len(entries)} {part} are incomplete. Each needs {', '.join(needed)}: add them{area}, or export the "
            "labels again"
        )
    for index, entry in enumerate(entries):
        for key in needed:
            kinds, expected = _TYPES[key]
            if not isinstance(entry[key], kinds) or isinstance(entry[key], bool):
                raise TypeError(
                    f"{part}[{index}] (id {entry['id']}) has {reprlib.repr(entry[key])} as {key!r}: expected {expected}"
                )


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


def _check_photos(dataset: ConfigDict, found: dict[str, Any]) -> None:
    """Annotation files travel without their photos, or with the paths of another machine in them."""
    folder = root_of(dataset) / dataset.data_prefix.img
    names = [image["file_name"] for image in found["images"]]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(
            f"{len(missing)} of {len(names)} photos that {_annotations(dataset)} names are not there; the first is "
            f"{folder / missing[0]}. file_name has to be a path below {folder}"
        )
    if not names or not found["annotations"]:
        raise UserError(f"{_annotations(dataset)} has {len(names)} photos and {len(found['annotations'])} annotations")


def _without_outline(labels: Mapping[Path, dict[str, Any]]) -> str:
    """How many annotations of which file have none, in words; empty if all have one."""
    bare = {path: sum(not one.get("segmentation") for one in found["annotations"]) for path, found in labels.items()}
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
