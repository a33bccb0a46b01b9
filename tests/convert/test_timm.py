"""Backbones of timm, there and back: every framework's own network gives the maps that were pretrained."""

import json

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from slotcon_plugin.convert import ConversionError, convert, read_checkpoint, read_metadata
from slotcon_plugin.convert.canonical import build_canonical
from slotcon_plugin.convert.network import Network
from slotcon_plugin.declaration import PRETRAINING_KEY
from slotcon_plugin.models import TimmBackbone

CONVNEXT = {"type": "TimmBackbone", "name": "convnext_atto"}
LITE = {"type": "slotcon_plugin.TimmBackbone", "name": "tf_efficientnet_lite0", "output_stride": 16}
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "img_size": 64}
FAMILIES = pytest.mark.parametrize("config", [CONVNEXT, LITE, VIT], ids=lambda config: config["name"])
SUFFIX = {"detectron2": ".pkl", "mmdet": ".pth", "mmseg": ".pth", "timm": ".safetensors"}


def pretrained(path, config, convention=True):
    """A checkpoint of this project with both branches, and the teacher's backbone."""
    torch.manual_seed(0)
    branches = {
        branch: TimmBackbone(**{k: v for k, v in config.items() if k != "type"}) for branch in ("student", "teacher")
    }
    for net in branches.values():  # statistics and norms as after training, not as they begin
        for value in net.state_dict().values():
            if value.ndim == 1:
                value.copy_(torch.rand_like(value) + 0.5)
    state = {f"{b}.backbone.{k}": v for b, net in branches.items() for k, v in net.state_dict().items()}
    pixels = {"colour_order": "RGB", "mean": [127.5] * 3, "std": [127.5] * 3} if convention else {}
    config = {"type": "TimmBackbone", **config}
    declared = {"method": "vader", "title": "VADeR", "branch": "teacher", "backbone": config, "init": None, **pixels}
    torch.save({"state_dict": state, PRETRAINING_KEY: declared}, path)
    return branches["teacher"].eval()


@FAMILIES
@pytest.mark.parametrize("target", SUFFIX)
def test_every_framework_s_network_gives_the_same_maps(config, target, tmp_path):
    pytest.importorskip(target)
    pretrained(tmp_path / "x.pth", config)
    out = tmp_path / f"out{SUFFIX[target]}"
    meta = convert(tmp_path / "x.pth", out, target)
    assert meta["proof"]["method"] == "feature parity"
    assert max(meta["proof"]["relative_errors"].values()) <= 1e-5
    assert len(meta["proof"]["relative_errors"]) == 4
    assert (meta["method"], meta["branch"], meta["mean"]) == ("vader", "teacher", [127.5] * 3)
    assert meta["network"]["name"] == config["name"]
    assert read_metadata(out)["backbone_sha256"] == meta["backbone_sha256"]
    again = read_checkpoint(out)  # a converted file is a source, too
    assert (again.network.name, again.meta["backbone_sha256"]) == (config["name"], meta["backbone_sha256"])


