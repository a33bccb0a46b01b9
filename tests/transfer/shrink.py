"""mm configs made small enough for a test: sizes and counts shrink, the recipe's parts stay."""

from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

IMAGE = (128, 96)
CROP = (64, 64)


def shrink(cfg: Config) -> Config:
    """Two steps of two small images, then a validation; in place."""
    _sizes(cfg._cfg_dict)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 0
        loader.persistent_workers = False
    cfg.train_dataloader.batch_size = 2
    cfg.auto_scale_lr.base_batch_size = 2
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.param_scheduler = [dict(type="MultiStepLR", milestones=[1], gamma=0.1, by_epoch=False)]
    cfg.default_hooks.checkpoint.update(interval=2, by_epoch=False)
    if cfg.default_scope == "mmdet":
        cfg.model.train_cfg.rpn_proposal.update(nms_pre=40, max_per_img=20)
        cfg.model.train_cfg.rcnn.sampler.num = 8
        cfg.model.test_cfg.rpn.update(nms_pre=20, max_per_img=10)
    return cfg


def _sizes(section: Any) -> None:
    if isinstance(section, dict):
        for key, value in section.items():
            if key == "scale":
                section[key] = IMAGE
            elif key == "scales":
                section[key] = [IMAGE]
            elif key in ("crop_size", "stride", "size") and isinstance(value, tuple) and min(value) > 100:
                section[key] = CROP
            else:
                _sizes(value)
    elif isinstance(section, (list, tuple)):
        for value in section:
            _sizes(value)
