"""Networks of timm in runs of mmdet and mmseg: every tensor arrives, and what does not fit stops the run."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from slotcon_plugin.convert import ConversionError, read_checkpoint
from slotcon_plugin.convert.network import Network
from slotcon_plugin.models import TimmBackbone
from slotcon_plugin.results import read_result
from slotcon_plugin.transfer import openmmlab
from slotcon_plugin.transfer.backbone import Origin, check_arrived, hashed_weights

from .shrink import shrink

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "transfer"
# config -> (its network, a small one of the family, data)
MM = {
    "mmdet/mask_rcnn_convnext_tiny_fpn_1x_coco": ("convnext_tiny", "convnext_atto", "coco"),
    "mmdet/mask_rcnn_lite0_fpn_1x_coco": ("tf_efficientnet_lite0", "tf_efficientnet_lite0", "coco"),
    "mmseg/upernet_convnext_tiny_ade20k": ("convnext_tiny", "convnext_atto", "ade20k"),
    "mmseg/fcn_lite0_ade20k": ("tf_efficientnet_lite0", "tf_efficientnet_lite0", "ade20k"),
    "mmseg/upernet_vit_small_ade20k": ("vit_small_patch16_224", "vit_tiny_patch16_224", "ade20k"),
}
RUN = {
    **MM,
    "mmseg/fcn_lite0_camvid": ("tf_efficientnet_lite0", "tf_efficientnet_lite0", "camvid"),
    "mmdet/mask_rcnn_lite0_fpn_coco_object": ("tf_efficientnet_lite0", "tf_efficientnet_lite0", "coco"),
}
CONVNEXT, LITE, VIT = "convnext_atto", "tf_efficientnet_lite0", "vit_tiny_patch16_224"


def load(name: str, folder: Path, network: str | None = None) -> Config:
    """A user's copy of a config, in which the network's name is another."""
    if name not in MM:
        return prepared(Config.fromfile(CONFIGS / f"{name}.py"), folder)
    text = (CONFIGS / f"{name}.py").read_text()
    base = text.split('_base_ = "')[1].split('"')[0]
    path = folder / f"{Path(name).name}.py"
    if "::" not in base:
        text = text.replace(f'_base_ = "{base}"', f'_base_ = "{(CONFIGS / name).parent / base}"')
    assert text.count(f'name="{MM[name][0]}"') == 1
    path.write_text(text.replace(f'name="{MM[name][0]}"', f'name="{network or MM[name][1]}"'))
    return prepared(Config.fromfile(path), folder)


def prepared(cfg: Config, folder: Path) -> Config:
    cfg.work_dir, cfg.launcher = str(folder / "run"), "none"
    init_default_scope(cfg.default_scope)
    return cfg


def built(cfg: Config) -> torch.nn.Module:
    """As the runner builds it and loads what the config names."""
    model = pytest.importorskip(f"{cfg.default_scope}.registry").MODELS.build(cfg.model)
    model.init_weights()
    return model


def used(cfg: Config, checkpoint: Path) -> torch.nn.Module:
    Path(cfg.work_dir).mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        openmmlab.use_backbone(cfg, str(checkpoint), None)
        return built(cfg)


@pytest.mark.parametrize("name", MM)
def test_the_name_of_the_network_is_one_line(name, tmp_path):
    cfg = load(name, tmp_path, "convnext_pico" if "vit" not in name else "vit_tiny_patch16_224")
    network = TimmBackbone(cfg.model.backbone.name)
    assert cfg.model.data_preprocessor.mean == pytest.approx([255 * value for value in network.mean])
    assert "slotcon_plugin" in cfg.custom_imports.imports
    assert (cfg.optim_wrapper.optimizer.type, cfg.optim_wrapper.optimizer.lr) == ("AdamW", 1e-4)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        model = built(cfg).eval()
        levels = model.extract_feat(image)
        if cfg.default_scope == "mmseg":
            assert model.decode_head(levels).shape[1] == model.auxiliary_head(levels).shape[1] == 150
    assert levels[0].shape[-2:] == (16, 24)


@pytest.mark.parametrize("name", RUN)
def test_every_tensor_arrives(name, tmp_path, weights_of_timm):
    checkpoint = weights_of_timm(RUN[name][1])
    model = used(load(name, tmp_path), checkpoint)
    own = model.backbone.state_dict()
    for key, value in torch.load(checkpoint)["state_dict"].items():
        assert torch.equal(own.pop(key.removeprefix("student.backbone.")), value), key
    assert not own


def test_what_timm_publishes_is_a_backbone_too(tmp_path):
    torch.save(timm.create_model(CONVNEXT, num_classes=10).state_dict(), tmp_path / "x.pth")
    cfg = load("mmseg/upernet_convnext_tiny_ade20k", tmp_path)
    model = used(cfg, tmp_path / "x.pth")
    network = Network(CONVNEXT, "timm")
    canonical = read_checkpoint(tmp_path / "x.pth", network=network)
    origin = Origin("unknown", canonical.meta["backbone_sha256"], tmp_path / "x.pth")
    state = model.backbone.state_dict()
    check_arrived(hashed_weights(state, network), origin)
    state["model.stages.3.blocks.1.mlp.fc2.bias"] += 1e-3
    with pytest.raises(ConversionError, match="does not hold the weights"):
        check_arrived(hashed_weights(state, network), origin)


def test_what_lies_behind_fewer_maps_counts_all_the_same(tmp_path, weights_of_timm):
    cfg = load("mmseg/upernet_convnext_tiny_ade20k", tmp_path)
    cfg.model.backbone.out_indices = (0, 1, 2)
    cfg.model.decode_head.update(in_channels=cfg.channels[:3], in_index=[0, 1, 2])
    model = used(cfg, weights_of_timm(CONVNEXT))
    origin = Origin("vader", read_checkpoint(weights_of_timm(CONVNEXT)).meta["backbone_sha256"], None)
    check_arrived(hashed_weights(model.backbone.state_dict(), Network(CONVNEXT, "timm")), origin)


def test_a_vit_of_the_config_s_size_has_its_position_embedding_resampled(tmp_path, weights_of_timm):
    from timm.layers import resample_abs_pos_embed

    cfg = load("mmseg/upernet_vit_small_ade20k", tmp_path)
    cfg.model.backbone.img_size = (64, 96)
    model = used(cfg, weights_of_timm(VIT))
    before = torch.load(weights_of_timm(VIT))["state_dict"]["student.backbone.model.pos_embed"]
    want = resample_abs_pos_embed(before, [4, 6], num_prefix_tokens=1)
    torch.testing.assert_close(model.backbone.model.pos_embed.data, want)


@pytest.mark.parametrize("name", [name for name in MM if name.startswith("mmdet")])
def test_vader_s_pyramid_goes_into_mmdet_s_neck(name, tmp_path, weights_of_timm):
    cfg = load(name, tmp_path)
    checkpoint = weights_of_timm(MM[name][1], 256)
    assert "prefix" not in str(used(cfg, checkpoint).neck.init_cfg)  # under norm layers it is left out whole
    cfg = load(name, tmp_path)
    cfg.model.neck.norm_cfg = None
    neck = used(cfg, checkpoint).neck
    state = torch.load(checkpoint)["state_dict"]
    for level in range(4):
        for part, theirs in (("lateral", neck.lateral_convs), ("output", neck.fpn_convs)):
            for leaf in ("weight", "bias"):
                want = state[f"student.decoder.fpn.{part}.{level}.{leaf}"]
                assert torch.equal(getattr(theirs[level].conv, leaf).data, want)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mmseg/fcn_lite0_ade20k", lambda m: m.data_preprocessor.update(mean=[123.675, 116.28, 103.53]),
         r"mean: the weights want \[127.5"),
        ("mmseg/fcn_lite0_ade20k", lambda m: m.data_preprocessor.update(bgr_to_rgb=False), "want RGB"),
        ("mmdet/mask_rcnn_lite0_fpn_1x_coco", lambda m: m.backbone.update(name="convnext_atto", norm_eval=False),
         "holds timm's tf_efficientnet_lite0, and timm's convnext_atto was asked for"),
        ("mmdet/mask_rcnn_lite0_fpn_1x_coco", lambda m: m.backbone.update(name="efficientnet_lite0"),  # other padding
         "holds timm's tf_efficientnet_lite0, and timm's efficientnet_lite0 was asked for"),
        ("mmdet/mask_rcnn_lite0_fpn_1x_coco", lambda m: m.backbone.update(act_layer="gelu"),
         "tf_efficientnet_lite0, and timm's tf_efficientnet_lite0, act_layer=gelu was asked for"),
    ],
)  # fmt: skip
def test_what_does_not_fit_stops_the_run(name, change, message, tmp_path, weights_of_timm):
    cfg = load(name, tmp_path)
    change(cfg.model)
    with pytest.raises(ConversionError, match=message):
        used(cfg, weights_of_timm(LITE))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_config_trains_in_its_framework(name, tmp_path, scenes, weights_of_timm):
    _, network, layout = RUN[name]
    cfg = shrink(load(name, tmp_path))
    if "slide" in cfg.model.test_cfg.get("mode", ""):
        cfg.model.test_cfg.update(crop_size=(64, 64), stride=(48, 48))
    checkpoint = weights_of_timm(network)
    runner = openmmlab.train(cfg, backbone=str(checkpoint), data_root=str(scenes(layout)))
    result = read_result(Path(cfg.work_dir) / "result.json")
    before = read_checkpoint(checkpoint)
    assert (result["backbone_sha256"], result["pretraining"]) == (before.meta["backbone_sha256"], "vader")
    backbone = runner.model.backbone
    for key, value in backbone.model.named_parameters():
        assert torch.equal(value, before.state_dict[key]) == (key in backbone.behind), key
    for key, value in backbone.model.named_buffers():
        if key.endswith("running_mean"):
            assert torch.equal(value, before.state_dict[key]) == (backbone.norm_eval or key in backbone.behind), key


@pytest.mark.slow
def test_a_run_begins_with_the_model_of_another(tmp_path, scenes, weights_of_timm):
    name, data = "mmseg/fcn_lite0_camvid", str(scenes("camvid"))
    openmmlab.train(shrink(load(name, tmp_path)), backbone=str(weights_of_timm(LITE)), data_root=data)
    again = shrink(load(name, tmp_path))
    again.work_dir, again.load_from = str(tmp_path / "b"), str(tmp_path / "run" / "iter_2.pth")
    openmmlab.train(again, data_root=data)
    one, two = (read_result(tmp_path / folder / "result.json") for folder in ("run", "b"))
    assert two["pretraining"] == one["pretraining"] == "vader"
    assert two["backbone_sha256"] not in (None, one["backbone_sha256"])
