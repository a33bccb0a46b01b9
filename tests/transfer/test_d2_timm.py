"""detectron2 on networks of timm: what their recipes differ in, weights that arrive, runs on demo scenes."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2")

import torch
from detectron2.modeling import build_model

from slotcon_plugin.convert import ConversionError, convert, read_checkpoint
from slotcon_plugin.convert.writers.detectron2 import network_of_config
from slotcon_plugin.errors import UserError
from slotcon_plugin.results import read_result
from slotcon_plugin.transfer import d2
from slotcon_plugin.transfer.d2_start import use_backbone
from slotcon_plugin.transfer.d2_trainer import backbone_weights, check_backbone_arrived

from .d2_configs import CONFIGS, OF_TIMM, TINY, d2_config, flat, load


@pytest.mark.parametrize("name", OF_TIMM)
def test_recipes_of_timm_differ_from_the_resnet_s_in_this(name):
    base, ours = flat(load("mask_rcnn_r50_fpn_1x_coco")), flat(load(name))
    lite = {
        "MODEL.PIXEL_MEAN": [127.5] * 3,
        "MODEL.PIXEL_STD": [127.5] * 3,
        "MODEL.TIMM.NORM_EVAL": True,
        "TEST.PRECISE_BN.ENABLED": False,
    }
    assert {key: ours[key] for key in ours if ours[key] != base[key]} == {
        "MODEL.BACKBONE.NAME": "build_timm_fpn_backbone",
        "MODEL.TIMM.NAME": "tf_efficientnet_lite0" if "lite0" in name else "convnext_tiny",
        "SOLVER.OPTIMIZER": "AdamW",
        "SOLVER.BASE_LR": 1e-4,
        "SOLVER.WEIGHT_DECAY": 0.05,
        **(lite if "lite0" in name else {"MODEL.TIMM.OPTIONS": ["drop_path_rate", 0.2]}),
    }


PYRAMID_ON_VIT = {
    "MODEL.BACKBONE.NAME": "build_timm_simple_pyramid_backbone",
    "MODEL.TIMM.NAME": "vit_tiny_patch16_224",
    "MODEL.TIMM.OPTIONS": "['dynamic_img_size', True]",
    "MODEL.PIXEL_MEAN": "[127.5, 127.5, 127.5]",
    "MODEL.PIXEL_STD": "[127.5, 127.5, 127.5]",
    "MODEL.FPN.NORM": "LN",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        *((name, {"MODEL.TIMM.NAME": network}) for name, network in OF_TIMM.items()),
        ("mask_rcnn_convnext_tiny_fpn_1x_coco", PYRAMID_ON_VIT),
    ],
    ids=[*OF_TIMM, "vit"],
)
def test_a_network_of_timm_s_trains_from_a_pretraining_checkpoint(name, changed, tmp_path, scenes, weights_of_timm):
    checkpoint = weights_of_timm(changed["MODEL.TIMM.NAME"])
    config, small = str(CONFIGS / f"{name}.yaml"), TINY | changed | {"OUTPUT_DIR": str(tmp_path)}
    opts = [word for pair in small.items() for word in pair]
    d2.train(config, opts, backbone=str(checkpoint), data_root=str(scenes("coco")))

    before = read_checkpoint(checkpoint)
    result = read_result(tmp_path / "result.json")
    assert (result["backbone_sha256"], result["pretraining"]) == (before.meta["backbone_sha256"], "vader")
    cfg = d2_config(name)
    cfg.merge_from_list(opts)
    model = d2.TransferTrainer.build_model(cfg)
    model.load_state_dict(torch.load(tmp_path / "model_final.pth", weights_only=True)["model"])
    learnt = {key for key, parameter in model.backbone.named_parameters() if parameter.requires_grad}
    still = {
        key
        for key, value in backbone_weights(model, before.network).items()
        if torch.equal(value, before.state_dict[key]) and any(own.endswith(f".model.{key}") for own in learnt)
    }
    assert not still, f"{sorted(still)[:3]} did not learn"

    weights = [*opts, "MODEL.WEIGHTS", str(tmp_path / "model_final.pth"), "OUTPUT_DIR", ""]
    d2.evaluate(config, weights, data_root=str(scenes("coco")))
    assert read_result(tmp_path / "test_result.json")["metrics"] == result["metrics"]


@pytest.mark.parametrize("changed", [{}, PYRAMID_ON_VIT, {"MODEL.FPN.NORM": ""}], ids=["fpn", "vit", "vader's pyramid"])
def test_every_tensor_of_timm_s_arrives(changed, tmp_path, weights_of_timm):
    changed = {"MODEL.TIMM.NAME": "convnext_atto"} | changed
    checkpoint = weights_of_timm(changed["MODEL.TIMM.NAME"], 256)
    cfg = d2_config("mask_rcnn_convnext_tiny_fpn_1x_coco")
    cfg.merge_from_list([word for pair in changed.items() for word in pair])
    cfg.OUTPUT_DIR = str(tmp_path)
    origin = use_backbone(cfg, str(checkpoint), None)
    model = build_model(cfg)
    network = network_of_config(cfg)
    with pytest.raises(ConversionError, match="does not hold the weights"):
        check_backbone_arrived(model, origin, network)
    d2.DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    check_backbone_arrived(model, origin, network)
    own = model.state_dict()
    for key, value in torch.load(checkpoint)["state_dict"].items():
        key = key.removeprefix("student.")
        if key.startswith("backbone."):
            (place,) = (name for name in own if name.endswith(f"net.{key.removeprefix('backbone.')}"))
            assert torch.equal(own[place], value), key
        elif changed.get("MODEL.FPN.NORM") == "":
            _, _, part, level, leaf = key.split(".")
            assert torch.equal(own[f"backbone.fpn_{part}{int(level) + 2}.{leaf}"], value), key


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MODEL.PIXEL_MEAN": "[123.675, 116.28, 103.53]"}, r"mean: the weights want \[127.5"),
        ({"INPUT.FORMAT": "BGR"}, "the weights want RGB, the config has BGR"),
        ({"MODEL.TIMM.NAME": "convnext_atto"}, "lite0, and timm's convnext_atto was asked for"),
        ({"MODEL.TIMM.NAME": "efficientnet_lite0"}, "lite0, and timm's efficientnet_lite0 was asked for"),
        ({"MODEL.TIMM.OPTIONS": "['act_layer', 'gelu']"}, "lite0, act_layer=gelu was asked for"),
    ],
)
def test_weights_that_do_not_fit_stop_a_run_of_timm_s(changed, message, tmp_path, weights_of_timm):
    cfg = d2_config("mask_rcnn_lite0_fpn_1x_coco")
    cfg.merge_from_list([word for pair in changed.items() for word in pair])
    cfg.OUTPUT_DIR = str(tmp_path)
    with pytest.raises(ConversionError, match=message):
        use_backbone(cfg, str(weights_of_timm("tf_efficientnet_lite0")), None)


def test_a_resnet_does_not_go_into_a_config_of_timm_s(tmp_path, pretrained, weights_of_timm):
    of_timm, of_resnet = (
        str(CONFIGS / f"{name}.yaml") for name in ("mask_rcnn_convnext_tiny_fpn_1x_coco", "mask_rcnn_r50_fpn_1x_coco")
    )
    with pytest.raises(ConversionError, match="wants timm's convnext_tiny, the checkpoint is ResNet-18"):
        convert(pretrained(18), tmp_path / "x.pkl", "detectron2", config=of_timm)
    with pytest.raises(ConversionError, match="wants ResNet-50, the checkpoint is timm's convnext_atto"):
        convert(weights_of_timm("convnext_atto"), tmp_path / "x.pkl", "detectron2", config=of_resnet)


def test_the_optimiser_is_sgd_or_adamw():
    cfg = d2_config("mask_rcnn_lite0_fpn_1x_coco")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    optimizer = d2.TransferTrainer.build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.AdamW)
    decay = {len(group["params"]): group["weight_decay"] for group in optimizer.param_groups}
    assert {group["lr"] for group in optimizer.param_groups} == {1e-4}
    assert sorted(group["weight_decay"] for group in optimizer.param_groups)[0] == 0.0, decay
    cfg.SOLVER.OPTIMIZER = "Adam"
    with pytest.raises(UserError, match="SGD or AdamW, got 'Adam'"):
        d2.TransferTrainer.build_optimizer(cfg, model)