@FAMILIES
def test_a_folder_is_a_model_of_timm_s(config, tmp_path):
    teacher = pretrained(tmp_path / "x.pth", config)
    out = tmp_path / "my_backbone"
    convert(tmp_path / "x.pth", out, "timm")
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    card = json.loads((out / "config.json").read_text())["pretrained_cfg"]
    assert (card["mean"], "tag" in card, "license" in card) == ([0.5] * 3, False, False)
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    assert tuple(model.pretrained_cfg["mean"]) == (0.5,) * 3
    image = torch.randn(1, 3, 64, 64)
    maps = model.forward_intermediates(
        image, list(teacher.out_indices), norm=teacher.norm_maps, intermediates_only=True
    )
    with torch.no_grad():  # strides apart, which the folder does not carry
        teacher.model = model
        for got, want in zip(maps, teacher(image), strict=True):
            torch.testing.assert_close(got, want)
    for name, value in torch.load(tmp_path / "x.pth")["state_dict"].items():
        if name.startswith("teacher."):
            assert torch.equal(model.state_dict()[name.removeprefix("teacher.backbone.model.")], value), name
    with pytest.raises(ConversionError, match="--overwrite"):
        convert(tmp_path / "x.pth", out, "timm")
    convert(tmp_path / "x.pth", out, "timm", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my_backbone", "x.pth"]


def test_a_resnet_goes_to_timm_under_the_same_names(source_file, tmp_path):
    meta = convert(source_file("slotcon", 18).path, tmp_path / "out.safetensors", "timm")
    assert meta["proof"]["framework"].startswith("timm ")
    timm.create_model("resnet18", num_classes=0, checkpoint_path=str(tmp_path / "out.safetensors"))


def test_a_file_of_somebody_else_s_needs_its_network_s_name(tmp_path):
    model = timm.create_model("convnext_atto", num_classes=5)
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="is named with --network"):
        convert(tmp_path / "x.pth", tmp_path / "out.pth", "timm")
    with pytest.raises(ConversionError, match=r"close names: .*convnext_atto"):
        convert(tmp_path / "x.pth", tmp_path / "out.pth", "timm", network="convnext_ato")
    with pytest.raises(ConversionError, match="holds no timm's tf_efficientnet_lite0"):
        convert(tmp_path / "x.pth", tmp_path / "out.pth", "timm", network="tf_efficientnet_lite0")
    with pytest.raises(ConversionError, match="torchvision has no timm's convnext_atto"):
        convert(tmp_path / "x.pth", tmp_path / "out.pth", "torchvision", network="convnext_atto")
    meta = convert(tmp_path / "x.pth", tmp_path / "out.pth", "timm", network="convnext_atto")
    assert (meta["method"], meta["colour_order"], meta["left_over"]) == ("unknown", "unknown", ["head"])


@pytest.mark.parametrize(
    ("declared", "asked"),
    [
        (LITE, "efficientnet_lite0"),
        (LITE, Network(LITE["name"], "timm", {"act_layer": "gelu"})),
        ({"name": "resnet18", "act_layer": "gelu"}, "resnet18"),
        ({"name": "resnetblur18"}, "resnet18"),
    ],
    ids=["padding", "asked activation", "declared activation", "pooling"],
)
def test_a_network_of_the_same_shapes_is_not_taken_for_the_one_that_is_declared(declared, asked, tmp_path):
    pretrained(tmp_path / "x.pth", declared)
    convert(tmp_path / "x.pth", tmp_path / "converted.pth", "timm")
    for path in (tmp_path / "x.pth", tmp_path / "converted.pth"):
        with pytest.raises(
            ConversionError, match=rf"{path.name} says that it holds timm's {declared['name']}.* was asked"
        ):
            convert(path, tmp_path / "out.pth", "timm", network=asked)
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("declared", "asked"),
    [
        ({"name": "resnet18"}, "resnet18"),
        ({**CONVNEXT, "drop_path_rate": 0.2}, "convnext_atto.d2_in1k"),
        ({**CONVNEXT, "depths": (2, 2, 6, 2)}, Network("convnext_atto", "timm", {"depths": [2, 2, 6, 2]})),
        (VIT, "vit_tiny_patch16_224"),
    ],
    ids=["torchvision's", "a tag", "a list", "another size of photos"],
)
def test_the_declared_network_may_be_named_again(declared, asked, tmp_path):
    pretrained(tmp_path / "x.pth", declared)
    meta = convert(tmp_path / "x.pth", tmp_path / "out.pth", "timm", network=asked)
    assert meta["proof"]["method"] == "feature parity"


def test_without_what_is_behind_the_maps_there_is_no_folder(tmp_path):
    pretrained(tmp_path / "x.pth", LITE)
    content = torch.load(tmp_path / "x.pth")
    for name in [name for name in content["state_dict"] if "conv_head" in name]:
        del content["state_dict"][name]
    torch.save(content, tmp_path / "y.pth")
    with pytest.raises(ConversionError, match=r"conv_head\.weight behind its stage maps.*safetensors"):
        convert(tmp_path / "y.pth", tmp_path / "folder", "timm")
    assert not (tmp_path / "folder").exists()
    convert(tmp_path / "y.pth", tmp_path / "out.safetensors", "timm")


