"""From every kind of source, through every target's own loader: the same features at every stage."""

from importlib import import_module

import pytest
import timm
import torch
from mmengine.registry import DefaultScope
from torch import nn
from torchvision import models

from slotcon_plugin.convert import build_canonical, convert, read_checkpoint, read_metadata

from .conftest import IMAGE, RECIPES, stage_features


def assert_same_maps(maps, expected):
    assert len(maps) == len(expected) == 4
    for got, want in zip(maps, expected):
        assert got.shape == want.shape
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def load_in_detectron2(path, depth):
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling.backbone.resnet import BasicStem, ResNet

    stages = ResNet.make_default_stages(depth, norm="BN", **({} if depth < 50 else {"stride_in_1x1": False}))
    names = ["res2", "res3", "res4", "res5"]
    net = ResNet(BasicStem(norm="BN"), stages, out_features=names)
    left = DetectionCheckpointer(net)._load_model(DetectionCheckpointer(net)._load_file(str(path)))
    assert left.missing_keys == left.unexpected_keys == left.incorrect_shapes == []
    return lambda image: list(net.eval()(image).values())


def load_in_openmmlab(library, path, depth):
    import_module(f"{library}.models.backbones")
    init = {"type": "Pretrained", "checkpoint": str(path)}
    settings = {"type": "ResNet", "depth": depth, "norm_cfg": {"type": "BN"}, "init_cfg": init}
    with DefaultScope.overwrite_default_scope(library):  # another test's runner may have left its own
        net = import_module(f"{library}.registry").MODELS.build(settings)
    net.init_weights()
    net.eval()  # returns None
    return net


def load_in_torchvision(path, depth):
    net = getattr(models, f"resnet{depth}")()
    left = net.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    return lambda image: stage_features(net.eval(), image)


LOADERS = {
    "detectron2": (".pkl", load_in_detectron2),
    "mmdet": (".pth", lambda path, depth: load_in_openmmlab("mmdet", path, depth)),
    "mmseg": (".pth", lambda path, depth: load_in_openmmlab("mmseg", path, depth)),
    "torchvision": (".pth", load_in_torchvision),
}


SPELLINGS = ("moco_v1", "densecl_mmselfsup", "densecl_extracted")  # further spellings of a kind: once, small


@pytest.mark.parametrize("target", LOADERS)
@pytest.mark.parametrize(
    ("name", "depth"), [(name, 18) for name in RECIPES] + [(name, 50) for name in RECIPES if name not in SPELLINGS]
)
def test_target_sees_what_the_source_saw(name, depth, target, source_file, tmp_path):
    if target != "torchvision":
        pytest.importorskip(target)
    source = source_file(name, depth)
    suffix, load = LOADERS[target]
    out = tmp_path / f"backbone{suffix}"
    meta = convert(source.path, out, target)

    assert (meta["kind"], meta["branch"]) == (source.kind, source.default_branch)
    assert meta["network"]["name"] == f"resnet{depth}"
    assert meta["proof"]["method"] == "feature parity"
    assert max(meta["proof"]["relative_errors"].values()) <= 1e-5
    assert read_metadata(out) == meta
    with torch.no_grad():
        assert_same_maps(load(out, depth)(IMAGE), stage_features(source.nets[source.default_branch]))


@pytest.mark.parametrize("name", RECIPES)
def test_each_branch_can_be_asked_for(name, source_file):
    source = source_file(name, 18)
    for branch, net in source.nets.items():
        asked = None if branch == "backbone" else branch
        canonical = read_checkpoint(source.path, branch=asked)
        assert canonical.meta["branch"] == branch
        with torch.no_grad():
            assert_same_maps(build_canonical(canonical)(IMAGE), stage_features(net))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("depth", [18, 50])
def test_timm_reads_what_torchvision_reads(depth, suffix, source_file, tmp_path):
    source = source_file("slotcon", depth)
    out = tmp_path / f"backbone{suffix}"
    convert(source.path, out, "torchvision")
    net = timm.create_model(f"resnet{depth}", num_classes=0, checkpoint_path=str(out)).eval()
    with torch.no_grad():
        maps = net.forward_intermediates(IMAGE, indices=[1, 2, 3, 4], intermediates_only=True)
    assert_same_maps(maps, stage_features(source.nets["teacher"]))


def test_a_timm_resnet_is_a_source(tmp_path):
    net = timm.create_model("resnet34").eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    torch.save(net.state_dict(), tmp_path / "timm.pth")
    canonical = read_checkpoint(tmp_path / "timm.pth")
    assert canonical.network.depth == 34
    with torch.no_grad():
        want = net.forward_intermediates(IMAGE, indices=[1, 2, 3, 4], intermediates_only=True)
        assert_same_maps(build_canonical(canonical)(IMAGE), want)


@pytest.mark.parametrize("target", LOADERS)
def test_a_converted_file_is_a_source_with_its_origin_kept(target, source_file, tmp_path):
    if target != "torchvision":
        pytest.importorskip(target)
    first = tmp_path / f"first{LOADERS[target][0]}"
    meta = convert(source_file("slotcon", 18).path, first, target, branch="student")
    again = read_checkpoint(first)
    original = read_checkpoint(source_file("slotcon", 18).path, branch="student")
    assert list(again.state_dict) == list(original.state_dict)
    assert all(torch.equal(again.state_dict[name], value) for name, value in original.state_dict.items())
    assert again.meta["backbone_sha256"] == original.meta["backbone_sha256"]
    assert again.meta["origin"] == meta
    assert again.meta["origin"]["branch"] == "student"


def test_detectron2_fpn_and_c4_models_find_every_backbone_key(source_file, tmp_path):
    """The names are those of the bottom-up alone; detectron2's suffix matching must place each of them."""
    pytest.importorskip("detectron2")
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build_resnet_backbone
    from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone
    from detectron2.modeling.roi_heads import Res5ROIHeads

    source = source_file("slotcon", 50)
    out = tmp_path / "r50.pkl"
    convert(source.path, out, "detectron2")
    truth = source.nets["teacher"].state_dict()
    cfg = get_cfg()
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.NORM = "BN"

    fpn_cfg = cfg.clone()
    fpn_cfg.MODEL.RESNETS.OUT_FEATURES = fpn_cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    fpn = nn.ModuleDict({"backbone": build_resnet_fpn_backbone(fpn_cfg, ShapeSpec(channels=3))})
    DetectionCheckpointer(fpn).load(str(out))
    bottom_up = fpn["backbone"].bottom_up
    assert torch.equal(bottom_up.stem.conv1.norm.running_mean, truth["bn1.running_mean"])
    assert torch.equal(bottom_up.res5[2].conv3.weight, truth["layer4.2.conv3.weight"])
    assert torch.equal(bottom_up.res3[0].shortcut.norm.bias, truth["layer2.0.downsample.1.bias"])

    c4 = nn.Module()
    c4.backbone = build_resnet_backbone(cfg, ShapeSpec(channels=3))  # ends at res4
    c4.roi_heads = nn.Module()
    c4.roi_heads.res5, _ = Res5ROIHeads._build_res5_block(cfg)
    DetectionCheckpointer(c4).load(str(out))
    assert torch.equal(c4.backbone.res4[5].conv2.weight, truth["layer3.5.conv2.weight"])
    assert torch.equal(c4.roi_heads.res5[0].conv1.weight, truth["layer4.0.conv1.weight"])
    assert torch.equal(c4.roi_heads.res5[2].conv3.norm.running_var, truth["layer4.2.bn3.running_var"])
