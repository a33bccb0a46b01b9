"""What is read from which file, and what is said about a file that cannot be used."""

import pytest
import torch

from slotcon_plugin.convert import ConversionError, read_checkpoint
from slotcon_plugin.convert.metadata import PRETRAINING_KEY

from .conftest import torchvision_file


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
    with pytest.raises(ConversionError, match=r"no known kind.*holds 2 tensors, under: net\.head, net\.stem") as caught:
        read_checkpoint(tmp_path / "x.pth")
    for kind in ("slotcon_plugin", "slotcon", "moco", "densecl", "pixpro", "detectron2", "torchvision"):
        assert f"\n  {kind} " in str(caught.value)


def test_no_tensors_at_all(tmp_path):
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="holds no tensors"):
        read_checkpoint(tmp_path / "x.pth")


def test_from_overrides_and_says_when_no_key_matches(source_file):
    slotcon = source_file("slotcon", 18)
    as_moco = read_checkpoint(slotcon.path, kind="moco")
    assert (as_moco.meta["kind"], as_moco.meta["branch"]) == ("moco", "student")
    with pytest.raises(ConversionError, match="no key matches the student of kind pixpro"):
        read_checkpoint(slotcon.path, kind="pixpro")
    with pytest.raises(ConversionError, match="unknown kind 'dino'"):
        read_checkpoint(slotcon.path, kind="dino")
    with pytest.raises(ConversionError, match=r"kind torchvision, which has \['backbone'\], no 'teacher'"):
        read_checkpoint(source_file("torchvision", 18).path, which="teacher")


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
    assert read_checkpoint(path, which="teacher").meta["branch"] == "teacher"


@pytest.mark.parametrize(("key", "method"), [("teacher.grouping.prototypes", "slotcon"), ("queue.keys", "unknown")])
def test_an_older_checkpoint_is_named_by_its_keys_or_not_at_all(tmp_path, key, method):
    path = declaring(tmp_path)
    content = torch.load(path, weights_only=True)
    content["state_dict"][key] = torch.zeros(1)
    torch.save(content, path)
    meta = read_checkpoint(path).meta
    assert (meta["method"], meta["branch"], meta["colour_order"]) == (method, "teacher", "RGB")
