"""A pretraining so small that a run of it takes a second: real runner, loop, sampler and optimiser; noise as photos."""

import subprocess
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from slotcon_plugin.checkpoints.runs import numbered_checkpoints
from slotcon_plugin.data import TwoViewDataset
from slotcon_plugin.engine import allow_checkpoint_classes
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models import SlotCon
from slotcon_plugin.registry import DATASETS, MODELS

NUM_PHOTOS, BATCH = 16, 4


@DATASETS.register_module(force=True)
class NoisePhotos:
    """Stands in for a source: names only."""

    def __init__(self, names=None):
        self.names = names or [f"{index:02d}.jpg" for index in range(NUM_PHOTOS)]

    def __len__(self):
        return len(self.names)

    def path(self, index):
        return f"photos/{self.names[index]}"


@DATASETS.register_module(force=True)
class NoiseViews(TwoViewDataset):
    """Two crops of noise that is the same whenever the same photo is asked for."""

    def __init__(self, names=None):
        self.source = NoisePhotos(names)
        self.view_size = 32

    def __getitem__(self, key):
        index = key[2] if isinstance(key, tuple) else int(key)
        views = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return dict(
            views=views,
            crop_boxes=torch.tensor([[0.0, 0, 32, 32], [8, 8, 40, 40]]),
            flipped=torch.tensor([False, index % 2 == 0]),
            photometric=torch.zeros(2, 1),
            sample_index=torch.tensor(index),
        )


@MODELS.register_module(force=True)
class PlainPreprocessor(torch.nn.Module):
    """No colours, no device."""

    def forward(self, data, training=False):
        views = data["views"].float() / 255 - 0.5
        geometry = (data[name] for name in ("crop_boxes", "flipped", "sample_index"))
        return dict(inputs=TwoViewBatch((views[:, 0], views[:, 1]), *geometry))


@MODELS.register_module(force=True)
class TinyBackbone(torch.nn.Sequential):
    """One stage map of stride 8, with BatchNorm."""

    out_channels, strides = (8,), (8,)

    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(3, 8, 8, stride=8, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU(inplace=True)
        )

    def forward(self, images):
        return (super().forward(images),)


@MODELS.register_module(force=True)
class PoisonedSlotCon(SlotCon):
    """Gives a loss of NaN, and spoils its center, in the forward passes named (counted from 1)."""

    def __init__(self, poisoned=(), **kwargs):
        super().__init__(**kwargs)
        self.poisoned, self.forwards = tuple(poisoned), 0

    def loss(self, *args):
        losses = super().loss(*args)
        self.forwards += 1
        if self.forwards in self.poisoned:
            losses["loss_slot"] = losses["loss_slot"] * float("nan")
            self.center.value.fill_(float("nan"))
        return losses


_SCHEDULE = [dict(type="PolyLR", by_epoch=False)]


def make_tiny_config(
    work_dir, hooks=(), epochs=2, model=None, optim_wrapper=None, batch=BATCH, names=None, schedule=_SCHEDULE
):
    return Config(
        dict(
            default_scope="slotcon_plugin",
            work_dir=str(work_dir),
            experiment_name=f"tiny-{work_dir}",
            model={
                "type": "SlotCon",
                "data_preprocessor": dict(type="PlainPreprocessor"),
                "backbone": dict(type="TinyBackbone"),
                "projector": dict(type="MLPHead", hidden_channels=8, out_channels=8, num_layers=2),
                "predictor": dict(type="MLPHead", hidden_channels=8, num_layers=2),
                "grouping": dict(num_prototypes=6),
                **(model or {}),
            },
            train_cfg=dict(type="PretrainLoop", max_epochs=epochs),
            train_dataloader=dict(
                batch_size=batch,
                num_workers=0,
                drop_last=True,
                sampler=dict(type="EpochSampler", shuffle=True),
                collate_fn=dict(type="default_collate"),
                dataset=dict(type="NoiseViews", names=names),
            ),
            optim_wrapper={
                "type": "MixedPrecisionOptimWrapper",
                "dtype": "float32",
                "optimizer": dict(type="SGD", lr=0.1),
                **(optim_wrapper or {}),
            },
            param_scheduler=schedule,
            default_hooks=dict(
                logger=dict(type="LoggerHook", interval=2),
                param_scheduler=dict(type="PretrainSchedulerHook"),
                checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=3, backend_args=dict(backend="atomic")),
            ),
            custom_hooks=[dict(type="TeacherUpdateHook"), dict(type="ExactResumeHook"), *hooks],
            visualizer=dict(type="mmengine.Visualizer", vis_backends=[dict(type="LocalVisBackend")]),
            randomness=dict(seed=0),
        )
    )


@pytest.fixture
def tiny_config():
    """The config of a tiny run, see :func:`make_tiny_config`."""
    return make_tiny_config


@pytest.fixture
def tiny(tmp_path):
    """Build a tiny run; ``resume=True`` continues from its newest checkpoint."""
    allow_checkpoint_classes()

    def build(work_dir=None, resume=False, **kwargs):
        cfg = make_tiny_config(work_dir or tmp_path, **kwargs)
        if resume:
            cfg.resume, cfg.load_from = True, str(numbered_checkpoints(cfg.work_dir)[0])
        cfg.experiment_name += f"-{len(build.runners)}"
        build.runners.append(Runner.from_cfg(cfg))
        return build.runners[-1]

    build.runners = []
    yield build
    for runner in build.runners:
        runner.visualizer.close()


@pytest.fixture
def iterations_per_epoch():
    return NUM_PHOTOS // BATCH


CONFIG = """
_base_ = [r"{repo}/configs/pretrain/_base_/default_runtime.py", r"{repo}/configs/pretrain/_base_/slotcon_r50.py"]
model = dict(
    backbone=dict(_delete_=True, type="TimmBackbone", name="test_resnet"),
    projector=dict(hidden_channels=32, out_channels=16),
    predictor=dict(hidden_channels=32),
    grouping=dict(num_prototypes=8),
)
auto_scale_lr = dict(base_batch_size=8, mode="scale-lr")
optim_wrapper = dict(dtype="{dtype}")
warmup_epochs = 1
photos = dict(type="ImageFolder", root=r"{photos}")
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(view_size=64),
)
train_cfg = dict(max_epochs=5)
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=10), logger=dict(interval=3))
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """`subprocess.Popen`, for runs without an end of their own: none outlives its test, whatever becomes of that."""
    started = []

    def popen(*args, **options) -> subprocess.Popen:
        started.append(subprocess.Popen(*args, **options))
        return started[-1]

    yield popen
    for process in started:
        process.kill()  # nothing, if it was waited for; ranks and workers end with it
        process.wait()


@pytest.fixture
def config_file(tmp_path, repo):
    """A run of minutes made one of seconds, on photos of noise: six batches of four an epoch, two photos dropped."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(26):
        Image.fromarray(rng.integers(0, 255, (80, 96, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{i}.jpg")

    def write(dtype):
        config = tmp_path / "tiny.py"
        config.write_text(CONFIG.format(repo=repo, photos=tmp_path / "photos", dtype=dtype))
        return config

    return write
