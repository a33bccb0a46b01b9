"""From labels and a backbone to the right framework, config and network; then trained for two steps."""

from __future__ import annotations

import json
import shutil

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from safetensors.torch import save_file

import slotcon_plugin
from slotcon_plugin.actions import finetuning
from slotcon_plugin.config import find_config, read_config
from slotcon_plugin.convert.network import CanonicalResNet
from slotcon_plugin.convert.read import read_checkpoint
from slotcon_plugin.demo_scenes import make_demo_scenes
from slotcon_plugin.errors import UserError
from slotcon_plugin.models import TimmBackbone
from slotcon_plugin.registry import MODELS

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from tests.processes import run_python
from tests.transfer.shrink import shrink


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return make_demo_scenes(tmp_path_factory.mktemp("masks") / "scenes", {"train": 4, "val": 2}, size=(160, 120))


@pytest.fixture
def boxes(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"boxes/images/{split}").mkdir(parents=True)
    (tmp_path / "boxes/annotations").mkdir()
    found = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "nut"}]}
    for split in ("train", "val"):
        (tmp_path / f"boxes/annotations/{split}.json").write_text(json.dumps(found))
    return tmp_path / "boxes"


def weights(folder, name: str):
    path = folder / f"{name}.pth"
    torch.manual_seed(0)
    if name.startswith("resnet"):
        net = CanonicalResNet(int(name.removeprefix("resnet"))).net
        torch.save(dict(net.state_dict()), path)
    else:
        path = path.with_suffix(".safetensors")
        save_file(timm.create_model(name).state_dict(), path)
    return path


class Asked(Exception):  # noqa: N818
    """Carries the config that would be trained."""


@pytest.fixture
def asked(monkeypatch):
    def train(cfg: Config, *arguments):
        raise Asked(cfg, *arguments)

    monkeypatch.setattr(finetuning.openmmlab, "train", train)

    def ask(*words, **more) -> tuple:
        with pytest.raises(Asked) as found:
            slotcon_plugin.finetune(*words, **more)
        return found.value.args

    return ask


def test_a_run_that_would_leave_no_model_is_refused(masks):
    with pytest.raises(UserError, match="without this hook the run would leave no model"):
        slotcon_plugin.finetune(masks, options={"default_hooks.checkpoint": None})


@pytest.mark.parametrize(
    ("kind", "name", "config", "channels"),
    [
        ("masks", None, "fpn_r18_own", [64, 128, 256, 512]),
        ("masks", "resnet18", "fpn_r18_own", [64, 128, 256, 512]),
        ("boxes", "resnet18", "rcnn_r18_fpn_own", [64, 128, 256, 512]),
        ("boxes", "resnet50", "rcnn_lite0_fpn_own", [256, 512, 1024, 2048]),
        ("masks", "resnet50", "fcn_lite0_own", [1024, 2048]),
        ("boxes", "convnext_atto", "rcnn_lite0_fpn_own", [40, 80, 160, 320]),
        ("masks", "vit_tiny_patch16_224", "fcn_lite0_own", [192, 192]),
    ],
)
def test_labels_and_backbone_choose(kind, name, config, channels, masks, boxes, tmp_path, asked):
    labels, file = {"masks": masks, "boxes": boxes}[kind], weights(tmp_path, name) if name else None
    network = name if name and not name.startswith("resnet") else None
    cfg, checkpoint, data_root, *_ = asked(labels, file, network=network)
    assert (cfg.work_dir, checkpoint, data_root) == (f"work_dirs/{config}", file and str(file), str(labels))
    neck = cfg.model.get("neck")
    assert list(neck.in_channels if neck else cfg.model.decode_head.in_channels) == channels
    if config.endswith("lite0_own") or "lite0" in config:
        assert cfg.model.backbone.name == name
        look = read_checkpoint(file, network=network and finetuning.network_by_name(network)).network
        backbone = dict(cfg.model.backbone)
        backbone.pop("type")
        net = TimmBackbone(**backbone)
        assert [net.out_channels[i] for i in range(-len(channels), 0)] == channels
        assert str(look).endswith(name.removeprefix("resnet"))
        if name.startswith("vit"):  # pretrained at 224, and crops have another size
            assert len(net.eval()(torch.zeros(1, 3, 70, 100)))


