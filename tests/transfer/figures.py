"""Figures of detectors that are made up, by mmdet's own evaluator."""

from __future__ import annotations

import numpy as np
import torch
from mmdet.evaluation import CocoMetric

from slotcon_plugin.transfer.mm_hooks import tidy_metrics


def judged(metric: CocoMetric, truth: dict, right: bool = False) -> dict[str, float]:
    """Of one that finds a box and a mask in each photo, far from all that is there; or every box, if it is right."""
    classes = [category["name"] for category in truth["categories"]]
    number = {category["id"]: index for index, category in enumerate(truth["categories"])}
    metric.dataset_meta = {"classes": classes}
    for image in truth["images"]:
        own = [one for one in truth["annotations"] if one["image_id"] == image["id"]] if right else []
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (one["bbox"] for one in own)] or [(900, 900, 901, 901)]
        mask = np.zeros((len(boxes), image["height"], image["width"]), bool)
        mask[:, -1, -1] = True
        found = {
            "bboxes": torch.tensor(boxes, dtype=torch.float64),
            "scores": torch.ones(len(boxes)),
            "labels": torch.tensor([number[one["category_id"]] for one in own] or [0]),
            "masks": torch.from_numpy(mask),
        }
        shape = (image["height"], image["width"])
        metric.process({}, [{"img_id": image["id"], "ori_shape": shape, "pred_instances": found}])
    return tidy_metrics(metric.evaluate(len(truth["images"])))
