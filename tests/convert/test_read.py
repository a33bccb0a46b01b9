"""What is read from which file, and what is said about a file that cannot be used."""

import argparse

import pytest
import torch
from safetensors.torch import save_file

from slotcon_plugin.convert import ConversionError, convert, read_checkpoint
from slotcon_plugin.convert.find import refuse_holes
from slotcon_plugin.convert.network import network_by_name, network_of_backbone
from slotcon_plugin.declaration import PRETRAINING_KEY

from .conftest import random_resnet, torchvision_file


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("layer3.1.bn2.running_var"), r"layer3\.1\.bn2\.running_var is missing"),
        (
            lambda s: s.update({"layer2.0.conv1.weight": torch.zeros(256, 64, 3, 3)}),
            r"layer2\.0\.conv1\.weight has shape \(256, 64, 3, 3\), a plain ResNet-18 has \(128, 64, 3, 3\)",
        ),
        (lambda s: s.update({"layer1.0.se.fc1.weight": torch.zeros(4)}), r"layer1\.0\.se\.fc1\.weight has no place"),
        (lambda s: s["layer4.1.conv2.weight"].fill_(float("nan")), r"layer4\.1\.conv2\.weight holds NaN or infinity"),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("layer2.1.")],
            r"\(2, 1, 2, 2\) basic blocks .* no known ResNet; known depths: \[18, 34, 50, 101, 152\]",
        ),
    ],
)
def test_a_net_that_is_no_plain_resnet_is_named_by_its_first_bad_key(edit, message, tmp_path):
    path = torchvision_file(tmp_path / "x.pth", edit=edit)
    with pytest.raises(ConversionError, match=message):
        read_checkpoint(path)


def test_unknown_files_list_what_was_seen_and_what_is_known(tmp_path):
    torch.save({"net.stem.weight": torch.zeros(1), "net.head.bias": torch.zeros(1)}, tmp_path / "x.pth")
    said = r"holds no ResNet.*holds 2 tensors, under: net\.head, net\.stem"
    with pytest.raises(ConversionError, match=said) as caught:
        read_checkpoint(tmp_path / "x.pth")
    for kind in ("slotcon_plugin", "slotcon", "moco", "densecl", "pixpro", "dino", "torchvision"):
        assert f"\n  {kind} " in str(caught.value)


def test_a_file_of_thousands_of_keys_is_told_in_few_words(tmp_path):
    torch.save({f"blocks.{i}.{'x' * 50}": torch.zeros(1) for i in range(3000)}, tmp_path / "x.pth")
    with pytest.raises(ConversionError) as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert len(str(caught.value)) < 2500


def test_no_tensors_at_all(tmp_path):
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="holds no tensors"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_declared_kind_wins(source_file):
    slotcon = source_file("slotcon", 18)
    as_moco = read_checkpoint(slotcon.path, kind="moco")
    assert (as_moco.meta["kind"], as_moco.meta["method"], as_moco.meta["branch"]) == ("moco", "moco", "student")
    with pytest.raises(ConversionError, match="unknown kind 'clip'"):
        read_checkpoint(slotcon.path, kind="clip")
    with pytest.raises(ConversionError, match=r"has no teacher; it has backbone \(no prefix\)"):
        read_checkpoint(source_file("torchvision", 18).path, branch="teacher")


def test_what_a_file_does_not_say_is_unknown_until_declared(source_file):
    path = source_file("torchvision", 18).path
    meta = read_checkpoint(path).meta
    assert [meta[name] for name in ("kind", "method", "colour_order", "mean", "std", "stride_in_1x1")] == [
        "unknown"
    ] * 6
    assert "nothing says who trained it" in meta["recognised"]
    declared = {"colour_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
    assert declared.items() <= read_checkpoint(path, declared=declared).meta.items()
    meta = read_checkpoint(path, kind="torchvision").meta
    assert (meta["method"], meta["colour_order"], meta["stride_in_1x1"]) == ("torchvision", "RGB", False)
    for wrong in ({"colour_order": "GRB"}, {"mean": [1.0]}, {"std": [1.0, 0.0, 1.0]}, {"mean": [float("nan")] * 3}):
        with pytest.raises(ConversionError, match=next(iter(wrong))):
            read_checkpoint(path, declared=wrong)


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("resnetaa18.pth", {}),
        ("model.pth", {"arch": "resnetblur18"}),
        ("model.pth", {"args": argparse.Namespace(model="resnetaa50d")}),
    ],
)
def test_networks_with_the_same_keys_are_refused_by_what_they_are_called(name, beside, tmp_path):
    torchvision_file(tmp_path / "x.pth")
    torch.save({"state_dict": torch.load(tmp_path / "x.pth"), **beside}, tmp_path / name)
    with pytest.raises(ConversionError, match=r"resnet(aa|blur)\d+d? has the keys of a plain ResNet but pools"):
        read_checkpoint(tmp_path / name)
    assert read_checkpoint(tmp_path / name, kind="unknown").network.depth == 18