@pytest.mark.parametrize(
    ("kind", "name", "config", "rate"),
    [
        ("masks", "resnet18", "fpn_r18_own", None),
        ("masks", "tf_efficientnet_lite0", "fcn_lite0_own", 0.2),
        ("boxes", "resnet50", "rcnn_lite0_fpn_own", 1.0),
    ],
)
def test_random_weights_of_any_network_are_to_be_had(kind, name, config, rate, masks, boxes, asked):
    cfg, checkpoint, *_ = asked({"masks": masks, "boxes": boxes}[kind], network=name)
    assert (cfg.work_dir, checkpoint) == (f"work_dirs/{config}", None)
    if rate:  # as the config's first lines say
        assert (cfg.model.backbone.name, cfg.model.backbone.norm_eval) == (name, False)
        backbone = MODELS.build(cfg.model.backbone)
        backbone.init_weights()  # as mmengine's runner does
        norms = [module.weight for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert all(weight.eq(1).all() for weight in norms), "residual blocks start as identities"
        assert cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == rate
        head = find_config(config).read_text()
        assert f"custom_keys.backbone.lr_mult={rate}" in head and "norm_eval=False" in head


IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


@pytest.mark.parametrize("given", [True, "path"])
def test_a_resumed_run_is_told_its_backbone_again(given, masks, tmp_path, asked):
    """The recipe for a network on random weights is another one than for weights that are good."""
    facts = {"pretraining": "vader", "backbone_sha256": "abc"}
    content = {"state_dict": {"x": torch.zeros(1)}, "meta": {"slotcon_transfer": facts}}
    torch.save(content, tmp_path / "iter_2.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_2.pth"))
    asked_for = dict(network="resnet50", out=tmp_path, resume=True if given is True else str(tmp_path / "iter_2.pth"))
    with pytest.raises(UserError, match="began from vader, and ResNet-50 without a backbone"):
        slotcon_plugin.finetune(masks, **asked_for)
    torch.save(content | {"meta": {"slotcon_transfer": facts | {"backbone_sha256": None}}}, tmp_path / "iter_2.pth")
    asked(masks, **asked_for)
    asked(masks, **asked_for | {"out": tmp_path / "new", "resume": True})


@pytest.mark.parametrize("kind", ["masks", "boxes"])
@pytest.mark.parametrize(
    ("name", "pixels"),
    [("resnet50", IMAGENET), ("convnext_atto", IMAGENET), ("tf_efficientnet_lite0", ([127.5] * 3, [127.5] * 3))],
)
def test_a_network_is_fed_the_pixels_that_it_expects(kind, name, pixels, masks, boxes, asked):
    cfg, *_ = asked({"masks": masks, "boxes": boxes}[kind], network=name)
    fed = cfg.model.data_preprocessor
    assert [list(fed.mean), list(fed.std)] == [pytest.approx(values, abs=1e-3) for values in pixels]


def test_what_a_file_says_of_its_pixels_counts_more_than_its_networks_name(masks, tmp_path, asked):
    name = "convnext_atto"
    pixels = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
    told = dict(network=finetuning.network_by_name(name), declared=dict(**pixels, colour_order="RGB"))
    file = slotcon_plugin.export(weights(tmp_path, name), tmp_path / "told.safetensors", "timm", **told).path
    cfg, *_ = asked(masks, file, network=name)
    fed = cfg.model.data_preprocessor
    assert {key: list(fed[key]) for key in pixels} == pixels


def test_another_length_stretches_the_schedule(masks, asked):
    cfg, *_ = asked(masks, iterations=500)
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval, cfg.default_hooks.checkpoint.interval) == (
        500,
        125,
        125,
    )
    assert cfg.param_scheduler[0].end == 500
    detector = read_config("rcnn_r18_fpn_own")
    finetuning._stretch(detector, 1000)
    warm_up, decay = detector.param_scheduler
    assert (warm_up.begin, warm_up.end, decay.milestones) == (0, 50, [800, 950])


def test_the_schedule_is_stretched_in_mmengines_short_forms_too(masks, tmp_path, asked):
    schedule = "param_scheduler = dict(type='LinearLR', end=100, by_epoch=False)\n"
    (tmp_path / "short.py").write_text(f"train_cfg = dict(by_epoch=False, max_iters=2000)\n{schedule}")
    cfg, *_ = asked(masks, config=tmp_path / "short.py", iterations=500)
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval, cfg.param_scheduler.end) == (500, 250, 25)


def test_iterations_are_not_asked_of_a_config_of_epochs(masks, tmp_path):
    (tmp_path / "epochs.py").write_text("train_cfg = dict(by_epoch=True, max_epochs=12)\n")
    with pytest.raises(UserError, match=r"epochs\.py counts epochs, .* --cfg-options train_cfg\.max_epochs=N"):
        slotcon_plugin.finetune(masks, config=tmp_path / "epochs.py", iterations=500)


def test_what_is_not_evaluated_is_trained_all_the_same(masks, tmp_path, monkeypatch):
    def unmeasured(name):
        cfg = shrink(read_config(name))
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        return cfg

    monkeypatch.setattr(finetuning, "read_config", unmeasured)
    made = slotcon_plugin.finetune(masks, None, tmp_path / "run")
    assert made.model.is_file() and made.metrics == {} and not (made.work_dir / "result.json").exists()
    assert str(made).startswith("from random: no figures of the val split\n")


def test_a_schedule_of_epochs_is_not_asked_for_another_length_in_iterations(tmp_path, masks):
    schedule = "param_scheduler = dict(type='CosineAnnealingLR', T_max=12, convert_to_iter_based=True)\n"
    (tmp_path / "mixed.py").write_text(f"train_cfg = dict(by_epoch=False, max_iters=2000)\n{schedule}")
    with pytest.raises(UserError, match=r"mixed\.py has a schedule that counts epochs .* give it by_epoch=False"):
        slotcon_plugin.finetune(masks, config=tmp_path / "mixed.py", iterations=500)


