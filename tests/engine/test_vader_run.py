"""The demo's recipe through the real runner, and its resume bit for bit with the queue."""

import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from slotcon_plugin.apis import pretrain
from slotcon_plugin.engine.json_lines import read_json_lines
from slotcon_plugin.loading import load_pretrainer
from slotcon_plugin.models.pretrainers import vader


@pytest.fixture
def config(tmp_path, repo):
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (72, 96, 3), dtype=np.uint8)).save(photos / f"{i}.png")

    def build(name):
        cfg = Config.fromfile(repo / "configs/pretrain/vader_demo.py")
        cfg.photos = dict(type="ImageFolder", root=str(photos))
        cfg.merge_from_dict(
            {
                "work_dir": str(tmp_path / name),
                "experiment_name": f"{tmp_path.name}-{name}",
                "train_cfg.max_epochs": 3,
                "train_dataloader.batch_size": 4,
                "train_dataloader.num_workers": 0,
                "train_dataloader.persistent_workers": False,
                "train_dataloader.dataset.view_size": 64,
                "model.decoder.fpn_channels": 8,
                "model.decoder.channels": 8,
                "model.queue_size": 300,
                "default_hooks.checkpoint.interval": 3,
                "default_hooks.checkpoint.max_keep_ckpts": 10,
                "visualizer.vis_backends": [dict(type="LocalVisBackend")],
            }
        )
        return cfg

    return build


@pytest.mark.slow
def test_resume_in_the_middle_of_an_epoch_is_exact(tmp_path, config):
    pretrain(config("straight"))
    (tmp_path / "resumed").mkdir()
    shutil.copy(tmp_path / "straight/iter_3.pth", tmp_path / "resumed")
    pretrain(config("resumed"), resume=True)
    ends = [
        torch.load(tmp_path / name / "iter_6.pth", weights_only=False)["state_dict"] for name in ("straight", "resumed")
    ]
    assert ends[0].keys() == ends[1].keys()
    for key, value in ends[0].items():
        assert torch.equal(value, ends[1][key]), key
    # six batches of four photos with 32 pixels have gone round a queue of 300 twice and a bit
    assert ends[0]["queue.position"].item() == 6 * 4 * 32 % 300
    assert ends[0]["queue.image_ids"].unique().tolist() == list(range(8))
    declared = torch.load(tmp_path / "straight/iter_6.pth", weights_only=False)["pretraining"]
    assert (declared["method"], declared["mean"][0], declared["backbone"]["depth"]) == ("vader", 123.675, 18)
    model = load_pretrainer(config("straight"), tmp_path / "straight/iter_6.pth")
    assert torch.equal(model.queue.keys, ends[0]["queue.keys"])


def test_figures_that_are_made_for_reports_alone_are_in_them(tmp_path, config, monkeypatch):
    made, contrast_figures = [], vader.contrast_figures
    monkeypatch.setattr(vader, "contrast_figures", lambda *of: made.append(1) or contrast_figures(*of))
    pretrain(config("run"))
    lines = read_json_lines(tmp_path / "run/health.jsonl")
    assert [line["iter"] for line in lines] == [2, 4, 6]  # the ends of epochs
    assert len(made) == 3
    # a batch of four photos with 32 pixels is queued when its loss is made
    assert [line["queue_fill"] for line in lines] == [pytest.approx(128 / 300), 1, 1]
    for line in lines:
        assert {"pixel_accuracy", "contrast_accuracy", "positive_similarity", "negative_similarity"} <= line.keys()
        assert 0 <= line["pixel_accuracy"] <= 1 and 0 <= line["contrast_accuracy"] <= 1
