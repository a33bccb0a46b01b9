"""A feature pyramid travels with its backbone."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.convert import ConversionError, build_canonical, convert, read_checkpoint, read_metadata
from slotcon_plugin.convert.cli import run
from slotcon_plugin.convert.decoders import DECODERS
from slotcon_plugin.convert.writers import TARGETS
from slotcon_plugin.models.decoders import FPNDecoder, PyramidDecoder

from .conftest import IMAGE
from .pyramids import NORM, fpn_keys, vader_file


@pytest.mark.parametrize(
    ("target", "lateral"),
    [
        ("detectron2", "fpn_lateral3.weight"),
        ("mmdet", "neck.lateral_convs.1.conv.weight"),
        ("mmseg", "neck.lateral_convs.1.conv.weight"),
        ("torchvision", "fpn.inner_blocks.1.0.weight"),
    ],
)
@pytest.mark.parametrize(("depth", "norm"), [(18, False), (18, True), (50, True)])
def test_the_pyramid_travels_too_and_is_proved(depth, norm, target, lateral, tmp_path):
    if target != "torchvision":
        pytest.importorskip(target)
    source, state_dict = vader_file(tmp_path / "x.pth", depth, norm=norm)
    out = tmp_path / f"out{TARGETS[target].suffixes[0]}"
    meta = convert(source, out, target, branch="student")
    assert meta["fpn"]
    assert set(meta["proof"]["relative_errors"]) == {
        *("layer1", "layer2", "layer3", "layer4"),
        *(f"fpn level {i}" for i in range(4)),
    }
    again = read_checkpoint(out)
    assert set(again.decoders["fpn"]) == fpn_keys(norm)
    for name, value in again.decoders["fpn"].items():
        assert torch.equal(value, state_dict[f"student.decoder.fpn.{name}"])
    tensors = load_file(out).get("model") or load_file(out)["state_dict"]
    assert torch.equal(torch.as_tensor(tensors[lateral]), state_dict["student.decoder.fpn.lateral.1.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_without_its_pyramid_timm_loads_it_strictly(suffix, tmp_path):
    source, state_dict = vader_file(tmp_path / "x.pth")
    out = tmp_path / f"out{suffix}"
    run("torchvision", "", [str(source), str(out), "--branch", "student", "--no-fpn"])
    net = timm.create_model("resnet18", num_classes=0, checkpoint_path=str(out))
    assert torch.equal(net.conv1.weight, state_dict["student.backbone.conv1.weight"])
    assert read_metadata(out)["fpn_left_out"] == "not asked for"


@pytest.mark.parametrize("shape", [(), (16,), (16, 512, 1, 1)])
def test_a_pyramid_of_the_wrong_shape_is_named(shape, tmp_path):
    path, state_dict = vader_file(tmp_path / "x.pth")
    state_dict["student.decoder.fpn.lateral.2.weight"] = torch.ones(shape)
    torch.save({"state_dict": state_dict}, path)
    with pytest.raises(ConversionError, match=r"lateral\.2\.weight of the FPN .* expected \(16, 256, 1, 1\)"):
        read_checkpoint(path, branch="student")


def test_an_incomplete_pyramid_is_named(tmp_path):
    path, state_dict = vader_file(tmp_path / "x.pth")
    del state_dict["student.decoder.fpn.output.2.bias"]
    torch.save({"state_dict": state_dict}, path)
    with pytest.raises(ConversionError, match=r"output\.2\.bias"):
        read_checkpoint(path, branch="student")


@pytest.mark.parametrize(
    "decoder",
    [
        FPNDecoder([64, 128, 256, 512], fpn_channels=16, channels=8),
        FPNDecoder([64, 128, 256, 512], fpn_channels=16, channels=8, fpn_norm="BatchNorm"),
        PyramidDecoder([64, 128, 256, 512], channels=16, lateral_dropout=0.5),
    ],
    ids=["VADeR", "VADeR with norm", "SlotConDecoder"],
)
def test_the_real_pyramids_are_those_that_travel(decoder, tmp_path):
    """Their keys are found, and the canonical pyramid computes what the decoder's computes."""
    decoder.eval()
    path, state_dict = vader_file(tmp_path / "x.pth")
    state_dict = {k: v for k, v in state_dict.items() if ".decoder." not in k}
    state_dict |= {f"student.decoder.{k}": v for k, v in decoder.state_dict().items()}
    torch.save({"state_dict": state_dict}, path)
    canonical = read_checkpoint(path, branch="student")
    with torch.no_grad():
        maps = build_canonical(canonical)(IMAGE)
        fpn, kind = canonical.decoders["fpn"], DECODERS["fpn"]
        levels = kind.compute(fpn, kind.form(fpn, canonical.network.channels), maps)
        for got, want in zip(levels, decoder.fpn(maps), strict=True):
            assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_mmdets_neck_takes_the_pyramid_by_its_prefix(tmp_path):
    necks = pytest.importorskip("mmdet.models.necks")
    source, state_dict = vader_file(tmp_path / "x.pth")
    convert(source, tmp_path / "out.pth", "mmdet", branch="student")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "out.pth"), "prefix": "neck."}
    neck = necks.FPN([64, 128, 256, 512], 16, num_outs=5, init_cfg=init)
    neck.init_weights()
    for level in range(4):
        for ours, theirs in (("lateral", neck.lateral_convs), ("output", neck.fpn_convs)):
            want = state_dict[f"student.decoder.fpn.{ours}.{level}.weight"]
            assert torch.equal(theirs[level].conv.weight, want)