def rates_of(cfg: Config) -> list[float]:
    """The learning rate of each iteration, of a whole one of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedules = [PARAM_SCHEDULERS.build(dict(one, optimizer=optimizer)) for one in cfg.param_scheduler]
    rates = []
    for _ in range(cfg.train_cfg.max_iters):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    return rates


@pytest.mark.parametrize("config", ["rcnn_r18_fpn_own", "rcnn_lite0_fpn_own", "fpn_r18_own"])
@pytest.mark.parametrize("iterations", [1, 10, 25, 60])
def test_a_short_run_ends_at_the_learning_rate_that_a_long_one_has(config, iterations):
    """A warm-up without a step, or with a single one, would be an error or never end."""
    cfg = read_config(config)
    finetuning._stretch(cfg, iterations)
    assert max(rates_of(cfg)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("schedule", "last"),
    [
        (dict(type="CosineAnnealingLR", T_max=1900, begin=100, end=2000), 0.0),
        (dict(type="StepLR", step_size=800), 0.01),
        (dict(type="MultiStepLR", milestones=[1000, 1500, 1900]), 0.001),
        (dict(type="CosineRestartLR", periods=[1000, 1000], restart_weights=[1, 0.5], eta_min=0), 0.0),
        (dict(type="OneCycleLR", eta_max=1.0, total_steps=2000), 4e-6),
    ],
)
def test_a_run_of_another_length_ends_at_the_same_rate(schedule, last, masks, tmp_path, asked):
    schedules = [schedule | {"by_epoch": False}]
    (tmp_path / "long.py").write_text(f"train_cfg = dict(max_iters=2000)\nparam_scheduler = {schedules}\n")
    whole = rates_of(Config.fromfile(tmp_path / "long.py"))
    cfg, *_ = asked(masks, config=tmp_path / "long.py", iterations=400)
    shortened = rates_of(cfg)
    assert whole[-1] == pytest.approx(last, abs=1e-4)
    assert (len(shortened), shortened[-1]) == (400, pytest.approx(last, abs=1e-4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": "nowhere"}, r"nowhere: expected images/\{train,val\}/ and annotations/ .* no folder annotations"),
        (
            {"network": "convnext_tiny", "config": "fcn_lite0_own"},
            "network convnext_tiny: config fcn_lite0_own says which network it trains",
        ),
        ({"network": "convnext_tinny"}, "--network convnext_tinny: "),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"backbone": "nowhere.pth"}, "there is no checkpoint or work dir nowhere.pth"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, masks):
    with pytest.raises(UserError, match=message):
        slotcon_plugin.finetune(**{"labels": masks, **arguments})


def test_annotation_files_of_other_names_are_named(boxes):
    (boxes / "annotations/train.json").rename(boxes / "annotations/instances_default.json")
    with pytest.raises(UserError, match=r"annotations holds instances_default\.json, val\.json: expected train\.json"):
        slotcon_plugin.finetune(boxes)


def test_a_framework_that_is_missing_is_named(masks, monkeypatch):
    monkeypatch.setattr(finetuning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"masks need mmseg, which is not installed: bash tools/setup_env\.sh all"):
        slotcon_plugin.finetune(masks)


def test_a_plain_vit_is_no_detector_without_a_pyramid(boxes, tmp_path):
    name = "vit_tiny_patch16_224"
    with pytest.raises(UserError, match="all of its maps have one stride; a detector needs ViTDet's pyramid"):
        slotcon_plugin.finetune(boxes, weights(tmp_path, name), network=name)


@pytest.mark.slow
def test_a_segmenter_of_ones_own(masks, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "read_config", lambda name: shrink(read_config(name)))
    name = "convnext_atto"
    made = slotcon_plugin.finetune(masks, weights(tmp_path, name), tmp_path / "run", network=name, pretraining="mine")
    assert made.checkpoint == tmp_path / "run/iter_2.pth" and made.checkpoint.is_file()
    copied = shutil.copytree(made.work_dir, tmp_path / "copied")
    again = slotcon_plugin.finetune(masks, weights(tmp_path, name), copied, network=name, resume=True)
    assert (again.checkpoint, again.metrics) == (copied / "iter_2.pth", made.metrics)
    assert str(made).startswith("from mine: ") and f"mIoU {made.metrics['mIoU']:.1f}" in str(made)
    # in a process of its own, in which nothing of this package has told torch what a checkpoint may hold
    use = (
        "from mmseg.apis import inference_model, init_model\n"
        f"model = init_model({str(made.work_dir / 'fcn_lite0_own.py')!r}, {str(made.model)!r}, device='cpu')\n"
        f"found = inference_model(model, {str(next((masks / 'images/val').glob('*.jpg')))!r}).pred_sem_seg.data\n"
        "print(tuple(found.shape), len(model.dataset_meta['classes']))"
    )
    told = run_python("-c", use, cwd=tmp_path)
    assert told.stdout.splitlines()[-1:] == ["(1, 120, 160) 11"], told.stderr[-2000:]
