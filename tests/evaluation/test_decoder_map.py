import pytest
import torch
from mmengine.config import Config

from slotcon_plugin.evaluation.arms import load_probe_arms
from slotcon_plugin.evaluation.decoder_map import WithDecoderMap
from slotcon_plugin.models import VADeR


def make_vader(seed):
    torch.manual_seed(seed)
    return VADeR(
        backbone=dict(type="slotcon_plugin.TorchvisionResNet", depth=18),
        decoder=dict(fpn_channels=8, channels=8),
        queue_size=4,
    ).eval()


def test_the_decoders_map_is_the_last_stage():
    model, images = make_vader(0), torch.randn(1, 3, 64, 64)
    maps = WithDecoderMap(model.branch("teacher"))(images)
    assert len(maps) == 5
    assert torch.equal(maps[-1], model.embed(images))
    for ours, expected in zip(maps, model.extract_features(images)):
        assert torch.equal(ours, expected)
    with pytest.raises(ValueError, match="backbone"):
        WithDecoderMap(torch.nn.ModuleDict({"backbone": torch.nn.Identity()}))


def test_probe_arms_carry_the_decoder(tmp_path, moved_apart):
    model, images = moved_apart(make_vader(1)), torch.randn(1, 3, 64, 64)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")
    Config(
        dict(
            model=dict(
                type="VADeR",
                backbone=dict(type="TorchvisionResNet", depth=18),
                decoder=dict(fpn_channels=8, channels=8),
                queue_size=4,
            )
        )
    ).dump(tmp_path / "c.py")
    for asked, branch in (("student", "student"), (None, "teacher")):
        arms = load_probe_arms(tmp_path / "a.pth", tmp_path / "c.py", decoder=True, branch=asked)
        assert torch.equal(arms["checkpoint"][0].eval()(images)[-1], model.embed(images, branch))
    assert arms["checkpoint"][1] == load_probe_arms(tmp_path / "a.pth")["checkpoint"][1]
    assert arms["random"][1] is None
    assert not torch.equal(arms["random"][0].eval()(images)[-1], model.embed(images))
    with pytest.raises(ValueError, match="--config"):
        load_probe_arms(tmp_path / "a.pth", decoder=True)
    with pytest.raises(ValueError, match="--decoder and --output-stride exclude each other"):
        load_probe_arms(tmp_path / "a.pth", decoder=True, output_stride=16)
    with pytest.raises(ValueError, match=r"--network resnet50: .*c\.py says which network it is"):
        load_probe_arms(tmp_path / "a.pth", tmp_path / "c.py", network="resnet50")
