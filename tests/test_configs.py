"""Every pretraining config builds, and trains a step when it is made small."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from slotcon_plugin.config import load_config
from slotcon_plugin.engine.batch import fit_batch
from slotcon_plugin.registry import DATASETS, HOOKS, MODELS, OPTIM_WRAPPERS, OPTIMIZERS

CONFIGS = sorted(p.name for p in (Path(__file__).parent.parent / "configs/pretrain").glob("*.py"))


def shrink(cfg: Config) -> Config:
    """The same wiring with narrow heads and a small backbone."""
    cfg.model.backbone.depth = 18
    for head in ("projector", "predictor"):
        if head in cfg.model:
            cfg.model[head].hidden_channels = 32
    if "queue_size" in cfg.model:
        cfg.model.queue_size = 64
    cfg.train_dataloader.dataset.view_size = 64
    return cfg


@pytest.mark.parametrize("name", CONFIGS)
def test_config_trains_a_step(name, repo, tmp_path):
    cfg = shrink(load_config(repo / "configs/pretrain" / name))
    fit_batch(cfg, processes=8)
    assert cfg.train_dataloader.batch_size > 0
    for hook in cfg.default_hooks.values():
        assert HOOKS.build(hook)
    assert DATASETS.get(cfg.train_dataloader.dataset.source.type)
    model = MODELS.build(cfg.model).train()
    optimizer = OPTIMIZERS.build({**cfg.optim_wrapper.optimizer, "params": list(model.student.parameters())})
    wrapper = OPTIM_WRAPPERS.build(
        dict(type="MixedPrecisionOptimWrapper", dtype=cfg.optim_wrapper.dtype, optimizer=optimizer)
    )
    crop_boxes = torch.tensor([[[0.0, 0, 100, 80], [20, 10, 90, 100]]]).repeat(4, 1, 1)
    data = dict(
        views=torch.randint(0, 255, (4, 2, 3, 64, 64), dtype=torch.uint8),
        crop_boxes=crop_boxes,
        flipped=torch.tensor([[True, False]] * 4),
        photometric=torch.tensor([1.0, 1, 1, 0, 0, 1, 2, 3, 0, 0, 0]).repeat(4, 2, 1),
        sample_index=torch.arange(4),
    )
    before = {key: p.clone() for key, p in model.student.named_parameters()}
    logged = model.train_step(data, wrapper)
    assert torch.isfinite(logged["loss"])
    if not wrapper.step_skipped:  # float16 begins with a loss scale that may be too high
        assert any(not torch.equal(before[key], p) for key, p in model.student.named_parameters())


@pytest.mark.parametrize(
    ("name", "prototypes", "epochs", "learning_rate", "batch"),
    [
        ("slotcon_coco.py", 256, 800, 2.0, 64),
        ("slotcon_cocoplus.py", 256, 800, 2.0, 64),
        ("slotcon_imagenet_100e.py", 2048, 100, 2.0, 64),
        ("slotcon_imagenet_200e.py", 2048, 200, 2.0, 64),
    ],
)
def test_paper_recipes(name, prototypes, epochs, learning_rate, batch, repo):
    cfg = load_config(repo / "configs/pretrain" / name)
    fit_batch(cfg, processes=8)
    assert cfg.model.grouping.num_prototypes == prototypes
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.optim_wrapper.optimizer.lr == learning_rate
    assert cfg.train_dataloader.batch_size == batch
    assert (cfg.model.student_temperature, cfg.model.teacher_temperature, cfg.model.contrast_temperature) == (
        0.1,
        0.07,
        0.2,
    )
    warm, cosine = cfg.param_scheduler
    assert (warm.end, cosine.begin, warm.start_factor, cosine.eta_min) == (5, 5, 0.01, 1e-6)


def test_one_gpu_config_follows_its_batch(repo):
    cfg = load_config(repo / "configs/pretrain/slotcon_coco_1gpu.py")
    fit_batch(cfg, processes=1)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.5)
    assert cfg.model.teacher_momentum == pytest.approx(0.99**0.25)
