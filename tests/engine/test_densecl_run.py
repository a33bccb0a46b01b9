"""The small recipe through the real runner: its resume bit for bit with both queues, and its student converted."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from slotcon_plugin.apis import pretrain
from slotcon_plugin.config import load_config
from slotcon_plugin.convert import convert, read_metadata
from slotcon_plugin.loading import load_pretrainer

OPTIONS = {
    "train_cfg.max_epochs": 3,
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "train_dataloader.dataset.view_size": 64,
    "model.projector.hidden_channels": 16,
    "model.dense_projector.hidden_channels": 16,
    "model.queue_size": "${queue_size(99, 4)}",  # 16 keys for 8 photos
    "default_hooks.checkpoint.interval": 3,
    "default_hooks.checkpoint.max_keep_ckpts": 10,
    "visualizer.vis_backends": [dict(type="LocalVisBackend")],
}


@pytest.mark.slow
def test_resume_is_exact_and_the_student_is_converted(tmp_path, repo):
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (72, 96, 3), dtype=np.uint8)).save(photos / f"{i}.png")

    def config(name):
        cfg = load_config(repo / "configs/pretrain/densecl_small.py", {**OPTIONS, "data_root": str(photos)})
        cfg.work_dir, cfg.experiment_name = str(tmp_path / name), f"{tmp_path.name}-{name}"
        return cfg

    runner = pretrain(config("straight"))
    # six steps: what the log says of the settings is what the model has, what is dumped and what checkpoints carry
    settled = {"${queue_size(99, 4)}": 16, "${teacher_momentum(0.999, 'constant')}": 0.5, "${warmup_epochs(1)}": 0}
    assert (len(runner.model.queue), len(runner.model.dense_queue), runner.model.teacher_momentum) == (16, 16, 0.5)
    assert [schedule["type"] for schedule in runner.cfg.param_scheduler] == ["CosineAnnealingLR"]
    dumped = load_config(tmp_path / "straight/densecl_small.py")
    assert (dumped.model.queue_size, dumped.model.teacher_momentum) == (16, 0.5)
    log = next((tmp_path / "straight").rglob("*.log")).read_text()
    assert "queue_size=16" in log
    (tmp_path / "resumed").mkdir()
    shutil.copy(tmp_path / "straight/iter_3.pth", tmp_path / "resumed")
    pretrain(config("resumed"), resume=True)
    path = tmp_path / "straight/iter_6.pth"
    assert torch.load(path, weights_only=False)["meta"]["settings"] == settled
    assert len(load_pretrainer(config("straight"), path).queue) == 16
    straight, resumed = (
        torch.load(tmp_path / name / path.name, weights_only=False)["state_dict"] for name in ("straight", "resumed")
    )
    assert straight.keys() == resumed.keys()
    for key, value in straight.items():
        assert torch.equal(value, resumed[key]), key
    # six batches of four photos have gone round queues of 16 once and a bit
    assert straight["queue.position"].item() == straight["dense_queue.position"].item() == 6 * 4 % 16
    assert straight["queue.image_ids"].min() >= 0

    convert(path, tmp_path / "backbone.pth", "torchvision")
    meta = read_metadata(tmp_path / "backbone.pth")
    assert (meta["method"], meta["branch"], meta["mean"]) == ("densecl", "student", [123.675, 116.28, 103.53])
    written = torch.load(tmp_path / "backbone.pth", weights_only=True)
    written = written.get("state_dict", written)
    assert torch.equal(written["conv1.weight"], straight["student.backbone.conv1.weight"])
    assert not torch.equal(written["conv1.weight"], straight["teacher.backbone.conv1.weight"])
