"""timm's networks as detectron2's backbones: the same maps, a pyramid on top, wrong settings refused."""

import pytest
import torch

pytest.importorskip("detectron2")
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_backbone

from slotcon_plugin.d2_timm import add_timm_config
from slotcon_plugin.errors import UserError


def config(name: str, builder: str, *options) -> CfgNode:
    cfg = get_cfg()
    add_timm_config(cfg)
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", builder, "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.FPN.OUT_CHANNELS", 16])
    cfg.merge_from_list(["MODEL.TIMM.NAME", name, "MODEL.TIMM.OPTIONS", list(options)])
    return cfg


@pytest.mark.parametrize(
    ("name", "builder", "options"),
    [
        ("convnext_atto", "build_timm_fpn_backbone", ()),
        ("tf_efficientnet_lite0", "build_timm_fpn_backbone", ()),
        ("vit_tiny_patch16_224", "build_timm_simple_pyramid_backbone", ("dynamic_img_size", True)),
    ],
)
def test_a_pyramid_stands_on_timm_s_maps(name, builder, options):
    backbone = build_backbone(config(name, builder, *options)).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        levels = backbone(image)
    assert {k: tuple(v.shape) for k, v in levels.items()} == {
        f"p{i}": (1, 16, 64 // 2**i, -(-96 // 2**i)) for i in (2, 3, 4, 5, 6)
    }
    assert backbone.size_divisibility == 32
    assert {k: s.stride for k, s in backbone.output_shape().items()} == {f"p{i}": 2**i for i in (2, 3, 4, 5, 6)}


def test_maps_and_options_are_those_of_the_network():
    maps = build_backbone(config("tf_efficientnet_lite0", "build_timm_backbone", "output_stride", 16)).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for got, want in zip(maps(image).values(), maps.net(image), strict=True):
            assert torch.equal(got, want)
    assert [shape.stride for shape in maps.output_shape().values()] == [4, 8, 16, 16]


def test_freezing_a_part_is_refused():
    cfg = config("convnext_atto", "build_timm_backbone")
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    with pytest.raises(UserError, match="FREEZE_AT is 2"):
        build_backbone(cfg)
