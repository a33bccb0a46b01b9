"""The key maps are bijections, and say what the frameworks say."""

import pytest
from torchvision import models

from slotcon_plugin.convert import names
from slotcon_plugin.convert.official import OFFICIAL
from slotcon_plugin.errors import ConversionError

RESNET_MAPS = {"torchvision": names.TORCHVISION, "detectron2": names.DETECTRON2, "sequential": names.SEQUENTIAL}
FPN_KEYS = {f"{part}.{i}.{leaf}" for part in ("lateral", "output") for i in range(4) for leaf in ("weight", "bias")}
FPN_MAPS = {
    "project": names.PROJECT_FPN,
    "torchvision": names.TORCHVISION_FPN,
    "detectron2": names.DETECTRON2_FPN,
    "openmmlab": names.OPENMMLAB_FPN,
}


def assert_bijection(key_map, keys):
    there = [key_map.to_target(key) for key in keys]
    assert len(set(there)) == len(keys)
    assert [key_map.to_canonical(name) for name in there] == list(keys)
    assert all(key_map.knows_target(name) for name in there)


@pytest.mark.parametrize("key_map", RESNET_MAPS.values(), ids=RESNET_MAPS)
@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_every_name_of_a_resnet_there_and_back(depth, key_map):
    keys = [k for k in getattr(models, f"resnet{depth}")().state_dict() if not k.startswith("fc.")]
    assert_bijection(key_map, keys)


@pytest.mark.parametrize("key_map", FPN_MAPS.values(), ids=FPN_MAPS)
def test_every_name_of_a_pyramid_there_and_back(key_map):
    assert_bijection(key_map, sorted(FPN_KEYS))


def test_official_names_there_and_back():
    assert_bijection(
        OFFICIAL,
        [
            f"{branch}.{part}"
            for branch in ("student", "teacher")
            for part in ("backbone.layer1.0.bn1.weight", "projector.layers.4.running_var", "grouping.prototypes")
        ]
        + ["student.predictor.layers.6.bias", "center.value"],
    )


@pytest.mark.parametrize(
    ("canonical", "detectron2"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_mean", "stem.conv1.norm.running_mean"),
        ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
        ("layer4.2.bn3.bias", "res5.2.conv3.norm.bias"),
        ("layer3.22.conv2.weight", "res4.22.conv2.weight"),
        ("layer2.0.downsample.0.weight", "res3.0.shortcut.weight"),
        ("layer2.0.downsample.1.num_batches_tracked", "res3.0.shortcut.norm.num_batches_tracked"),
    ],
)
def test_detectron2_names_by_hand(canonical, detectron2):
    assert names.DETECTRON2.to_target(canonical) == detectron2
    assert names.DETECTRON2.to_canonical(detectron2) == canonical


@pytest.mark.parametrize(
    ("key_map", "expected"),
    [
        (names.DETECTRON2_FPN, ["fpn_lateral2.weight", "fpn_output5.bias"]),
        (names.OPENMMLAB_FPN, ["neck.lateral_convs.0.conv.weight", "neck.fpn_convs.3.conv.bias"]),
        (names.TORCHVISION_FPN, ["fpn.inner_blocks.0.0.weight", "fpn.layer_blocks.3.0.bias"]),
    ],
)
def test_pyramid_names_by_hand(key_map, expected):
    assert [key_map.to_target(key) for key in ("lateral.0.weight", "output.3.bias")] == expected


@pytest.mark.parametrize("name", ["fc.weight", "layer1.0.se.conv.weight", "xconv1.weight", "conv1.weight.x", "bn1"])
def test_a_name_outside_the_table_is_an_error(name):
    for key_map in RESNET_MAPS.values():
        with pytest.raises(ConversionError, match=r"no rule .*" + name.replace(".", r"\.")):
            key_map.to_target(name)