@pytest.mark.parametrize(
    ("strange", "said"),
    [
        (lambda w: (w * 10).to(torch.int8), r"is of torch\.int8; expected floating point"),
        (lambda w: w > 0, r"is of torch\.bool"),
        (lambda w: w.to(torch.complex64), r"is of torch\.complex64"),
        (lambda w: w.to(torch.float8_e4m3fn), r"is of torch\.float8_e4m3fn"),
        (lambda w: w.to_sparse(), "is sparse"),
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "is quantised"),
        (lambda w: w.to("meta"), "is without values"),
        (lambda w: w[:1, :1, :1, :1].expand(w.shape), "repeats fewer numbers"),
        (lambda w: w.double() * 1e300, "holds NaN or infinity"),
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused(strange, said, tmp_path):
    def edit(state_dict):
        state_dict["layer2.0.conv1.weight"] = strange(state_dict["layer2.0.conv1.weight"])

    with pytest.raises(ConversionError, match=rf"layer2\.0\.conv1\.weight.*{said}"):
        read_checkpoint(torchvision_file(tmp_path / "x.pth", edit=edit))


def test_keys_that_are_no_names(tmp_path):
    torch.save({"state_dict": {1: torch.zeros(1), 2: torch.zeros(2)}}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="holds no tensors under names; its keys: 'state_dict'"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_hole_in_a_file_without_checksums_is_found(tmp_path):
    """4 KB of zeros somewhere in a convolution; constant biases and norms are what fresh networks have."""
    state_dict = {name: value.contiguous() for name, value in random_resnet(18, 5).state_dict().items()}
    for value in state_dict.values():
        if value.ndim == 1:
            value.zero_()
    save_file(state_dict, tmp_path / "x.safetensors")
    assert read_checkpoint(tmp_path / "x.safetensors").network.depth == 18
    content = bytearray((tmp_path / "x.safetensors").read_bytes())
    content[20_000_001:20_001_025] = bytes(1024)
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ConversionError, match=r"x\.safetensors: layer\S+ has a block of 128 equal numbers"):
        read_checkpoint(tmp_path / "x.safetensors")


def test_any_change_of_a_converted_file_is_found(source_file, tmp_path):
    """It carries a hash of its weights."""
    convert(source_file("slotcon", 18).path, tmp_path / "x.pkl", "detectron2")
    content = bytearray((tmp_path / "x.pkl").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ConversionError, match="not those that this package once wrote"):
        read_checkpoint(tmp_path / "x.pkl")


@pytest.mark.parametrize("out", ["x.pkl", "x.pth"])
def test_timms_plain_resnets_are_read_in_every_spelling(out, source_file, tmp_path):
    """Fine-tuning builds the deeper ones by timm."""
    convert(source_file("slotcon", 18).path, tmp_path / out, "detectron2" if out == "x.pkl" else "torchvision")
    network = network_of_backbone({"type": "TimmBackbone", "name": "resnet18"})
    got = read_checkpoint(tmp_path / out, network=network)
    want = read_checkpoint(tmp_path / out)
    assert got.network.library == "timm"
    assert all(torch.equal(value, got.state_dict[name]) for name, value in want.state_dict.items())


def test_model_zoo_names_are_looked_up_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    with pytest.raises(ConversionError, match=r"torchvision://resnet18 is not in .*checkpoints; download it first"):
        read_checkpoint("torchvision://resnet18")
    for folder in ("checkpoints", "detectron2/ImageNetPretrained"):
        (tmp_path / folder).mkdir(parents=True)
    torchvision_file(tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    torchvision_file(tmp_path / "detectron2/ImageNetPretrained/R-18.pkl")
    for name in ("torchvision://resnet18", "detectron2://ImageNetPretrained/R-18.pkl"):
        assert read_checkpoint(name).network.depth == 18
    with pytest.raises(ConversionError, match="no such scheme"):
        read_checkpoint("https://example.org/resnet18.pth")


def test_half_precision_and_missing_counters_become_complete_float32(tmp_path):
    def old_and_half(state_dict):
        for name in list(state_dict):
            if name.endswith("num_batches_tracked"):
                del state_dict[name]
            else:
                state_dict[name] = state_dict[name].half()

    canonical = read_checkpoint(torchvision_file(tmp_path / "x.pth", edit=old_and_half))
    assert {value.dtype for value in canonical.state_dict.values()} == {torch.float32, torch.int64}
    assert canonical.state_dict["bn1.num_batches_tracked"].item() == 0


def declaring(tmp_path, **declared):
    """A checkpoint of this project's names, with student and teacher that differ, that declares itself."""
    path = torchvision_file(tmp_path / "x.pth")
    backbone = torch.load(path, weights_only=True)
    branches = {"teacher": 0.0, "student": 1.0}
    weights = {
        f"{branch}.backbone.{name}": value + shift if value.is_floating_point() else value
        for branch, shift in branches.items()
        for name, value in backbone.items()
    }
    torch.save({"state_dict": weights, **({PRETRAINING_KEY: declared} if declared else {})}, path)
    return path


def test_a_checkpoint_that_declares_itself_is_believed(tmp_path):
    """A method that this package has never heard of, whose student is what is transferred."""
    path = declaring(
        tmp_path, method="mine", branch="student", colour_order="BGR", mean=[103.53, 116.28, 123.675], std=[1.0] * 3
    )
    meta = read_checkpoint(path).meta
    assert (meta["method"], meta["branch"]) == ("mine", "student")
    assert (meta["colour_order"], meta["mean"], meta["std"]) == ("BGR", [103.53, 116.28, 123.675], [1.0] * 3)
    assert read_checkpoint(path, branch="teacher").meta["branch"] == "teacher"


@pytest.mark.parametrize(
    "backbone",
    [
        dict(type="SiluResNet", depth=18),
        dict(type="mmdet.ResNet", depth=18, style="caffe"),
        dict(type="mmdet.ResNet", depth=18, dcn=dict(type="DCN")),
        dict(type="mmseg.ResNetV1c", depth=18),
        dict(type="mmdet.ResNet", depth=18, conv_cfg=dict(type="ConvWS")),
    ],
)
def test_a_backbone_that_only_has_the_keys_of_a_resnet_is_not_taken_for_one(tmp_path, backbone):
    path = declaring(tmp_path, method="mine", branch="student", backbone=backbone)
    message = rf"pretrained with a {backbone['type']}\(depth=18.*--network resnet50.*the run's work dir .*--config"
    with pytest.raises(ConversionError, match=message):
        read_checkpoint(path)
    read_checkpoint(path, network=network_by_name("resnet18"))  # as the user says
    plain = declaring(tmp_path, method="mine", branch="student", backbone=dict(type="mmdet.ResNet", depth=18))
    read_checkpoint(plain)


@pytest.mark.parametrize(("key", "method"), [("teacher.grouping.prototypes", "slotcon"), ("queue.keys", "unknown")])
def test_an_older_checkpoint_is_named_by_its_keys_or_not_at_all(tmp_path, key, method):
    path = declaring(tmp_path)
    content = torch.load(path, weights_only=True)
    content["state_dict"][key] = torch.zeros(1)
    torch.save(content, path)
    meta = read_checkpoint(path).meta
    assert (meta["method"], meta["branch"], meta["colour_order"]) == (method, "teacher", "RGB")


def test_only_weights_of_layers_are_searched_for_holes():
    """MAE's position embedding is zero at the class token."""
    values = torch.randn(1, 5, 192)
    values[0, 0] = 0
    refuse_holes({"pos_embed": values, "cls_token": torch.zeros(1, 1, 192)}, "mae.safetensors")
    with pytest.raises(ConversionError, match=r"fc1\.weight has a block of 128 equal numbers"):
        refuse_holes({"blocks.0.mlp.fc1.weight": values[0]}, "mae.safetensors")
