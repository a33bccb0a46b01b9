"""A feature pyramid travels with its backbone."""

import pytest
import torch

from slotcon_plugin.convert import ConversionError, convert, read_checkpoint
from slotcon_plugin.convert.read import FPN_KEYS
from slotcon_plugin.convert.safe_load import load_file
from slotcon_plugin.convert.writers import TARGETS

from .conftest import random_resnet


def vader_file(path, depth=18, width=16):
    net = random_resnet(depth, 6)
    channels = [64 * 2**i * (4 if depth >= 50 else 1) for i in range(4)]
    state_dict = {f"student.backbone.{k}": v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    for level, c in enumerate(channels):
        state_dict[f"student.decoder.fpn.lateral.{level}.weight"] = torch.randn(width, c, 1, 1) / c**0.5
        state_dict[f"student.decoder.fpn.lateral.{level}.bias"] = torch.randn(width)
        state_dict[f"student.decoder.fpn.output.{level}.weight"] = torch.randn(width, width, 3, 3) / width
        state_dict[f"student.decoder.fpn.output.{level}.bias"] = torch.randn(width)
    torch.save({"state_dict": state_dict}, path)
    return path, state_dict


@pytest.mark.parametrize(
    ("target", "lateral"),
    [
        ("detectron2", "fpn_lateral3.weight"),
        ("mmdet", "neck.lateral_convs.1.conv.weight"),
        ("mmseg", "neck.lateral_convs.1.conv.weight"),
        ("torchvision", "fpn.inner_blocks.1.0.weight"),
    ],
)
@pytest.mark.parametrize("depth", [18, 50])
def test_the_pyramid_travels_too_and_is_proved(depth, target, lateral, tmp_path):
    if target != "torchvision":
        pytest.importorskip(target)
    source, state_dict = vader_file(tmp_path / "x.pth", depth)
    out = tmp_path / f"out{TARGETS[target].suffixes[0]}"
    meta = convert(source, out, target, which="student")
    assert meta["fpn"]
    assert set(meta["proof"]["relative_errors"]) == {
        *("layer1", "layer2", "layer3", "layer4"),
        *(f"fpn level {i}" for i in range(4)),
    }
    again = read_checkpoint(out)
    assert set(again.fpn) == FPN_KEYS
    for name, value in again.fpn.items():
        assert torch.equal(value, state_dict[f"student.decoder.fpn.{name}"])
    tensors = load_file(out).get("model") or load_file(out)["state_dict"]
    assert torch.equal(torch.as_tensor(tensors[lateral]), state_dict["student.decoder.fpn.lateral.1.weight"])


def test_an_incomplete_pyramid_is_named(tmp_path):
    path, state_dict = vader_file(tmp_path / "x.pth")
    del state_dict["student.decoder.fpn.output.2.bias"]
    torch.save({"state_dict": state_dict}, path)
    with pytest.raises(ConversionError, match=r"output\.2\.bias"):
        read_checkpoint(path, which="student")
