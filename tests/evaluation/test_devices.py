"""Evaluations and pictures on a GPU that is not there: they come to their end, and no operation mixes devices.

A GPU's tensor has no values here, and what is fetched from it is made up: figures mean nothing.
"""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from slotcon_plugin.config import load_config, settle
from slotcon_plugin.data import TwoViewDataset
from slotcon_plugin.demo_scenes import make_demo_scenes
from slotcon_plugin.embedding import embed_photos
from slotcon_plugin.evaluation import open_labelled_set, probe_backbone, segment_unsupervised
from slotcon_plugin.evaluation.features import OwnPixels, pixels_of
from slotcon_plugin.evaluation.pixel_retrieval import evaluate_pixel_retrieval
from slotcon_plugin.registry import DATASETS, MODELS
from slotcon_plugin.visualization.grouped import group_photos, model_input
from tests.fake_gpu import RehearsedGPU, onto_fake_gpu


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo_scenes(tmp_path_factory.mktemp("demo") / "scenes", {"train": 4, "val": 2}, size=(96, 64))


def on_gpu(name: str, gpu: RehearsedGPU):
    cfg: Config = load_config(name)
    settle(cfg)
    return onto_fake_gpu(MODELS.build(cfg.model), gpu).eval(), cfg


def test_the_rehearsal_finds_what_mixes_devices():
    with RehearsedGPU(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match="device"):
        torch.zeros(2) + torch.empty(2, device="cuda")


def test_segmentation_by_prototypes_and_pictures(demo):
    gpu = RehearsedGPU(allow_non_fake_inputs=True)
    model, _ = on_gpu("slotcon_small", gpu)
    photos = sorted((demo / "images/val").glob("*.jpg"))
    with gpu:
        assert segment_unsupervised(model, open_labelled_set(demo, "val"), short_side=64).counts.sum() == 2 * 96 * 64
        assert [grouped.photo.shape for grouped in group_photos(model, photos, 64)] == [(64, 96, 3)] * 2


def test_probe_and_embedding(demo, monkeypatch):
    monkeypatch.setattr("torch.Tensor.backward", lambda loss: None)  # autograd's engine insists on a real GPU
    gpu = RehearsedGPU(allow_non_fake_inputs=True)
    model, _ = on_gpu("vader_small", gpu)
    with gpu:
        onto = OwnPixels(model.branch("teacher")["backbone"], *pixels_of(model)).to("cuda")
        sets = (open_labelled_set(demo, split) for split in ("train", "val"))
        found = probe_backbone(onto, *sets, epochs=1, input_size=(64, 96), device="cuda")
        assert set(found) == {"linear", "knn"}
        photos = sorted((demo / "images/val").glob("*.jpg"))
        for level in ("photo", "crop", "pixel"):
            assert embed_photos(onto, photos, level, device="cuda").vectors.shape[1] == 512


def test_pixel_retrieval(demo):
    gpu = RehearsedGPU(allow_non_fake_inputs=True)
    model, cfg = on_gpu("vader_small", gpu)
    views = {**cfg.train_dataloader.dataset, "source": dict(type="ImageFolder", root=str(demo / "images/train"))}
    dataset: TwoViewDataset = DATASETS.build(views)
    photo = np.asarray(Image.open(next((demo / "images/val").glob("*.jpg"))))
    with gpu:
        assert 0 <= evaluate_pixel_retrieval(model.embed, dataset, device="cuda")["pixel_accuracy"] <= 1
        assert model.embed(model_input(photo, 64, model)).device.type == "cuda"