COCO = "configs/transfer/{}/mask_rcnn_r50_fpn_1x_coco.{}"
ADE20K = "configs/transfer/mmseg/fpn_r50_ade20k.py"
FCN = "configs/transfer/mmseg/fcn_r50_cityscapes.py"


@pytest.mark.parametrize(
    ("target", "config", "left_out"),
    [
        ("mmseg", ADE20K, None),
        ("detectron2", COCO.format("detectron2", "yaml"), "and norm None, the config's width 256 and norm BN"),
        ("mmdet", COCO.format("mmdet", "py"), "and norm None, the config's width 256 and norm BN"),
        ("mmseg", FCN, "the config has none"),
        ("detectron2 with norm", COCO.format("detectron2", "yaml"), None),
        ("mmdet with norm", COCO.format("mmdet", "py"), None),
        ("mmseg with norm", ADE20K, "and norm BN, the config's width 256 and norm None"),
    ],
)
def test_a_pyramid_goes_whole_or_not_at_all(target, config, left_out, tmp_path, monkeypatch):
    """Under norm layers detectron2 would load the convolutions' weights and drop their biases."""
    target, _, norm = target.partition(" ")
    pytest.importorskip(target)
    monkeypatch.chdir(Path(__file__).parents[2])
    source, _ = vader_file(tmp_path / "x.pth", depth=50, width=256, norm=bool(norm))
    out = tmp_path / f"out{TARGETS[target].suffixes[0]}"
    meta = convert(source, out, target, branch="student", config=config)
    assert meta["fpn"] is (left_out is None)
    assert ("fpn" in read_checkpoint(out).decoders) is (left_out is None)
    assert ("fpn_left_out" in meta) is (left_out is not None)
    if left_out:
        assert meta["fpn_left_out"].endswith(left_out)
        assert read_checkpoint(out).meta["origin"]["fpn_left_out"] == meta["fpn_left_out"]


@pytest.mark.parametrize("norm", ["", "BN"])
def test_detectron2s_own_loader_fills_a_pyramid(norm, tmp_path):
    modeling = pytest.importorskip("detectron2.modeling")
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(Path(__file__).parents[2] / COCO.format("detectron2", "yaml")))
    small = {"RESNETS.DEPTH": 18, "RESNETS.RES2_OUT_CHANNELS": 64, "RESNETS.NORM": "BN", "FPN.OUT_CHANNELS": 16}
    plain = {"FPN.NORM": norm, "DEVICE": "cpu", "ROI_BOX_HEAD.NORM": "", "ROI_MASK_HEAD.NORM": ""}
    cfg.merge_from_list([item for key, value in (small | plain).items() for item in (f"MODEL.{key}", value)])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    source, state_dict = vader_file(tmp_path / "x.pth", norm=bool(norm))
    meta = convert(source, tmp_path / "out.pkl", "detectron2", branch="student", config=str(tmp_path / "config.yaml"))
    assert meta["fpn"]
    model = modeling.build_model(cfg)
    DetectionCheckpointer(model).load(str(tmp_path / "out.pkl"))
    for level in range(4):
        for ours, theirs in (("lateral", "fpn_lateral"), ("output", "fpn_output")):
            layer = getattr(model.backbone, f"{theirs}{level + 2}")
            assert torch.equal(layer.weight, state_dict[f"student.decoder.fpn.{ours}.{level}.weight"])
            leaves = [f"norm.{leaf}" for leaf in NORM[:4]] if norm else ["bias"]
            for leaf in leaves:
                want = state_dict[f"student.decoder.fpn.{ours}.{level}.{leaf}"]
                assert torch.equal(layer.state_dict()[leaf], want)


def test_a_config_without_its_framework_is_said_so_for_a_pyramid_too(tmp_path, monkeypatch):
    def absent(config, maps):
        raise ModuleNotFoundError("No module named 'nowhere'")

    fpn = replace(TARGETS["detectron2"].decoders["fpn"], of_config=absent)
    target = replace(TARGETS["detectron2"], imports="nowhere.models", decoders={"fpn": fpn})
    monkeypatch.setitem(TARGETS, "detectron2", target)
    source, _ = vader_file(tmp_path / "x.pth")
    (tmp_path / "some.yaml").write_text("MODEL: {}\n")
    with pytest.raises(ConversionError, match=r"cannot be imported, so \S+some\.yaml cannot be built"):
        convert(source, tmp_path / "out.pkl", "detectron2", branch="student", config=str(tmp_path / "some.yaml"))
    assert not (tmp_path / "out.pkl").exists()
