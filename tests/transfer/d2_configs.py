"""The configs of detectron2: how the tests read them and make them small."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("detectron2")

from detectron2.config import CfgNode

from slotcon_plugin.transfer.d2_config import base_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "transfer" / "detectron2"
TINY = {
    "SOLVER.MAX_ITER": "2",
    "SOLVER.STEPS": "(1,)",
    "SOLVER.IMS_PER_BATCH": "2",
    "TEST.PRECISE_BN.NUM_ITER": "1",
    "TEST.EVAL_PERIOD": "0",
    "SEED": "3",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": "64",
    "DATALOADER.NUM_WORKERS": "0",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "8",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": "20",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "10",
}
SMALL = TINY | {"MODEL.RESNETS.DEPTH": "18", "MODEL.RESNETS.RES2_OUT_CHANNELS": "64"}
# of timm's networks -> a small one of the family
OF_TIMM = {
    "mask_rcnn_convnext_tiny_fpn_1x_coco": "convnext_atto",
    "mask_rcnn_lite0_fpn_1x_coco": "tf_efficientnet_lite0",
}


def flat(node: CfgNode, prefix: str = "") -> dict:
    items = {}
    for key, value in node.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else {prefix + key: value}
    return items


def load(name: str) -> CfgNode:
    cfg = base_config()
    cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
    return cfg


def d2_config(name: str) -> CfgNode:
    cfg = load(name)
    cfg.MODEL.DEVICE = "cpu"
    return cfg
