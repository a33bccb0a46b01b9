"""The config that `pretrain` makes of what it is asked for."""

import math
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

import slotcon_plugin
from slotcon_plugin.actions.pretraining import pretraining_config
from slotcon_plugin.engine.budget import plan_budget
from slotcon_plugin.errors import ConversionError, UserError
from slotcon_plugin.registry import MODELS


def started(monkeypatch, **arguments):
    """The config with which `pretrain` starts a run."""

    class StoppedError(Exception):
        pass

    def stop(cfg, *_):
        raise StoppedError(cfg)

    monkeypatch.setattr("slotcon_plugin.apis.pretrain", stop)
    with pytest.raises(StoppedError) as stopped:
        slotcon_plugin.pretrain(**arguments)
    return stopped.value.args[0]


def test_the_network_is_that_of_the_weights(folder, tmp_path, monkeypatch):
    weights = str(tmp_path / "weights.pth")
    torch.save(resnet18().state_dict(), weights)
    cfg = started(monkeypatch, photos=folder, method="vader", init=weights, epochs=3, out=tmp_path / "o")
    assert cfg.model.type == "VADeR" and cfg.default_hooks.heads_first  # the preset that continues
    # good weights keep their BatchNorm statistics, whatever the network
    assert dict(cfg.model.backbone) == dict(type="TorchvisionResNet", depth=18, stride=16, norm_eval=True)
    built = MODELS.build(cfg.model.backbone).train()
    assert not any(layer.training for layer in built.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    assert (cfg.train_cfg.max_epochs, cfg.work_dir, cfg.init.file) == (3, str(tmp_path / "o"), weights)
    cfg = started(monkeypatch, photos=folder, method="densecl", init="timm", network="convnext_atto")
    assert dict(cfg.model.backbone) == dict(type="TimmBackbone", name="convnext_atto", output_stride=16)
    light = "tf_efficientnet_lite0"
    cfg = started(monkeypatch, photos=folder, init=weights, network=light)
    assert dict(cfg.model.backbone) == dict(type="TimmBackbone", name=light, norm_eval=True, output_stride=16)
    cfg = started(monkeypatch, photos=folder, network="vit_tiny_patch16_224")
    assert dict(cfg.model.backbone) == dict(type="TimmBackbone", name="vit_tiny_patch16_224")
    cfg = started(monkeypatch, config="vader_continue", photos=folder, init=weights)
    assert cfg.model.backbone.name == "tf_efficientnet_lite0"  # what a config says is not changed


def test_options_are_for_the_network_that_was_asked_for(folder, tmp_path, monkeypatch):
    cfg = started(monkeypatch, photos=folder, network="resnet50", options={"model.backbone.depth": 34})
    assert (cfg.model.backbone.type, cfg.model.backbone.depth) == ("TorchvisionResNet", 34)
    options = {"model.backbone.drop_path_rate": 0.2, "model.backbone.output_stride": 8}
    cfg = started(monkeypatch, photos=folder, network="convnext_atto", options=options)
    assert dict(cfg.model.backbone) == dict(
        type="TimmBackbone", name="convnext_atto", drop_path_rate=0.2, output_stride=8
    )
    torch.save(resnet18().state_dict(), tmp_path / "weights.pth")
    options = {"model.backbone.norm_eval": False}
    cfg = started(monkeypatch, photos=folder, method="vader", init=tmp_path / "weights.pth", options=options)
    assert dict(cfg.model.backbone) == dict(type="TorchvisionResNet", depth=18, stride=16, norm_eval=False)
    with pytest.raises(UserError, match=r"model\.backbone\.deph"):
        slotcon_plugin.pretrain(folder, network="resnet50", options={"model.backbone.deph": 34})


def test_schedules_are_fitted_to_the_epochs_that_were_asked_for(folder, monkeypatch):
    def kinds(cfg):
        plan_budget(cfg, math.inf, 0.0)
        return [schedule.type for schedule in cfg.param_scheduler]

    long = dict(photos=folder, options={"warmup_epochs": 20})  # slotcon_small's own length is 20
    assert kinds(started(monkeypatch, **long)) == ["LinearLR"]
    assert kinds(started(monkeypatch, **long, epochs=200)) == ["LinearLR", "CosineAnnealingLR"]
    both = {"warmup_epochs": 20, "train_cfg.max_epochs": 200}
    assert kinds(started(monkeypatch, photos=folder, epochs=200, options=both)) == ["LinearLR", "CosineAnnealingLR"]
    with_budget = started(monkeypatch, **long, budget=600.0)
    assert [schedule.type for schedule in with_budget.param_scheduler] == ["LinearLR", "CosineAnnealingLR"]


def test_a_run_goes_on_without_the_file_that_it_began_with(folder, tmp_path, monkeypatch):
    """The network is that of the run, not of the preset."""
    torch.save(resnet18().state_dict(), tmp_path / "weights.pth")
    asked = dict(photos=folder, method="vader", init=tmp_path / "weights.pth", epochs=1, out=tmp_path / "run")
    options = {"model.decoder.fpn_channels": 8, "model.decoder.channels": 8, "model.queue_size": 64}
    options |= {"train_dataloader.batch_size": 8, "auto_scale_lr.base_batch_size": 8}
    options |= {"train_dataloader.num_workers": 0, "train_dataloader.dataset.view_size": 64}
    slotcon_plugin.pretrain(**asked, options=options)
    (tmp_path / "weights.pth").unlink()
    for resume in (True, next((tmp_path / "run").glob("iter_*.pth"))):
        cfg = started(monkeypatch, **asked, options=options, resume=resume)
        assert dict(cfg.model.backbone) == dict(type="TorchvisionResNet", depth=18, stride=16, norm_eval=True)
    monkeypatch.undo()
    for empty in (tmp_path / "nowhere", tmp_path):  # no checkpoint to go on from: the weights are what is missing
        with pytest.raises(ConversionError, match=r"weights\.pth"):
            slotcon_plugin.pretrain(**{**asked, "out": empty / "x"}, options=options, resume=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(photos="PHOTOS", method="dino"), "slotcon, slotcon_decoder, vader, got 'dino'"),
        (dict(), "expected a folder of photos"),
        (dict(config="slotcon_small", method="vader"), "is one of SlotCon, not of vader"),
        (dict(photos="PHOTOS", epochs=3, budget=60), "--budget sets the number of epochs"),
        (dict(photos="PHOTOS", epochs=0), "epochs must be at least 1"),
        (
            dict(photos="PHOTOS", epochs=3, options={"train_cfg.max_epochs": 4}),
            "--epochs 3 and train_cfg.max_epochs=4 contradict each other",
        ),
        (dict(photos="PHOTOS", init_title="ImageNet"), "names the weights of --init"),
        (dict(photos="PHOTOS", config="slotcon_smol"), "did you mean slotcon_small?"),
        (dict(photos="PHOTOS", network="resnet_fifty"), "resnet_fifty"),
        (dict(photos="PHOTOS", config="configs/benchmark/small_real.py"), "small_real.py sets no model"),
        (dict(photos="PHOTOS", config="configs/transfer/mmseg/fpn_r18_own.py"), "fpn_r18_own.py is a fine-tuning's"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message, folder):
    arguments = {name: str(folder) if value == "PHOTOS" else value for name, value in arguments.items()}
    with pytest.raises(UserError) as refused:
        slotcon_plugin.pretrain(**arguments)
    assert message in str(refused.value)


def test_a_config_with_what_was_asked_for_on_top():
    cfg = pretraining_config("slotcon_coco", data_root="/x", init="a.pth", init_title="MoCo", options={"min_lr": 0.5})
    assert cfg.train_dataloader.dataset.source.root == "/x/train2017"
    assert dict(cfg.init) == {"file": "a.pth", "title": "MoCo"} and cfg.work_dir == "work_dirs/slotcon_coco"


def test_what_a_config_says_of_its_weights_is_not_said_of_others(tmp_path):
    config = tmp_path / "mine.py"
    own = dict(file="moco.pth", title="MoCo", branch="student", mean=[1.0, 2.0, 3.0])
    config.write_text(
        f"_base_ = ['{Path('configs/pretrain/slotcon_small.py').resolve()}']\ninit = dict(_delete_=True, **{own})\n"
    )
    assert dict(pretraining_config(config, init="moco.pth").init) == own
    other = pretraining_config(config, init="other.pth", init_title="BYOL")
    assert dict(other.init) == {"file": "other.pth", "title": "BYOL"}
    asked = pretraining_config(config, init="other.pth", options={"init.branch": "teacher", "init.file": "third.pth"})
    assert dict(asked.init) == {"file": "other.pth", "branch": "teacher"}
