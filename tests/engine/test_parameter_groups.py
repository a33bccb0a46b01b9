import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from slotcon_plugin.engine import LARS, MixedPrecisionOptimWrapper


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


def test_a_part_that_is_not_there_is_named(model):
    with pytest.raises(ValueError, match=r"student\.encoder"):
        build(model, custom_keys={"student.encoder": dict(lr_mult=0.1)})
    with pytest.raises(ValueError, match="norm_decay_mult"):
        build(model, norm_decay_mult=0.0)
