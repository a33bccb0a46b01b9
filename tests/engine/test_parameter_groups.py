import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from slotcon_plugin.engine import LARS, MixedPrecisionOptimWrapper
from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import MODELS


@pytest.fixture
def model():
    student = nn.ModuleDict(
        {"backbone": nn.Linear(2, 3), "backbone_extra": nn.Linear(1, 1), "decoder": nn.Linear(3, 1)}
    )
    model = nn.ModuleDict({"student": student, "teacher": nn.ModuleDict({"backbone": nn.Linear(2, 3)})})
    model["teacher"].requires_grad_(False)
    return model


def build(model, **paramwise):
    return build_optim_wrapper(
        model,
        dict(
            type="slotcon_plugin.MixedPrecisionOptimWrapper",
            dtype="float32",
            constructor="slotcon_plugin.PartOptimWrapperConstructor",
            optimizer=dict(type="slotcon_plugin.LARS", lr=1.0, weight_decay=1e-2),
            paramwise_cfg=paramwise or None,
        ),
    )


def groups_of(model, optimizer):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [
        ({names[p] for p in group["params"]}, group["lr"], group["weight_decay"]) for group in optimizer.param_groups
    ]


def test_a_group_a_part_and_whole_names_only(model):
    wrapper = build(
        model, custom_keys={"student.backbone": dict(lr_mult=0.5), "student.decoder.bias": dict(decay_mult=0)}
    )
    assert isinstance(wrapper, MixedPrecisionOptimWrapper)
    assert isinstance(wrapper.optimizer, LARS)
    assert groups_of(model, wrapper.optimizer) == [
        ({"student.backbone_extra.weight", "student.backbone_extra.bias", "student.decoder.weight"}, 1.0, 1e-2),
        ({"student.backbone.weight", "student.backbone.bias"}, 0.5, 1e-2),
        ({"student.decoder.bias"}, 1.0, 0.0),
    ]


def test_the_longest_beginning_decides(model):
    keys = {"student.backbone.bias": dict(lr_mult=3.0), "student": dict(lr_mult=2.0)}
    lr = {name: lr for names, lr, _ in groups_of(model, build(model, custom_keys=keys).optimizer) for name in names}
    assert lr.pop("student.backbone.bias") == 3.0
    assert set(lr.values()) == {2.0}


def test_without_parts_there_is_one_group_without_the_teacher(model):
    ((names, lr, decay),) = groups_of(model, build(model).optimizer)
    assert names == {name for name, _ in model.named_parameters() if name.startswith("student")}
    assert (lr, decay) == (1.0, 1e-2)


def test_the_optimisers_own_default_decay_stays(model):
    cfg = dict(
        constructor="slotcon_plugin.PartOptimWrapperConstructor",
        optimizer=dict(type="AdamW", lr=1e-3),
        paramwise_cfg=dict(custom_keys={"student.backbone": dict(lr_mult=0.1)}),
    )
    optimizer = build_optim_wrapper(model, cfg).optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-2, 1e-2]


def test_a_share_of_a_decay_that_is_not_said_is_refused(model):
    cfg = dict(
        constructor="slotcon_plugin.PartOptimWrapperConstructor",
        optimizer=dict(type="AdamW", lr=1e-3),
        paramwise_cfg=dict(custom_keys={"student.backbone": dict(decay_mult=0)}),
    )
    with pytest.raises(UserError, match=r"'student\.backbone' a share of weight_decay.*set optim_wrapper"):
        build_optim_wrapper(model, cfg)


def test_a_part_that_is_not_there_is_named(model):
    with pytest.raises(ValueError, match=r"student\.encoder"):
        build(model, custom_keys={"student.encoder": dict(lr_mult=0.1)})
    with pytest.raises(ValueError, match="norm_decay_mult"):
        build(model, norm_decay_mult=0.0)


def rates_of(backbone, **options):
    model = nn.ModuleDict({"student": nn.ModuleDict({"backbone": backbone, "head": nn.Linear(2, 2)})})
    wrapper = build(model, custom_keys={"student.backbone": options})
    return {name: lr for names, lr, _ in groups_of(model, wrapper.optimizer) for name in names}


@pytest.mark.parametrize(
    ("backbone", "rates"),
    [
        (
            {"type": "TorchvisionResNet", "depth": 18},
            {"conv1.weight": 1 / 32, "bn1.bias": 1 / 32, "layer1.0.conv1.weight": 1 / 16, "layer4.1.bn2.bias": 0.5},
        ),
        (  # the stem, seven stages of blocks; conv_head is behind the maps and not trained
            {"type": "TimmBackbone", "name": "tf_efficientnet_lite0"},
            {"model.conv_stem.weight": 1 / 256, "model.blocks.0.0.bn1.bias": 1 / 128, "model.blocks.6.0.bn1.bias": 0.5},
        ),
        (
            {"type": "TimmBackbone", "name": "convnext_atto"},
            {"model.stem.0.weight": 1 / 32, "model.stages.3.blocks.0.gamma": 0.5},
        ),
        (  # a plain ViT: each block is a stage, and the norm behind the last block belongs to it
            {"type": "TimmBackbone", "name": "vit_tiny_patch16_224"},
            {"model.pos_embed": 0.5**13, "model.blocks.0.attn.qkv.weight": 0.5**12, "model.blocks.11.norm1.bias": 0.5},
        ),
    ],
)
def test_earlier_stages_learn_more_slowly(backbone, rates):
    found = rates_of(MODELS.build(backbone), lr_mult=0.5, layer_decay=0.5)
    assert {name: found[f"student.backbone.{name}"] for name in rates} == rates
    assert found["student.head.weight"] == 1.0
    assert not any("conv_head" in name for name in found)


def test_layer_decay_is_refused_where_there_are_no_stages():
    with pytest.raises(UserError, match=r"finds no stages in 'student\.backbone'"):
        rates_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), layer_decay=0.5)
    with pytest.raises(UserError, match=r"must be in \(0, 1\]"):
        rates_of(nn.Linear(2, 2), layer_decay=1.5)
