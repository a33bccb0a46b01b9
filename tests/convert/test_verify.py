"""The proof catches what it is there for, and names it."""

import re
from dataclasses import replace

import pytest
import torch

from slotcon_plugin.convert import ConversionError, convert, read_checkpoint, read_metadata
from slotcon_plugin.convert.cli import run
from slotcon_plugin.convert.names import KeyMap
from slotcon_plugin.convert.summary import summary
from slotcon_plugin.convert.verify import prove
from slotcon_plugin.convert.writers import TARGETS

from .conftest import torchvision_file


class Exchanged(KeyMap):
    """Exchanges two BatchNorms of the same shape: loads strictly, computes something else."""

    def to_target(self, key):
        twins = {"layer2.1.bn1": "layer2.1.bn2", "layer2.1.bn2": "layer2.1.bn1"}
        module, _, leaf = key.rpartition(".")
        return super().to_target(f"{twins.get(module, module)}.{leaf}")


def exchanged(target):
    names = TARGETS[target].names["torchvision"]
    return Exchanged(names.rules, names.shift)


@pytest.mark.parametrize("target", TARGETS)
def test_weights_under_a_wrong_name_are_caught_and_named(target, tmp_path):
    if target != "torchvision":
        pytest.importorskip(target)
    canonical = read_checkpoint(torchvision_file(tmp_path / "x.pth"))
    wrong = {exchanged(target).to_target(name): value for name, value in canonical.state_dict.items()}
    first = re.escape(TARGETS[target].names["torchvision"].to_target("layer2.1.bn1.weight"))
    with pytest.raises(ConversionError, match=rf"{target}: the map of layer2 differs.*first differing key is {first}"):
        prove(canonical, wrong, TARGETS[target])


@pytest.mark.parametrize("target", TARGETS)
def test_a_wrong_key_map_writes_nothing(target, tmp_path, monkeypatch):
    if target != "torchvision":
        pytest.importorskip(target)
    source = torchvision_file(tmp_path / "x.pth")
    monkeypatch.setitem(TARGETS, target, replace(TARGETS[target], names={"torchvision": exchanged(target)}))
    out = tmp_path / "folder" / f"out{TARGETS[target].suffixes[0]}"
    with pytest.raises(ConversionError, match="the map of layer2 differs"):
        run(target, "", [str(source), str(out)])
    assert not out.parent.exists()


def test_a_wrong_tensor_behind_a_zero_batchnorm_is_caught(tmp_path):
    """Residual blocks start with a last BatchNorm of weight 0: no map shows what their convolutions hold."""

    def zero_blocks(state_dict):
        for name, value in state_dict.items():
            if name.startswith("layer") and ".bn2." in name and name.endswith(("weight", "bias")):
                value.zero_()

    canonical = read_checkpoint(torchvision_file(tmp_path / "x.pth", edit=zero_blocks))
    wrong = dict(canonical.state_dict)
    wrong["layer3.1.conv1.weight"] = wrong["layer3.1.conv2.weight"]
    with pytest.raises(ConversionError, match=r"layer3\.1\.conv1\.weight does not carry .* though all maps agree"):
        prove(canonical, wrong, TARGETS["torchvision"])


@pytest.mark.parametrize("target", TARGETS)
def test_missing_and_left_over_keys_are_named(target, tmp_path):
    if target != "torchvision":
        pytest.importorskip(target)
    canonical = read_checkpoint(torchvision_file(tmp_path / "x.pth"))
    names = TARGETS[target].names["torchvision"]
    tensors = {names.to_target(name): value for name, value in canonical.state_dict.items()}
    name = names.to_target("layer4.0.downsample.0.weight")
    with pytest.raises(ConversionError, match=rf"its network has {re.escape(name)}, which the converted weights lack"):
        prove(canonical, {k: v for k, v in tensors.items() if k != name}, TARGETS[target])
    with pytest.raises(ConversionError, match="stray has no counterpart"):
        prove(canonical, {**tensors, "stray": torch.zeros(1)}, TARGETS[target])


def test_a_detectron2_config_with_the_stride_elsewhere_fails_at_its_stage(source_file, tmp_path):
    pytest.importorskip("detectron2")
    config = tmp_path / "caffe.yaml"
    config.write_text("MODEL:\n  RESNETS:\n    DEPTH: 50\n    STRIDE_IN_1X1: True\nMY_TOOL:\n  KEY: 1\n")
    out = tmp_path / "out.pkl"
    with pytest.raises(ConversionError, match=r"the map of layer2 differs.*STRIDE_IN_1X1"):
        run("detectron2", "", [str(source_file("slotcon", 50).path), str(out), "--config", str(config)])
    assert not out.exists()
    config.write_text(
        "MODEL:\n  RESNETS:\n    DEPTH: 50\n    STRIDE_IN_1X1: False\n    NORM: SyncBN\n    RES5_DILATION: 2\n"
    )
    meta = convert(source_file("slotcon", 50).path, out, "detectron2", config=str(config))
    assert meta["proof"]["config"] == str(config)


def test_an_openmmlab_config_with_another_stem_names_the_key(source_file, tmp_path):
    pytest.importorskip("mmseg")
    config = tmp_path / "deep_stem.py"
    backbone = "dict(type='{}', depth={}, norm_cfg=dict(type='SyncBN'), dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))"
    source, out = source_file("slotcon", 50).path, tmp_path / "out.pth"
    config.write_text("model = dict(backbone=" + backbone.format("ResNetV1c", 50) + ")")
    with pytest.raises(
        ConversionError, match=r"mmseg: its network has stem\.0\.weight, which the converted weights lack"
    ):
        convert(source, out, "mmseg", config=str(config))
    config.write_text("model = dict(backbone=" + backbone.format("ResNet", 18) + ")")
    with pytest.raises(ConversionError, match="wants depth=18, the checkpoint is ResNet-50"):
        convert(source, out, "mmseg", config=str(config))
    assert not out.exists()
    config.write_text("model = dict(backbone=" + backbone.format("ResNet", 50) + ")")
    assert convert(source, out, "mmseg", config=str(config))["proof"]["config"] == str(config)


@pytest.mark.parametrize("target", ["detectron2", "mmdet", "mmseg"])
def test_without_the_framework_the_key_map_is_the_proof_and_the_file_says_so(
    target, source_file, tmp_path, monkeypatch
):
    absent = replace(TARGETS[target], imports="a_framework_that_nobody_has.models")
    monkeypatch.setitem(TARGETS, target, absent)
    source, out = source_file("slotcon", 18), tmp_path / f"out{absent.suffixes[0]}"
    meta = convert(source.path, out, target)
    assert read_metadata(out)["proof"] == meta["proof"]
    assert meta["proof"]["method"] == "key map"
    assert "No module named 'a_framework_that_nobody_has'" in meta["proof"]["reason"]
    written, read = read_checkpoint(out).state_dict, read_checkpoint(source.path).state_dict
    assert all(torch.equal(written[name], value) for name, value in read.items())
    assert "not by features" in summary("out", meta)

    canonical = read_checkpoint(source.path)
    tensors = {absent.names["torchvision"].to_target(name): value for name, value in canonical.state_dict.items()}
    name = absent.names["torchvision"].to_target("layer1.0.bn1.bias")
    with pytest.raises(ConversionError, match=re.escape(name)):
        prove(canonical, {**tensors, name: tensors[name] + 1e-7}, absent)
