"""Scenes and backbones that the transfer tests share; made once a session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from slotcon_plugin.convert.decoders import fpn_shapes
from slotcon_plugin.convert.network import CanonicalResNet
from slotcon_plugin.declaration import PRETRAINING_KEY
from slotcon_plugin.demo_scenes import make_demo_scenes
from slotcon_plugin.models import TimmBackbone
from slotcon_plugin.transfer.mm_data import relocate

from .own_labels import write

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "transfer"


def load(name: str) -> Config:
    """A transfer config by its path below configs/transfer, its library's registries in use."""
    cfg = Config.fromfile(CONFIGS / f"{name}.py")
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Callable[[str], Path]:
    """layout -> folder with 4 training and 2 validation scenes of 160x120."""
    root = tmp_path_factory.mktemp("scenes")

    def make(layout: str) -> Path:
        counts = {"train": 4, "val": 2} | ({"test": 2} if layout == "camvid" else {})
        return make_demo_scenes(root / layout, counts, (160, 120), layout=layout)

    return make


@pytest.fixture
def boxes(tmp_path, scenes) -> Path:
    """Annotations of COCO's form with two categories whose ids are 7 and 3."""
    root, source = tmp_path / "boxes", scenes("coco")
    for split in ("train", "val"):
        shutil.copytree(source / f"{split}2017", root / f"images/{split}")
        found = json.loads((source / f"annotations/instances_{split}2017.json").read_text())
        found["categories"] = [{"id": 7, "name": "crate"}, {"id": 3, "name": "ball"}]
        for number, annotation in enumerate(found["annotations"]):
            annotation["category_id"] = (7, 3)[number % 2]
        write(root, split, found)
    return root


@pytest.fixture
def camvid(tmp_path, scenes) -> Config:
    """A segmenter of such scenes that trains for two steps; its work dir is ``run``."""
    from .shrink import shrink

    cfg = shrink(Config.fromfile(CONFIGS / "mmseg/fcn_r18_camvid.py"))
    init_default_scope(cfg.default_scope)
    cfg.work_dir, cfg.launcher = str(tmp_path / "run"), "none"
    relocate(cfg, scenes("camvid"))
    return cfg


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory) -> Callable[[int], Path]:
    """depth -> a SlotCon checkpoint of this project (teacher and student differ, BN statistics are not the default)."""
    root = tmp_path_factory.mktemp("pretrained")

    def make(depth: int) -> Path:
        path = root / f"r{depth}.pth"
        if not path.exists():
            state = {"teacher.grouping.prototypes": torch.zeros(4, 8)}
            for seed, branch in enumerate(("teacher", "student")):
                torch.manual_seed(seed)
                for name, value in CanonicalResNet(depth).net.state_dict().items():
                    noise = 1 + 0.1 * torch.rand(value.shape) if "running" in name else 1
                    state[f"{branch}.backbone.{name}"] = value * noise
            torch.save({"state_dict": state, "meta": {}}, path)
        return path

    return make


@pytest.fixture(scope="session")
def weights_of_timm(tmp_path_factory) -> Callable[..., Path]:
    """(network, width of a VADeR pyramid or None) -> a checkpoint of this project."""
    root = tmp_path_factory.mktemp("timm")

    def make(name: str, pyramid: int | None = None) -> Path:
        path = root / f"{name}_{pyramid}.pth"
        if not path.exists():
            torch.manual_seed(1)
            net = TimmBackbone(name)
            state = {}
            for key, value in net.state_dict().items():  # statistics and norms as after training
                state[f"student.backbone.{key}"] = torch.rand_like(value) + 0.5 if value.ndim == 1 else value
            for key, shape in (fpn_shapes((pyramid, None), net.out_channels) if pyramid else {}).items():
                state[f"student.decoder.fpn.{key}"] = 0.1 * torch.randn(shape)
            mean, std = ([255 * value for value in values] for values in (net.mean, net.std))
            declared = {"method": "vader", "title": "VADeR", "branch": "student", "init": None, "colour_order": "RGB"}
            declared |= {"backbone": {"type": "TimmBackbone", "name": name}, "mean": mean, "std": std}
            torch.save({"state_dict": state, PRETRAINING_KEY: declared}, path)
        return path

    return make
