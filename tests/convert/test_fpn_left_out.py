"""A feature pyramid that does not fit stays behind, and says why."""

from functools import partial

import pytest
import torch

from slotcon_plugin.convert import convert, read_checkpoint
from slotcon_plugin.convert.writers import TARGETS, detectron2
from slotcon_plugin.convert.writers.openmmlab import config_fpn
from slotcon_plugin.declaration import PRETRAINING_KEY
from slotcon_plugin.models import TimmBackbone
from slotcon_plugin.models.decoders import FCNDecoder, FPNDecoder, PyramidDecoder

from .pyramids import vader_file


def test_a_pyramid_of_some_levels_stays_behind_and_says_so(tmp_path):
    path, state_dict = vader_file(tmp_path / "x.pth", norm=True)
    state_dict = {k: v for k, v in state_dict.items() if "output" not in k or "output.0" in k}
    torch.save({"state_dict": state_dict | {"student.heads.p2.grouping.prototypes": torch.randn(4, 8)}}, path)
    canonical = read_checkpoint(path, branch="student")
    assert not canonical.decoders
    assert canonical.meta["fpn_left_out"] == "it was pretrained at p2 alone"


def neck_config(path, neck):
    backbone = dict(type="ResNet", depth=18, style="pytorch")
    path.write_text(f"model = dict(backbone={backbone!r}, neck={neck!r})\n")
    return str(path)


@pytest.mark.parametrize(
    ("neck", "left_out"),
    [
        (dict(end_level=3), None),
        (dict(start_level=1), "the config's takes maps 1 to 3 of 4, the checkpoint's all 4"),
        (dict(end_level=2), "the config's takes maps 0 to 2 of 4, the checkpoint's all 4"),
        (dict(in_channels=[128, 256, 512]), "the config's takes maps 0 to 2 of 3, the checkpoint's all 4"),
        ([dict(type="FPN"), dict(type="BFP")], "the config's neck is 2 in a row"),
    ],
)
def test_a_neck_that_numbers_other_maps_takes_no_pyramid(neck, left_out, tmp_path):
    """RetinaNet's first lateral convolution takes the second map."""
    pytest.importorskip("mmdet")
    source, _ = vader_file(tmp_path / "x.pth")
    if isinstance(neck, dict):
        neck = dict(type="FPN", in_channels=[64, 128, 256, 512], out_channels=16, num_outs=5) | neck
    config = neck_config(tmp_path / "config.py", neck)
    meta = convert(source, tmp_path / "out.pth", "mmdet", branch="student", config=config)
    assert meta.get("fpn_left_out") == left_out


def test_a_pyramid_of_means_takes_none_of_sums(tmp_path):
    pytest.importorskip("detectron2")
    path = tmp_path / "config.yaml"
    path.write_text("MODEL: {BACKBONE: {NAME: build_resnet_fpn_backbone}, FPN: {FUSE_TYPE: avg}}")
    told = "the config's takes the avg of its levels (FPN.FUSE_TYPE), the checkpoint's their sum"
    assert detectron2.config_fpn(str(path), 4) == told
    path.write_text("MODEL: {BACKBONE: {NAME: build_resnet_fpn_backbone}}")
    assert detectron2.config_fpn(str(path), 4) == (256, None)


def test_a_neck_without_norm_on_its_laterals_takes_none_with_it(tmp_path):
    pytest.importorskip("mmdet")
    neck = dict(type="FPN", in_channels=[64] * 4, out_channels=16, norm_cfg=dict(type="BN"), no_norm_on_lateral=True)
    assert "no_norm_on_lateral" in config_fpn(neck_config(tmp_path / "config.py", neck), 4)


def timm_file(path, backbone, decoder):
    """Of a pretraining on a network of timm's; ``decoder``: (channels) -> decoder."""
    net = TimmBackbone(**{key: value for key, value in backbone.items() if key != "type"})
    state = {f"teacher.backbone.{k}": v for k, v in net.state_dict().items()}
    state |= {f"teacher.decoder.{k}": v for k, v in decoder(net.out_channels).state_dict().items()}
    declared = {"method": "slotcon_decoder", "branch": "teacher", "backbone": backbone}
    torch.save({"state_dict": state, PRETRAINING_KEY: declared}, path)
    return path


@pytest.mark.parametrize(("target", "left_out"), [("detectron2", True), ("mmdet", False)])
def test_maps_of_one_stride_stand_under_no_fpn_of_detectron2(target, left_out, tmp_path):
    pytest.importorskip(target)
    vit = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "img_size": 64, "depth": 4}
    source = timm_file(tmp_path / "x.pth", vit, lambda channels: FPNDecoder(channels, [16] * 4, 16, 8))
    meta = convert(source, tmp_path / f"out{TARGETS[target].suffixes[0]}", target)
    assert meta["fpn"] is not left_out
    assert ("half as large as the one before, those of" in meta.get("fpn_left_out", "")) is left_out


@pytest.mark.parametrize(
    ("indices", "decoder", "left_out"),
    [
        ((1, 2, 3), partial(PyramidDecoder, channels=16, levels=("p2", "p3", "p4")), ["fpn"]),
        ((-3, -2, -1), partial(FPNDecoder, strides=(8, 16, 32), fpn_channels=16, channels=8), ["fpn", "semantic"]),
        ((0, 1, 2, 3), partial(PyramidDecoder, channels=16), []),
        ((1, 2, 3), partial(FCNDecoder, channels=16, num_convs=1), []),
    ],
)
def test_a_decoder_of_other_maps_stays_behind_and_the_backbone_goes(indices, decoder, left_out, tmp_path):
    backbone = {"type": "TimmBackbone", "name": "convnext_atto", "out_indices": indices}
    canonical = read_checkpoint(timm_file(tmp_path / "x.pth", backbone, decoder))
    said = {name for name in canonical.meta if name.endswith("left_out")}
    assert said == {f"{name}_left_out" for name in left_out}
    assert bool(canonical.decoders) is not bool(left_out)
    for name in said:
        assert canonical.meta[name] == (
            "it was pretrained on stages (1, 2, 3) of timm's convnext_atto (out_indices), not on (0, 1, 2, 3)"
        )
