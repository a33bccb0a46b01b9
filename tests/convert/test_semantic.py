"""VADeR's whole decoder but its last convolution travels into mmseg's Semantic FPN."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from slotcon_plugin.convert import ConversionError, build_canonical, convert, read_checkpoint
from slotcon_plugin.convert.decoders import DECODERS
from slotcon_plugin.convert.writers.openmmlab import config_fcn, config_semantic
from slotcon_plugin.models.decoders import FPNDecoder

from .conftest import IMAGE, random_resnet

CONFIG = "configs/transfer/mmseg/fpn_r18_camvid.py"
WIDTH = 64


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])


def vader_file(path, **options):
    torch.manual_seed(0)
    settings = {"fpn_channels": WIDTH, "channels": WIDTH, "output_stride": 4}
    decoder = FPNDecoder([64, 128, 256, 512], **{**settings, **options}).eval()
    with torch.no_grad():
        for value in decoder.parameters():
            if value.ndim == 1:  # norms and biases that are not the default
                value.add_(0.3 * torch.rand_like(value))
    state = {
        f"teacher.backbone.{k}": v for k, v in random_resnet(18, 6).state_dict().items() if not k.startswith("fc.")
    }
    state |= {f"teacher.decoder.{k}": v for k, v in decoder.state_dict().items()}
    torch.save({"state_dict": state}, path)
    return path, decoder


def test_it_is_read_and_computes_what_the_decoder_computes(tmp_path):
    source, decoder = vader_file(tmp_path / "x.pth")
    canonical = read_checkpoint(source)
    with torch.no_grad():
        maps = build_canonical(canonical)(IMAGE)
        given = maps
        for name in ("fpn", "semantic"):
            kind, weights = DECODERS[name], canonical.decoders[name]
            given = kind.compute(weights, kind.form(weights, canonical.network.channels), given)
        got, want = decoder.embed(given[0]), decoder(maps)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize(
    ("target", "options", "left_out"),
    [
        ("mmseg", {}, None),
        ("mmseg", {"channels": 32}, "has pyramid width 64, width 32, norm GN of 4, blocks (1, 1, 2, 3), the config's "
         "pyramid width 64, width 64, norm GN of 4, blocks (1, 1, 2, 3)"),
        ("mmseg", {"output_stride": 8}, "norm GN of 4, blocks (1, 1, 1, 2), the config's pyramid width 64, width 64, "
         "norm GN of 4, blocks (1, 1, 2, 3)"),
        ("mmseg", {"fpn_channels": 32}, "the FPN that it stands on is left out"),
        ("mmdet", {}, "mmdet takes none"),
    ],
)  # fmt: skip
def test_it_goes_where_it_fits_and_is_proved(target, options, left_out, tmp_path):
    pytest.importorskip(target)
    source, _ = vader_file(tmp_path / "x.pth", **options)
    meta = convert(source, tmp_path / "out.pth", target, config=CONFIG if target == "mmseg" else None)
    assert meta["semantic"] is (left_out is None)
    assert meta.get("semantic_left_out", "").endswith(left_out or "")
    assert ("semantic branch" in meta["proof"]["relative_errors"]) is (left_out is None)
    again = read_checkpoint(tmp_path / "out.pth").decoders
    assert ("semantic" in again) is (left_out is None)
    if left_out is None:
        before = read_checkpoint(source).decoders["semantic"]
        assert before.keys() == again["semantic"].keys()
        assert all(torch.equal(value, before[name]) for name, value in again["semantic"].items())


def test_semantic_fpn_with_another_norm_takes_the_pyramid_alone(tmp_path):
    pytest.importorskip("mmseg")
    source, _ = vader_file(tmp_path / "x.pth", fpn_channels=256, channels=128)
    config = tmp_path / "ade20k.py"
    config.write_text(
        f"_base_ = {str(Path('configs/transfer/mmseg/fpn_r50_ade20k.py').resolve())!r}\n"
        "model = dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512]))\n"
    )
    meta = convert(source, tmp_path / "out.pth", "mmseg", config=str(config))
    assert meta["fpn"]
    assert "norm GN of 4, blocks" in meta["semantic_left_out"]
    assert "norm BN, blocks" in meta["semantic_left_out"]


def test_a_segmenter_starts_as_the_decoder_ended_but_for_its_classifier(tmp_path):
    pytest.importorskip("mmseg.models.segmentors")
    from mmseg.registry import MODELS

    from slotcon_plugin.transfer.openmmlab import use_backbone

    source, decoder = vader_file(tmp_path / "x.pth")
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path)
    use_backbone(cfg, str(source), None)
    cfg.model.backbone.norm_cfg = {"type": "BN"}
    with DefaultScope.overwrite_default_scope("mmseg"):
        segmentor = MODELS.build(cfg.model).eval()
    segmentor.init_weights()
    merged = []
    segmentor.decode_head.conv_seg.register_forward_pre_hook(lambda module, given: merged.append(given[0]))
    with torch.no_grad():
        logits = segmentor(IMAGE, mode="tensor")
        want = decoder(build_canonical(read_checkpoint(source))(IMAGE))
    assert logits.shape[1] == 11
    got = decoder.embed(merged[0])
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()
    assert segmentor.decode_head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("fpn", [True, False])
def test_what_a_run_starts_from_says_whether_the_decoder_went_along(tmp_path, fpn):
    pytest.importorskip("mmseg.models.segmentors")
    from slotcon_plugin.transfer.openmmlab import use_backbone

    source, _ = vader_file(tmp_path / "x.pth")
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path)
    origin = use_backbone(cfg, str(source), None, fpn)
    parts = [
        part for part in ("backbone", "neck", "decode_head") if "checkpoint" in str(cfg.model[part].get("init_cfg"))
    ]
    assert parts == (["backbone", "neck", "decode_head"] if fpn else ["backbone"])
    assert any(key.startswith("neck.") for key in torch.load(origin.file)["state_dict"]) == fpn
    assert origin.fpn == fpn


def test_an_incomplete_one_is_named(tmp_path):
    path, _ = vader_file(tmp_path / "x.pth")
    content = torch.load(path)
    del content["state_dict"]["teacher.decoder.scale.3.4.weight"]
    torch.save(content, path)
    with pytest.raises(ConversionError, match=r"scale\.3\.1\.conv\.weight of the semantic branch has shape none"):
        read_checkpoint(path)


@pytest.mark.parametrize("options", [{"strides": (4, 8, 16, 16)}, {"strides": (4, 8, 8, 8)}, {"output_stride": 8}])
def test_one_of_other_strides_stays_behind_and_the_pyramid_goes(options, tmp_path):
    """Its blocks do not bring the levels of the network's own strides to one size."""
    pytest.importorskip("mmseg")
    source, _ = vader_file(tmp_path / "x.pth", **options)
    meta = convert(source, tmp_path / "out.pth", "mmseg")
    assert (meta["fpn"], meta["semantic"]) == (True, False)
    assert meta["semantic_left_out"].startswith("it does not fit the strides of ResNet-18 (pretrained dilated")


@pytest.mark.parametrize("of_config", [config_fcn, config_semantic])
def test_heads_in_a_row_are_no_head_of_ours(of_config, tmp_path):
    pytest.importorskip("mmseg")
    (tmp_path / "ocr.py").write_text(
        "model = dict(backbone=dict(type='ResNet'), decode_head=[dict(type='FCNHead'), dict(type='OCRHead')])\n"
    )
    assert of_config(str(tmp_path / "ocr.py"), 4) == "the config's decode_head is 2 in a row"
