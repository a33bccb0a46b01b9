"""Every pretraining config builds, and trains a step when it is made small."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from slotcon_plugin.config import has_rules, load_config, settle
from slotcon_plugin.engine.batch import fit_batch
from slotcon_plugin.registry import DATASETS, HOOKS, MODELS, OPTIM_WRAPPERS, OPTIMIZERS

CONFIGS = sorted(p.name for p in (Path(__file__).parent.parent / "configs/pretrain").glob("*.py"))


def shrink(cfg: Config) -> Config:
    """The same wiring with narrow heads and a small backbone."""
    if "depth" in cfg.model.backbone:
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
    settle(cfg)
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


# The recipe table of the SlotCon paper (section 4.1 and appendix, values of the official code), key by key.
PAPER = {
    "model.type": "SlotCon",
    "model.data_preprocessor.type": "TwoViewPreprocessor",
    "model.backbone.type": "TorchvisionResNet",
    "model.backbone.depth": 50,
    "model.backbone.zero_init_residual": True,
    "model.projector.type": "MLPHead",
    "model.projector.hidden_channels": 4096,
    "model.projector.out_channels": 256,
    "model.projector.num_layers": 3,
    "model.predictor.type": "MLPHead",
    "model.predictor.hidden_channels": 4096,
    "model.predictor.num_layers": 3,
    "model.grouping.type": "SemanticGrouping",
    "model.grouping.num_prototypes": 256,
    "model.grouping.temperature": 0.07,
    "model.center.type": "Center",
    "model.center.momentum": 0.9,
    "model.student_temperature": 0.1,
    "model.teacher_temperature": 0.07,
    "model.contrast_temperature": 0.2,
    "model.group_loss_weight": 0.5,
    "model.teacher_momentum": 0.99,
    "optim_wrapper.type": "MixedPrecisionOptimWrapper",
    "optim_wrapper.dtype": "float16",
    "optim_wrapper.optimizer.type": "LARS",
    "optim_wrapper.optimizer.lr": 512 / 256,
    "optim_wrapper.optimizer.momentum": 0.9,
    "optim_wrapper.optimizer.weight_decay": 1e-5,
    "param_scheduler.0.type": "LinearLR",
    "param_scheduler.0.start_factor": 0.01,
    "param_scheduler.0.begin": 0,
    "param_scheduler.0.end": 5,
    "param_scheduler.0.by_epoch": True,
    "param_scheduler.0.convert_to_iter_based": True,
    "param_scheduler.1.type": "CosineAnnealingLR",
    "param_scheduler.1.eta_min": 1e-6,
    "param_scheduler.1.begin": 5,
    "param_scheduler.1.by_epoch": True,
    "param_scheduler.1.convert_to_iter_based": True,
    "train_cfg.type": "PretrainLoop",
    "train_cfg.max_epochs": 800,
    "train_dataloader.batch_size": 512 // 8,
    "train_dataloader.num_workers": 8,
    "train_dataloader.persistent_workers": True,
    "train_dataloader.pin_memory": True,
    "train_dataloader.drop_last": True,
    "train_dataloader.sampler.type": "EpochSampler",
    "train_dataloader.sampler.shuffle": True,
    "train_dataloader.collate_fn.type": "default_collate",
    "train_dataloader.dataset.type": "TwoViewDataset",
    "train_dataloader.dataset.source.type": "CocoImages",
    "train_dataloader.dataset.source.ann_file": "data/coco/annotations/instances_train2017.json",
    "train_dataloader.dataset.source.root": "data/coco/train2017",
    "train_dataloader.dataset.view_size": 224,
    "train_dataloader.dataset.scale": (0.08, 1.0),
    "train_dataloader.dataset.ratio": (3 / 4, 4 / 3),
    "train_dataloader.dataset.min_overlap": 0.01,
    "train_dataloader.dataset.photometric.0.blur_prob": 1.0,
    "train_dataloader.dataset.photometric.0.solarise_prob": 0.0,
    "train_dataloader.dataset.photometric.1.blur_prob": 0.1,
    "train_dataloader.dataset.photometric.1.solarise_prob": 0.2,
    "randomness.seed": 0,
}
_SOURCE = "train_dataloader.dataset.source"
IMAGENET = {
    "model.grouping.num_prototypes": 2048,
    f"{_SOURCE}.type": "ImageFolder",
    f"{_SOURCE}.root": "data/imagenet/train",
    f"{_SOURCE}.ann_file": None,
}
COCOPLUS = {
    f"{_SOURCE}.type": "ConcatSources",
    f"{_SOURCE}.ann_file": None,
    f"{_SOURCE}.root": None,
    f"{_SOURCE}.sources.0.type": "CocoImages",
    f"{_SOURCE}.sources.0.ann_file": "data/coco/annotations/instances_train2017.json",
    f"{_SOURCE}.sources.0.root": "data/coco/train2017",
    f"{_SOURCE}.sources.1.type": "CocoImages",
    f"{_SOURCE}.sources.1.ann_file": "data/coco/annotations/image_info_unlabeled2017.json",
    f"{_SOURCE}.sources.1.root": "data/coco/unlabeled2017",
}


def flat(node, where: str = "") -> dict:
    """``{"a": [{"b": 1}]}`` -> ``{"a.0.b": 1}``; tuples are values."""
    if isinstance(node, (dict, list)):
        children = node.items() if isinstance(node, dict) else enumerate(node)
        return {k: v for name, child in children for k, v in flat(child, f"{where}{name}.").items()}
    return {where.rstrip("."): node}


@pytest.mark.parametrize(
    ("name", "differences"),
    [
        ("slotcon_coco.py", {}),
        ("slotcon_cocoplus.py", COCOPLUS),
        ("slotcon_imagenet_100e.py", {**IMAGENET, "train_cfg.max_epochs": 100}),
        ("slotcon_imagenet_200e.py", {**IMAGENET, "train_cfg.max_epochs": 200}),
    ],
)
def test_paper_recipes(name, differences, repo):
    """On the paper's 8 GPUs: every value, and none besides."""
    cfg = load_config(repo / "configs/pretrain" / name)
    fit_batch(cfg, processes=8)
    decided_by_recipe = {key.split(".")[0] for key in PAPER}
    recipe = {key: value for key, value in {**PAPER, **differences}.items() if value is not None}
    assert flat({key: cfg[key] for key in decided_by_recipe}) == recipe


@pytest.mark.parametrize("name", [name for name in CONFIGS if "coco" in name or "imagenet" in name])
def test_recipes_of_papers_leave_nothing_to_the_run(name, repo):
    assert not has_rules(load_config(repo / "configs/pretrain" / name))


def test_one_gpu_config_follows_its_batch(repo):
    cfg = load_config(repo / "configs/pretrain/slotcon_coco_1gpu.py")
    fit_batch(cfg, processes=1)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.5)
    assert cfg.model.teacher_momentum == pytest.approx(0.99**0.25)
