"""What a run of detectron2 begins with: a backbone, or the whole detector that MODEL.WEIGHTS names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("detectron2")

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from slotcon_plugin.convert import read_checkpoint
from slotcon_plugin.errors import ConversionError, UserError
from slotcon_plugin.results import read_result
from slotcon_plugin.transfer import d2
from slotcon_plugin.transfer.checkpoint import FACTS
from slotcon_plugin.transfer.d2_start import first_weights, use_weights
from slotcon_plugin.transfer.d2_trainer import check_backbone_arrived

from .d2_configs import CONFIGS, SMALL, d2_config

CONFIG = str(CONFIGS / "mask_rcnn_r50_fpn_1x_coco.yaml")


@pytest.fixture
def cfg(tmp_path) -> CfgNode:
    """Of a Mask R-CNN on a ResNet-18; MODEL.WEIGHTS is a whole one."""
    cfg = d2_config("mask_rcnn_r50_fpn_1x_coco")
    cfg.merge_from_list([word for pair in SMALL.items() for word in pair])
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = str(tmp_path / "run"), str(tmp_path / "model_final.pth")
    torch.manual_seed(7)
    facts = {"pretraining": "vader", "backbone_sha256": "of its own beginning", "fpn": False}
    torch.save({"model": build_model(cfg).state_dict(), "meta": {FACTS: facts}}, cfg.MODEL.WEIGHTS)
    return cfg


def test_a_whole_detector_is_taken_whole(cfg):
    given = torch.load(cfg.MODEL.WEIGHTS)["model"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    origin = use_weights(cfg, first_weights(cfg, None, False), None)
    assert (origin.pretraining, origin.fpn) == ("vader", True)
    assert origin.sha256 == read_checkpoint(cfg.MODEL.WEIGHTS).meta["backbone_sha256"]
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    check_backbone_arrived(model, origin)
    others = [key for key, value in model.state_dict().items() if not torch.equal(value, given[key])]
    assert {key.split(".")[-2] for key in others} == {"cls_score", "bbox_pred", "predictor"}  # of other classes


def test_what_is_asked_for_as_a_backbone_is_one(cfg, pretrained):
    assert first_weights(cfg, cfg.MODEL.WEIGHTS, False) == (cfg.MODEL.WEIGHTS, None)
    cfg.MODEL.WEIGHTS = str(pretrained(18))
    assert first_weights(cfg, None, False) == (cfg.MODEL.WEIGHTS, None)
    cfg.MODEL.WEIGHTS = "gone.pth"
    assert first_weights(cfg, None, True) == ("gone.pth", None)
    with pytest.raises(UserError, match=r"gone\.pth does not exist"):
        first_weights(cfg, None, False)
    cfg.MODEL.WEIGHTS = ""
    assert first_weights(cfg, None, False) == (None, None)


def test_a_detector_with_another_pyramid_is_refused(cfg):
    cfg.MODEL.FPN.OUT_CHANNELS = 128
    with pytest.raises(UserError, match=r"does not hold the backbone of this config: .*'backbone\.fpn_lateral2"):
        use_weights(cfg, first_weights(cfg, None, False), None)


def test_a_detector_that_wants_other_pixels_is_refused(cfg, monkeypatch):
    meta = {**read_checkpoint(cfg.MODEL.WEIGHTS).meta, "colour_order": "BGR"}
    told = SimpleNamespace(meta=meta)
    monkeypatch.setattr("slotcon_plugin.transfer.d2_start.read_checkpoint", lambda *_, **__: told)
    with pytest.raises(ConversionError, match="BGR"):
        use_weights(cfg, first_weights(cfg, None, False), None)


def test_a_whole_detector_does_not_leave_its_pyramid_behind(cfg, scenes):
    opts = [word for pair in SMALL.items() for word in pair] + ["MODEL.WEIGHTS", cfg.MODEL.WEIGHTS]
    with pytest.raises(UserError, match="--no-fpn leaves out the decoder of a checkpoint"):
        d2.train(CONFIG, opts, data_root=str(scenes("coco")), fpn=False)


@pytest.mark.slow
def test_runs_from_a_whole_detector_share_their_recipe_wherever_it_lies(cfg, scenes, tmp_path):
    """With each other and not with those from a backbone."""
    copy = Path(cfg.MODEL.WEIGHTS).rename(tmp_path / "elsewhere.pth")
    found = []
    for name, given in (("detector", {"MODEL.WEIGHTS": str(copy)}), ("backbone", {})):
        opts = SMALL | {"OUTPUT_DIR": str(tmp_path / name), "SOLVER.MAX_ITER": "1", "SOLVER.STEPS": "()"} | given
        backbone = None if given else str(copy)
        words = [word for pair in opts.items() for word in pair]
        d2.train(CONFIG, words, backbone=backbone, data_root=str(scenes("coco")), pretraining="vader")
        found.append(read_result(tmp_path / name / "result.json"))
    assert found[0]["backbone_sha256"] == found[1]["backbone_sha256"]
    assert found[0]["pretraining"] == found[1]["pretraining"] == "vader"
    assert found[0]["config_sha256"] != found[1]["config_sha256"]
