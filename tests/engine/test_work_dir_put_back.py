"""A finished run keeps its work dir when the one that was to take its place is refused before its first step."""

import numpy as np
import pytest
from mmengine.hooks import Hook
from PIL import Image

from slotcon_plugin.apis import pretrain
from slotcon_plugin.config import load_config
from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import HOOKS

FORMER = {"iter_3.pth": "weights", "20200101_000000/20200101_000000.log": "a log", "run.json": '{"id": "former"}'}
SMALL = {
    "train_cfg.max_epochs": 1,
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 0,
    "train_dataloader.dataset.view_size": 64,
}


@HOOKS.register_module(force=True)
class RefuseAfterAStep(Hook):
    """As a photo does that cannot be read."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 1:
            raise UserError("after a step")


def contents(folder):
    files = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    files.pop(".in_use", None)
    return files


@pytest.fixture
def used(tmp_path):
    """The work dir of a finished run."""
    for name, text in FORMER.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(text)
    return tmp_path / "run"


@pytest.fixture
def config(used, tmp_path):
    """(name, options) -> a pretraining on four photos that is to take the place of the finished run."""
    (tmp_path / "photos").mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (72, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"photos/{i}.png")

    def build(name, options):
        cfg = load_config(f"configs/pretrain/{name}.py", {**SMALL, **options})
        cfg.train_dataloader.dataset.source = dict(type="ImageFolder", root=str(tmp_path / "photos"))
        cfg.work_dir, cfg.experiment_name = str(used), tmp_path.name
        cfg.visualizer.vis_backends = [dict(type="LocalVisBackend")]
        return cfg

    return build


def prototypes_frozen_with_mmengines_wrapper(cfg):
    cfg.optim_wrapper = dict(type="OptimWrapper", optimizer=cfg.optim_wrapper.optimizer)
    cfg.custom_hooks = [dict(type="FrozenPrototypesHook", share=0.5)]
    cfg.default_hooks.nan_guard = None
    cfg.default_hooks.pop("pictures", None)


@pytest.mark.parametrize(
    ("name", "options", "edit", "batch_mode", "message"),
    [
        (
            "vader_demo",
            {"train_dataloader.dataset.min_overlap_pixels": 0},
            None,
            None,
            r"set train_dataloader\.dataset\.min_overlap_pixels",
        ),
        ("vader_demo", {}, lambda cfg: cfg.pop("auto_scale_lr"), "accumulate", "the config states no total batch"),
        ("slotcon_demo", {}, prototypes_frozen_with_mmengines_wrapper, None, "FrozenPrototypesHook throws gradients"),
        ("vader_demo", {"train_dataloader.batch_size": 64}, None, "scale-lr", "4 photos do not fill one batch"),
    ],
)
def test_the_former_run_stays_where_it_is(used, config, name, options, edit, batch_mode, message):
    cfg = config(name, options)
    if edit:
        edit(cfg)
    with pytest.raises(UserError, match=message):
        pretrain(cfg, batch_mode=batch_mode, overwrite=True)
    assert contents(used) == FORMER
    assert sorted(path.name for path in used.parent.iterdir()) == ["photos", "run"]


def test_what_a_run_has_begun_is_not_taken_away(used, config):
    """After the first step the new run's files tell what has happened to it."""
    cfg = config("vader_demo", {"train_dataloader.batch_size": 2})
    cfg.custom_hooks = [dict(type="RefuseAfterAStep")]
    with pytest.raises(UserError, match="after a step"):
        pretrain(cfg, overwrite=True)
    assert contents(used.with_name("run.old1")) == FORMER
    assert used.is_dir() and "iter_3.pth" not in contents(used)
