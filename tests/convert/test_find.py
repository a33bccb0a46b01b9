"""A backbone is found under whatever prefix, of whatever architecture; the branch is named by the prefix's words."""

import pytest
import timm
import torch
from torch import nn

from slotcon_plugin.convert import ConversionError, read_checkpoint
from slotcon_plugin.convert.find import anchor_of, choose, find_candidates, fit
from slotcon_plugin.convert.tensors import tensors_of

from .conftest import random_resnet


@pytest.fixture(scope="module")
def nets():
    return random_resnet(18, 1), random_resnet(18, 2)


def under(prefix, net):
    return {prefix + name: value for name, value in net.state_dict().items() if not name.startswith("fc.")}


def sequential(prefix, net):
    """``nn.Sequential(*list(net.children())[:-1])``, as lightly's examples cut a ResNet."""
    return {prefix + name: value for name, value in nn.Sequential(*list(net.children())[:-1]).state_dict().items()}


def some(*names):
    return {name: torch.ones(2, 2) for name in names}


def mmengine_ema(q, k):
    """mmengine's EMAHook exchanges the two before it saves: the average is the state_dict."""
    ema = {"steps": torch.tensor(3), **under("module.backbone.", q)}
    return {"state_dict": under("backbone.", k), "ema_state_dict": ema}


# name -> (how the file is made of student q and teacher k, kind, branch, the network that is to be taken)
FILES = {
    "mmpretrain SimSiam": (
        lambda q, k: {"state_dict": under("backbone.", q) | some("neck.0.weight", "head.predictor.0.weight")},
        "unknown", "backbone", "q"),
    "mmpretrain MoCo v2": (
        lambda q, k: {"state_dict": under("backbone.", q) | under("encoder_k.module.0.", k) | some("queue")},
        "moco", "student", "q"),
    "mmpretrain DenseCL": (
        lambda q, k: {"state_dict": under("backbone.", q) | under("encoder_k.module.0.", k) | some("queue", "queue2")},
        "densecl", "student", "q"),
    "mmselfsup BYOL": (
        lambda q, k: {"state_dict": under("backbone.", q) | under("online_net.0.", q) | under("target_net.0.", k)},
        "byol", "student", "q"),
    "Lightning, compiled": (
        lambda q, k: {"state_dict": under("_orig_mod.model.backbone.", q) | some("_orig_mod.model.fc.weight")},
        "unknown", "backbone", "q"),
    "lightly SimCLR": (
        lambda q, k: {"state_dict": sequential("backbone.", q) | some("projection_head.layers.0.weight")},
        "unknown", "backbone", "q"),
    "lightly DINO": (
        lambda q, k: {"state_dict": sequential("student_backbone.", q) | sequential("teacher_backbone.", k)
                      | some("student_head.last_layer.weight")},
        "dino", "teacher", "k"),
    "Barlow Twins": (
        lambda q, k: {"epoch": 3, "model": under("module.backbone.", q) | some("module.projector.0.weight")},
        "unknown", "backbone", "q"),
    "SwAV": (
        lambda q, k: {"state_dict": under("module.", q)
                      | some("module.projection_head.0.weight", "module.prototypes.weight")},
        "swav", "backbone", "q"),
    "MoCo v3": (
        lambda q, k: {"state_dict": under("module.base_encoder.", q) | under("module.momentum_encoder.", k)
                      | some("module.predictor.0.weight", "module.base_encoder.fc.0.weight")},
        "mocov3", "student", "q"),
    "DINO": (
        lambda q, k: {"student": under("module.backbone.", q) | some("module.head.last_layer.weight_v"),
                      "teacher": under("backbone.", k) | some("head.last_layer.weight_v"),
                      "optimizer": {"state": {0: some("exp_avg")}}},
        "dino", "teacher", "k"),
    "VISSL": (
        lambda q, k: {"classy_state_dict": {"base_model": {"model": {
            "trunk": under("_feature_blocks.", q), "heads": some("0.weight")}}}},
        "vissl", "backbone", "q"),
    "timm EMA": (
        lambda q, k: {"arch": "resnet18", "state_dict": under("", q), "state_dict_ema": under("", k)},
        "timm_ema", "teacher", "k"),
    "mmengine EMA": (mmengine_ema, "mmengine_ema", "teacher", "k"),
    "detectron2's torchvision": (
        lambda q, k: {"model": {
            "stem." + name if not name.startswith("layer") else name.replace("layer", "res"): value
            for name, value in {"fc.weight": torch.ones(2, 2)}.items()} | detectron2(q)},
        "unknown", "backbone", "q"),
}  # fmt: skip


