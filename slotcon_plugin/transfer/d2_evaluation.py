"""detectron2's evaluators, and their figures under the names of result files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import CityscapesInstanceEvaluator, COCOEvaluator, DatasetEvaluator
from detectron2.utils import comm

from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.annotations import make_judgeable, measurable_sizes

_EVALUATED = ("coco", "cityscapes_instance")
_TASKS = {"bbox": "box", "segm": "mask"}


class OwnCocoEvaluator(COCOEvaluator):
    """As detectron2's, for files as labelling tools export them, too."""

    def __init__(self, dataset_name: str, tasks: tuple[str, ...], output_dir: str) -> None:
        super().__init__(dataset_name, tasks, output_dir=output_dir)
        make_judgeable(self._coco_api.dataset.get("annotations", ()))
        self._coco_api.createIndex()

    def _derive_coco_results(self, coco_eval: Any, iou_type: str, class_names: Any = None) -> dict[str, float]:
        """detectron2's; of a model that detects nothing it says NaN throughout, and its AP is 0."""
        found = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if coco_eval is None:
            sizes = measurable_sizes(Path(self._metadata.json_file))
            found |= dict.fromkeys(("AP", "AP50", "AP75", *(f"AP{size}" for size in sizes)), 0.0)
        return found


class CityscapesEvaluator(CityscapesInstanceEvaluator):
    """As detectron2's, with the parts of cityscapesscripts put together here.

    Its own ``evaluateImgLists`` also writes a matches.json into the current folder, which nobody reads and which
    fails on numpy 2's integers.
    """

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """``{'segm': {'AP': ..., 'AP50': ...}}`` in percent on the main process."""
        comm.synchronize()
        if comm.get_rank() > 0:
            return None
        judge = import_module("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
        args = judge.args
        args.predictionPath, args.predictionWalk, args.quiet = self._temp_dir, None, True
        truth = [str(path) for path in sorted(Path(self._metadata.gt_dir).glob("*/*_gtFine_instanceIds.png"))]
        predictions = [judge.getPrediction(path, args) for path in truth]
        judge.setInstanceLabels(args)
        # cityscapesscripts 2.3.0 calls a name that numpy 2.4 has dropped
        with patch.object(np, "in1d", np.isin, create=True):
            matches = judge.matchGtWithPreds(predictions, truth, judge.instances2dict(truth, False), args)
        averages = judge.computeAverages(judge.evaluateMatches(matches, args), args)
        self._working_dir.cleanup()
        return {"segm": {"AP": 100 * averages["allAp"], "AP50": 100 * averages["allAp50%"]}}


def check_evaluable(dataset_name: str, option: str = "") -> str:
    """The type of a data set, as its metadata say it.

    Args:
        dataset_name: a registered one.
        option: that named it, before the sentence.

    Raises:
        UserError: there is no evaluator for its type here.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in _EVALUATED:
        raise UserError(
            f"{option}{dataset_name}: no evaluator for type {kind!r}; known: {', '.join(_EVALUATED)}. Train on it with "
            "DATASETS.TEST '()', or test on a data set of a known type"
        )
    return kind


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """COCO's or Cityscapes' own, by what the data set says of itself.

    Raises:
        UserError: a data set of another type.
    """
    if check_evaluable(dataset_name) == "coco":
        return OwnCocoEvaluator(dataset_name, tasks_of(cfg), output_dir=str(Path(cfg.OUTPUT_DIR) / "inference"))
    return CityscapesEvaluator(dataset_name)


def tasks_of(cfg: CfgNode) -> tuple[str, ...]:
    """What a config's detector gives of an object, whether it finds one or not."""
    model = cfg.MODEL
    heads = {"segm": model.MASK_ON, "keypoints": model.KEYPOINT_ON}
    if model.META_ARCHITECTURE not in ("GeneralizedRCNN", "PanopticFPN"):  # a RetinaNet does not ask for masks
        heads = {}
    return ("bbox", *(task for task, has in heads.items() if has))


def tidy_metrics(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """``{'bbox': {'AP': 41.0, 'AP50': ...}, 'segm': ...}`` -> ``AP_box``, ``AP50_box``, ..., ``AP_mask``, in percent.

    Of several data sets (``{'own_val': {'bbox': ...}, 'own_test': ...}``): ``AP_box/own_val``, ``AP_box/own_test``, ...

    Figures of single classes and those that were not measured (NaN: no object of that size) are left out. A model that
    detects nothing gets NaN throughout from Cityscapes' evaluator; that is an AP of 0.
    """
    if results.keys() & _TASKS.keys():
        return _of_one_set(results)
    sets = {name: _of_one_set(found) for name, found in results.items()}
    return {f"{figure}/{name}": value for name, found in sets.items() for figure, value in found.items()}


def _of_one_set(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    tidy = {}
    for task, kind in _TASKS.items():
        block = results.get(task, {})
        nothing_found = bool(block) and all(math.isnan(value) for value in block.values())
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
            value = block.get(name, math.nan)
            if not math.isnan(value):
                tidy[f"{name}_{kind}"] = round(float(value), 4)
            elif nothing_found and name in ("AP", "AP50", "AP75") and name in block:
                tidy[f"{name}_{kind}"] = 0.0
    return tidy
