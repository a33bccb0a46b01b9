"""The linear probe while training: the library's figure, and a run that is what it would be without."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.visualization import LocalVisBackend
from torch import nn

from slotcon_plugin.demo_scenes import make_demo_scenes
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import LinearProbeHook, open_labelled_set, probe_backbone
from slotcon_plugin.evaluation.features import OwnPixels, pixels_of
from slotcon_plugin.evaluation.hook import PROBE
from slotcon_plugin.models import TorchvisionResNet
from slotcon_plugin.registry import HOOKS
from slotcon_plugin.visualization.run_figures import read_run

SETTINGS = dict(input_size=(32, 64), epochs=2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo_scenes(tmp_path_factory.mktemp("demo") / "scenes", {"train": 6, "val": 2}, size=(64, 48))


class Pretrainer(nn.Module):
    """As far as the hook looks at one."""

    transfer_branch = "student"

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.ModuleDict({"backbone": TorchvisionResNet(18, zero_init_residual=False)})
        self.data_preprocessor = SimpleNamespace(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        self.init = None

    def branch(self, name: str) -> nn.ModuleDict:
        return {"student": self.student}[name]


@pytest.fixture
def runner():
    info, scalars = {}, []
    fake = SimpleNamespace(
        model=Pretrainer().train(), epoch=0, iter=0, max_epochs=3, max_iters=30, info=info, scalars=scalars,
        visualizer=SimpleNamespace(add_scalars=lambda figures, step: scalars.append((figures, step))),
        message_hub=SimpleNamespace(update_info=info.__setitem__),
    )  # fmt: skip
    fake._train_loop = fake
    return fake


def hook_for(demo, **more) -> LinearProbeHook:
    return HOOKS.build(dict(type="LinearProbeHook", data=str(demo), limit=4, **SETTINGS, **more))


@pytest.mark.parametrize(("made_for", "size"), [(None, (240, 320)), ((32, 32), (32, 32))])
def test_photos_have_the_size_that_the_network_is_made_for(made_for, size, demo, runner, monkeypatch):
    sizes = []

    def probe(backbone, *sets, input_size, **settings):
        sizes.append(input_size)
        return {"linear": SimpleNamespace(miou=[10.0])}

    monkeypatch.setattr("slotcon_plugin.evaluation.hook.probe_backbone", probe)
    runner.model.student["backbone"].image_size = made_for
    for more in ({}, {"input_size": (64, 96)}):
        HOOKS.build(dict(type="LinearProbeHook", data=str(demo), **more)).work(runner)
    assert sizes == [size, (64, 96)]


def test_it_is_the_probe_of_the_branch_that_is_exported(demo, runner):
    model = runner.model
    model.student["backbone"].layer1.eval()  # a part that keeps its statistics
    modes = {name: module.training for name, module in model.named_modules()}
    state, noise = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    hook_for(demo).before_train(runner)
    assert torch.equal(torch.get_rng_state(), noise), "the training would draw other numbers"
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    backbone = OwnPixels(model.branch("student")["backbone"], *pixels_of(model))
    sets = (open_labelled_set(demo, split).subset(4) for split in ("train", "val"))
    expected = probe_backbone(backbone, *sets, seeds=(0,), neighbours=0, **SETTINGS)["linear"].miou[0]
    assert runner.scalars == [({"probe/mIoU": expected, "iter": 0}, 0)] and expected > 0
    assert runner.info[PROBE] == f"{expected:.1f} mIoU (4 photos of scenes/train, linear)"


def test_the_whole_model_leaves_training_and_returns_to_it_as_it_was(demo, runner, monkeypatch):
    """Else what is compiled for training's batches would be compiled again for the probe's photos."""
    model, seen = runner.model, []
    frozen = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    frozen.eval()
    before = [module.training for module in model.modules()]
    found = {"linear": SimpleNamespace(miou=(30.0, 0.0))}
    monkeypatch.setattr(
        "slotcon_plugin.evaluation.hook.probe_backbone", lambda *_, **__: seen.append(model.training) or found
    )
    hook_for(demo).work(runner)
    assert seen == [False]
    assert [module.training for module in model.modules()] == before


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(
        "slotcon_plugin.evaluation.hook.print_log", lambda text, logger, level=0: lines.append((level, text))
    )
    return lines


@pytest.fixture
def finds(monkeypatch):
    """Probes find these figures, one after another."""

    def set_up(figures):
        found = iter(figures)
        monkeypatch.setattr(
            "slotcon_plugin.evaluation.hook.probe_backbone",
            lambda *args, **kwargs: {"linear": SimpleNamespace(miou=(next(found), 0.0))},
        )

    return set_up


def test_its_curve_is_drawn_at_its_iterations(demo, runner, finds, tmp_path):
    """Through the file of mmengine's own backend, beside the records of its logger."""
    finds([40.0, 41.0, 42.0])
    runner.visualizer = LocalVisBackend(str(tmp_path / "20260101_000000/vis_data"))
    hook = hook_for(demo)
    for runner.iter in (0, 10, 20):
        if runner.iter:
            epoch = runner.iter // 10
            runner.visualizer.add_scalars({"loss": 1.0, "iter": runner.iter, "epoch": epoch}, step=runner.iter)
        hook.work(runner)
    assert read_run(tmp_path).figures["probe/mIoU"] == {0: 40.0, 10: 41.0, 20: 42.0}


@pytest.mark.parametrize(("init", "figures", "warnings"), [
    ({"title": "ImageNet"}, [40.0, 39.5, 38.0, 37.0], 1),
    ({"title": "ImageNet"}, [40.0, 41.0], 0),
    (None, [24.0, 20.0], 0),  # from random weights nothing is forgotten
])  # fmt: skip
def test_weights_that_are_forgotten_are_spoken_of_once(init, figures, warnings, demo, runner, finds, said):
    runner.model.init = init
    finds(figures)
    hook = hook_for(demo)
    for _ in figures[:-1]:
        hook.work(runner)
    checkpoint = {}
    hook.before_save_checkpoint(runner, checkpoint)
    resumed = hook_for(demo)
    resumed.after_load_checkpoint(runner, checkpoint)
    resumed.work(runner)
    assert sum(level == logging.WARNING for level, _ in said) == warnings
    assert runner.info[PROBE].startswith(f"{figures[-1]:.1f} mIoU, {figures[0]:.1f} before training")


def test_a_probe_that_a_resumed_run_is_given_does_not_know_the_start(demo, runner, finds, said):
    runner.model.init = {"title": "ImageNet"}
    finds([40.0, 20.0])
    hook = hook_for(demo)
    hook.after_load_checkpoint(runner, {})
    runner.iter = 30
    hook.before_train(runner)
    hook.work(runner)
    checkpoint = {}
    hook.before_save_checkpoint(runner, checkpoint)
    runner.iter = 40
    resumed = hook_for(demo)
    resumed.after_load_checkpoint(runner, checkpoint)
    resumed.work(runner)
    assert runner.info[PROBE].startswith("20.0 mIoU, 40.0 after iteration 30 (")
    assert all(level != logging.WARNING for level, _ in said)


def test_mistakes_are_found_before_training(demo):
    with pytest.raises(UserError, match="no such folder"):
        LinearProbeHook(data=str(demo / "nowhere"))
    with pytest.raises(UserError, match="LinearProbeHook: interval must be at least 1 epoch, got 0"):
        LinearProbeHook(data=str(demo), interval=0)