def detectron2(net):
    from slotcon_plugin.convert.names import DETECTRON2

    return {DETECTRON2.to_target(name): value.numpy() for name, value in under("", net).items()}


@pytest.mark.parametrize("file", FILES)
def test_files_that_people_have(file, nets, tmp_path):
    build, kind, branch, which = FILES[file]
    torch.save(build(*nets), tmp_path / "x.pth")
    canonical = read_checkpoint(tmp_path / "x.pth")
    assert (canonical.meta["kind"], canonical.meta["branch"]) == (kind, branch)
    want = nets["qk".index(which)].state_dict()
    assert all(torch.equal(value, want[name]) for name, value in canonical.state_dict.items())


def test_two_backbones_and_no_known_kind_must_be_told_apart(nets, tmp_path):
    torch.save(under("first.", nets[0]) | under("second.", nets[1]), tmp_path / "x.pth")
    said = (
        r"several backbones.*backbone \(first\.\), backbone \(second\.\)\. Say --branch teacher\|student, or --prefix"
    )
    with pytest.raises(ConversionError, match=said):
        read_checkpoint(tmp_path / "x.pth")
    canonical = read_checkpoint(tmp_path / "x.pth", prefix="second")
    assert torch.equal(canonical.state_dict["conv1.weight"], nets[1].conv1.weight)
    with pytest.raises(ConversionError, match=r"no backbone below 'third'; it has backbone \(first\.\)"):
        read_checkpoint(tmp_path / "x.pth", prefix="third")


def test_soco_and_simsiam_are_not_pixpro(nets, tmp_path):
    """They share ``encoder`` and ``projector_k`` with it; SoCo's file must be told apart by the user."""
    q, k = nets
    soco = under("module.encoder.", q) | under("module.encoder_k.", k)
    soco |= some(
        "module.projector.linear1.weight", "module.projector_k.linear1.weight", "module.predictor.linear1.weight"
    )
    simsiam = under("module.encoder.", q) | some("module.encoder.fc.0.weight", "module.predictor.0.weight")
    torch.save({"model": soco}, tmp_path / "soco.pth")
    torch.save({"state_dict": simsiam}, tmp_path / "simsiam.pth")
    with pytest.raises(ConversionError, match=r"several backbones"):
        read_checkpoint(tmp_path / "soco.pth")
    assert read_checkpoint(tmp_path / "soco.pth", branch="student").meta["method"] == "unknown"
    assert read_checkpoint(tmp_path / "simsiam.pth").meta["method"] == "unknown"


def test_a_damaged_default_branch_is_not_replaced_by_the_other(nets, tmp_path):
    state = under("teacher.backbone.", nets[1]) | under("student.backbone.", nets[0])
    del state["teacher.backbone.layer3.0.conv1.weight"]
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=r"teacher.*layer3\.0\.conv1\.weight is missing .* 1 of 120 names are"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["convnext_atto", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_any_architecture_is_found_by_its_names_and_shapes(name):
    teacher, student = timm.create_model(name, num_classes=0), timm.create_model(name, num_classes=0)
    content = {"model": {f"module.{b}.{k}": v for b, net in (("teacher", teacher), ("student", student))
                         for k, v in net.state_dict().items()} | some("module.teacher.head.weight")}  # fmt: skip
    tensors, expected = tensors_of(content, "x"), teacher.state_dict()
    candidates = find_candidates(tensors, anchor_of(expected))
    chosen, branch = choose(candidates, "x", "teacher")
    weights, left_over = fit(chosen, expected, "x", "the wanted network")
    assert (chosen.prefix, branch, left_over) == ("model.module.teacher.", "teacher", ["head"])
    timm.create_model(name, num_classes=0).load_state_dict(weights)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())
    with pytest.raises(ConversionError, match="several backbones"):
        choose(candidates, "x")
    last = list(expected)[-1]
    chosen.weights[last] = torch.zeros(1)
    with pytest.raises(ConversionError, match=rf"{last} has shape .*, the wanted network has"):
        fit(chosen, expected, "x", "the wanted network")
    assert not find_candidates(tensors, "layer1.0.conv1.weight")


@pytest.mark.parametrize("strange", [lambda w: w.to("meta"), lambda w: w.to_sparse(), lambda w: w.to(torch.int8)])
def test_strange_tensors_in_several_backbones_are_no_traceback(strange, nets):
    state = {name: strange(value) for prefix in ("a.", "b.") for name, value in under(prefix, nets[0]).items()}
    with pytest.raises(ConversionError, match="several backbones"):
        choose(find_candidates(state, "layer1.0.conv1.weight"), "x")