def test_a_vit_of_another_size_gets_its_position_embedding_resampled(tmp_path):
    small = pretrained(tmp_path / "x.pth", VIT)
    network = Network(VIT["name"], "timm", {"img_size": 96})
    canonical = read_checkpoint(tmp_path / "x.pth", network=network)
    want = resample_abs_pos_embed(small.model.pos_embed, [6, 6], num_prefix_tokens=1)
    torch.testing.assert_close(canonical.state_dict["pos_embed"], want)
    with torch.no_grad():
        assert build_canonical(canonical)(torch.randn(1, 3, 96, 96))[-1].shape == (1, 192, 6, 6)


def test_position_embeddings_of_patches_alone_are_resampled_too(tmp_path):
    """As DINOv2's with registers and DeiT III's are."""
    options = {**VIT, "no_embed_class": True, "reg_tokens": 4, "depth": 4}
    small = pretrained(tmp_path / "x.pth", options)
    network = Network(VIT["name"], "timm", {"no_embed_class": True, "reg_tokens": 4, "depth": 4, "img_size": 96})
    canonical = read_checkpoint(tmp_path / "x.pth", network=network)
    want = resample_abs_pos_embed(small.model.pos_embed, [6, 6], num_prefix_tokens=0)
    torch.testing.assert_close(canonical.state_dict["pos_embed"], want)


def test_a_folder_of_weights_that_want_bgr_is_refused(source_file, tmp_path):
    """timm feeds RGB, and nothing in a folder could tell it otherwise."""
    source, declared = source_file("slotcon", 18).path, {"colour_order": "BGR", "mean": [103.5, 116.3, 123.7]}
    with pytest.raises(ConversionError, match="the weights want BGR, and what reads a folder of timm's feeds RGB"):
        convert(source, tmp_path / "folder", "timm", declared=declared)
    assert not (tmp_path / "folder").exists()


def test_timm_has_no_config_files(source_file, tmp_path):
    config = tmp_path / "c.py"
    config.write_text("")
    with pytest.raises(ConversionError, match="timm has no config files: leave --config out"):
        convert(source_file("slotcon", 18).path, tmp_path / "a.pth", "timm", config=str(config))


def test_a_folder_with_anything_else_in_it_is_not_replaced(source_file, tmp_path, monkeypatch):
    out, source = tmp_path / "clone", source_file("slotcon", 18).path
    (out / ".git").mkdir(parents=True)
    for name in ("config.json", "notes.txt", ".git/HEAD"):
        (out / name).write_text("mine")
    with pytest.raises(ConversionError, match=r"holds \.git, notes\.txt beside config\.json and model\.safetensors"):
        convert(source, out, "timm", overwrite=True)
    assert [path.read_text() for path in sorted(out.rglob("*")) if path.is_file()] == ["mine"] * 3
    convert(source, tmp_path / "mine", "timm")
    weights = tmp_path / "mine" / "model.safetensors"
    with pytest.raises(ConversionError, match="is the checkpoint that is to be read, or its folder"):
        convert(weights, tmp_path / "mine", "timm", overwrite=True)
    monkeypatch.chdir(tmp_path / "mine")
    with pytest.raises(ConversionError, match="is the folder that you are in"):
        convert(source, ".", "timm", overwrite=True)


HIERA = {"name": "hiera_tiny_224", "img_size": 64, "embed_dim": 32, "stages": (1, 1, 1, 1)}
MAXVIT = {"name": "maxvit_rmlp_pico_rw_256", "img_size": 64}
SAM = {"name": "samvit_base_patch16", "img_size": 64, "depth": 4, "embed_dim": 96, "num_heads": 2, "neck_chans": 32}


@pytest.mark.parametrize(
    "config", [HIERA, MAXVIT, {"name": "levit_128s"}, SAM], ids=lambda config: config["name"].partition("_")[0]
)
def test_networks_of_one_size_of_photos_go_through(config, tmp_path):
    pretrained(tmp_path / "x.pth", config)
    meta = convert(tmp_path / "x.pth", tmp_path / "out.pth", "timm")
    assert meta["proof"]["method"] == "feature parity"
