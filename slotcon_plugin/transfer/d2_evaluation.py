"""detectron2's evaluators, and their figures under the names of result files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import CityscapesInstanceEvaluator, COCOEvaluator, DatasetEvaluator

CITYSCAPES_AP = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"


class CityscapesEvaluator(CityscapesInstanceEvaluator):
    """With cityscapesscripts 2.3.0 kept working under numpy 2.4, and out of the current folder."""

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """``{'segm': {'AP': ..., 'AP50': ...}}`` in percent on the main process."""
        with (
            mock.patch.object(np, "in1d", np.isin, create=True),  # numpy 2.4 has it no more
            mock.patch(f"{CITYSCAPES_AP}.writeDict2JSON"),  # a matches.json that nobody reads and numpy 2 cannot write
        ):
            return super().evaluate()


def build_evaluator(dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """COCO's or Cityscapes' own, by what the data set says of itself.

    Raises:
        ValueError: a data set of another type.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind == "coco":
        return COCOEvaluator(dataset_name, output_dir=str(Path(output_dir) / "inference"))
    if kind == "cityscapes_instance":
        return CityscapesEvaluator(dataset_name)
    raise ValueError(f"{dataset_name}: no evaluator for type {kind!r}; known: coco, cityscapes_instance")


def tidy_metrics(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """``{'bbox': {'AP': 41.0, 'AP50': ...}, 'segm': ...}`` -> ``AP_box``, ``AP50_box``, ..., ``AP_mask``, in percent.

    Figures of single classes and those that were not measured (NaN: no object of that size) are left out. A model
    that detects nothing gets NaN from detectron2 throughout; that is an AP of 0.
    """
    tidy = {}
    for task, kind in (("bbox", "box"), ("segm", "mask")):
        block = results.get(task, {})
        nothing_found = bool(block) and all(math.isnan(value) for value in block.values())
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
            value = block.get(name, math.nan)
            if not math.isnan(value):
                tidy[f"{name}_{kind}"] = round(float(value), 4)
            elif nothing_found and name in ("AP", "AP50", "AP75") and name in block:
                tidy[f"{name}_{kind}"] = 0.0
    return tidy
