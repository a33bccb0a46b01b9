"""An FCN head's convolutions travel with their backbone into mmseg."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from slotcon_plugin.convert import ConversionError, build_canonical, convert, read_checkpoint
from slotcon_plugin.convert.decoders import DECODERS
from slotcon_plugin.declaration import PRETRAINING_KEY
from slotcon_plugin.models import TimmBackbone
from slotcon_plugin.models.decoders import FCNDecoder

from .conftest import IMAGE, random_resnet

CONFIG = "configs/transfer/mmseg/fcn_r18_camvid.py"
WIDTH = 128


def fcn_file(path, **options):
    torch.manual_seed(0)
    decoder = FCNDecoder([64, 128, 256, 512], **{"channels": WIDTH, "dilation": 1, **options}).train()
    with torch.no_grad():  # statistics that are not the default
        decoder([torch.randn(2, 256, 12, 12), torch.randn(2, 512, 6, 6)])
    decoder.eval()
    net = random_resnet(18, 6)
    state_dict = {f"teacher.backbone.{k}": v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    state_dict |= {f"teacher.decoder.{k}": v for k, v in decoder.state_dict().items()}
    torch.save({"state_dict": state_dict}, path)
    return path, decoder


def computed(canonical, maps):
    fcn, kind = canonical.decoders["fcn"], DECODERS["fcn"]
    return kind.compute(fcn, kind.form(fcn, canonical.network.channels), maps)[0]


def test_it_is_read_and_computes_what_the_decoder_computes(tmp_path):
    source, decoder = fcn_file(tmp_path / "x.pth")
    canonical = read_checkpoint(source)
    with torch.no_grad():
        maps = build_canonical(canonical)(IMAGE)
        got, want = computed(canonical, maps), decoder(maps)[0]
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize(
    ("target", "options", "left_out"),
    [
        ("mmseg", {}, None),
        ("mmseg", {"num_convs": 1}, "convolutions 1, the config's stage maps 1, width 128, convolutions 2"),
        ("mmseg", {"channels": 64}, "width 64, convolutions 2, the config's stage maps 1, width 128, convolutions 2"),
        ("mmseg", {"stages": 2}, "has stage maps 2, width 128, convolutions 2, the config's stage maps 1, width 128, "
         "convolutions 2"),
        ("mmdet", {}, "mmdet takes none"),
    ],
)  # fmt: skip
def test_it_goes_where_it_fits_and_is_proved(target, options, left_out, tmp_path, monkeypatch):
    pytest.importorskip(target)
    monkeypatch.chdir(Path(__file__).parents[2])
    source, decoder = fcn_file(tmp_path / "x.pth", **options)
    meta = convert(source, tmp_path / "out.pth", target, config=CONFIG if target == "mmseg" else None)
    assert meta["fcn"] is (left_out is None)
    assert meta.get("fcn_left_out", "").endswith(left_out or "")
    assert ("fcn head" in meta["proof"]["relative_errors"]) is (left_out is None)
    again = read_checkpoint(tmp_path / "out.pth")
    if left_out:
        assert not again.decoders
    else:
        assert all(torch.equal(value, decoder.state_dict()[name]) for name, value in again.decoders["fcn"].items())


def test_two_maps_side_by_side_are_mmsegs_resize_concat(tmp_path, monkeypatch):
    pytest.importorskip("mmseg")
    monkeypatch.chdir(Path(__file__).parents[2])
    torch.manual_seed(0)
    backbone = TimmBackbone("tf_efficientnet_lite0")
    decoder = FCNDecoder(backbone.out_channels, channels=WIDTH, num_convs=1, dilation=1, stages=2).train()
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert maps[-2].shape[-2:] != maps[-1].shape[-2:]
    decoder(maps)
    state = {f"teacher.backbone.{k}": v for k, v in backbone.state_dict().items()}
    state |= {f"teacher.decoder.{k}": v for k, v in decoder.state_dict().items()}
    declared = {
        "method": "slotcon_decoder",
        "branch": "teacher",
        "backbone": {"type": "TimmBackbone", "name": "tf_efficientnet_lite0"},
        **dict(mean=[127.5] * 3, std=[127.5] * 3, colour_order="RGB"),
    }
    torch.save({"state_dict": state, PRETRAINING_KEY: declared}, tmp_path / "x.pth")
    config = "configs/transfer/mmseg/fcn_lite0_camvid.py"
    meta = convert(tmp_path / "x.pth", tmp_path / "out.pth", "mmseg", config=config)
    assert meta["fcn"]
    assert "fcn head" in meta["proof"]["relative_errors"]
    backbone.eval(), decoder.eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = backbone(image)
        got = computed(read_checkpoint(tmp_path / "out.pth"), maps)
        want = decoder(maps)[0]
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def test_mmsegs_head_takes_it_by_its_prefix_and_starts_its_classifier_as_ever(tmp_path, monkeypatch):
    heads = pytest.importorskip("mmseg.models.decode_heads")
    from slotcon_plugin.transfer.openmmlab import use_backbone

    monkeypatch.chdir(Path(__file__).parents[2])
    source, decoder = fcn_file(tmp_path / "x.pth")
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path)
    use_backbone(cfg, str(source), None)
    settings = {k: v for k, v in cfg.model.decode_head.items() if k != "type"}
    with DefaultScope.overwrite_default_scope("mmseg"):
        head = heads.FCNHead(**settings | {"norm_cfg": {"type": "BN"}})
    head.init_weights()
    for name, value in decoder.state_dict().items():
        assert torch.equal(head.state_dict()[name], value), name
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_an_incomplete_one_is_named(tmp_path):
    path, _ = fcn_file(tmp_path / "x.pth")
    content = torch.load(path)
    del content["state_dict"]["teacher.decoder.convs.1.bn.bias"]
    torch.save(content, path)
    with pytest.raises(ConversionError, match=r"convs\.1\.bn\.bias of the FCN head has shape none"):
        read_checkpoint(path)
