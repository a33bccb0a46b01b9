"""timm's networks under timm's names: the same maps, a complete model when it leaves, gradients where they come."""

from functools import partial

import pytest
import timm
import torch

from slotcon_plugin.errors import UserError
from slotcon_plugin.models import TimmBackbone, TorchvisionResNet
from slotcon_plugin.models.timm_backbone import require_whole_patches, whole_patches

HIERARCHICAL = ("tf_efficientnet_lite0", "convnext_atto", "resnet18", "regnetx_002")


@pytest.mark.parametrize("name", [*HIERARCHICAL, "vit_tiny_patch16_224"])
def test_the_state_is_timm_s_own_classifier_left_out(name):
    ours = {key.removeprefix("model."): value.shape for key, value in TimmBackbone(name).state_dict().items()}
    theirs = timm.create_model(name, num_classes=0).state_dict()
    assert ours == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_maps_are_those_of_timm_s_feature_extractor(name):
    backbone = TimmBackbone(name, output_stride=16).eval()
    theirs = timm.create_model(name, features_only=True, output_stride=16, out_indices=(1, 2, 3, 4)).eval()
    theirs.load_state_dict({k: v for k, v in backbone.model.state_dict().items() if k in theirs.state_dict()})
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        got, want = backbone(image), theirs(image)
    assert [tuple(m.shape[1:]) for m in got] == [
        (c, 64 // s, 96 // s) for c, s in zip(backbone.out_channels, backbone.strides)
    ]
    assert backbone.strides == (4, 8, 16, 16)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_a_plain_vit_gives_four_normed_maps_the_last_one_included():
    backbone = TimmBackbone("vit_tiny_patch16_224", dynamic_img_size=True).eval()
    assert (backbone.strides, backbone.out_indices) == ((16,) * 4, (2, 5, 8, 11))
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        last = backbone(image)[-1]
        tokens = backbone.model.forward_features(image)[:, 1:]  # after the final norm, without the class token
    torch.testing.assert_close(last, tokens.transpose(1, 2).reshape(1, 192, 4, 6))


@pytest.mark.parametrize("name", [*HIERARCHICAL, "vit_tiny_patch16_224"])
def test_gradients_are_asked_for_exactly_where_they_come(name):
    backbone = TimmBackbone(name, **({"img_size": 64} if "vit" in name else {}))
    sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64))).backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), key


@pytest.mark.parametrize("build", [partial(TimmBackbone, "resnet18"), partial(TorchvisionResNet, 18)])
def test_norm_eval_keeps_the_statistics_in_training(build):
    torch.manual_seed(0)
    batch = torch.randn(4, 3, 64, 64) * 3 + 1
    for norm_eval in (False, True):
        backbone = build(norm_eval=norm_eval).train()
        backbone(batch)
        moved = [name for name, value in backbone.named_buffers() if name.endswith("running_mean") and value.any()]
        assert bool(moved) != norm_eval


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "convnext_tinny"}, "close names: .*convnext_tiny"),
        ({"name": "convnext_atto", "output_strid": 16}, "output_strid"),
        ({"name": "convnext_atto", "out_indices": (4,)}, "4 stages"),
    ],
)
def test_what_timm_does_not_know_is_said(options, message):
    with pytest.raises(UserError, match=message):
        TimmBackbone(**options)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"name": "vit_tiny_patch16_224"},
            "takes photos of 224 x 224, got 96 x 120 .*dynamic_img_size=True, dynamic_img_pad=True",
        ),
        (
            {"name": "vit_tiny_patch16_224", "dynamic_img_size": True},
            "cannot take these photos, got 96 x 120 .*dynamic_img_pad=True",
        ),
        ({"name": "levit_128s"}, "takes photos of 224 x 224, got 96 x 120"),
    ],
)
def test_photos_of_a_size_that_the_network_does_not_take_are_refused(config, said):
    with pytest.raises(UserError, match=said):
        TimmBackbone(**config).eval()(torch.zeros(1, 3, 96, 120))


SAM = {"img_size": 64, "depth": 4, "embed_dim": 96, "num_heads": 2, "neck_chans": 32}
HIERA = {"img_size": 64, "embed_dim": 32, "stages": (1, 1, 1, 1)}


@pytest.mark.parametrize(("name", "options"), [("samvit_base_patch16", SAM), ("hiera_tiny_224", HIERA)])
def test_channels_and_strides_are_those_of_the_maps(name, options):
    """SAM's maps leave a neck that is narrower than the blocks; Hiera's method has another order of arguments."""
    backbone = TimmBackbone(name, **options).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    assert [(m.shape[1], 64 // m.shape[-1]) for m in maps] == list(zip(backbone.out_channels, backbone.strides))


def test_a_stride_that_a_network_cannot_have_is_refused():
    """timm asserts it, where other networks raise."""
    with pytest.raises(UserError, match=r"timm cannot build 'ghostnet_100' with \{'output_stride': 16\}"):
        TimmBackbone("ghostnet_100", output_stride=16)


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("vit_tiny_patch16_224", {"patch_size": 14}, 14),
        ("vit_tiny_r_s16_p8_224", {}, 32),  # patches of what a convolutional stem makes of the photo
    ],
)
def test_patches_are_whole_where_sides_are_multiples(name, options, side):
    backbone = TimmBackbone(name, dynamic_img_size=True, dynamic_img_pad=True, **options).eval()
    assert whole_patches(backbone) == side
    assert backbone(torch.zeros(1, 3, side * 3, side * 3))[-1].shape[-2:] == (3, 3)
    assert whole_patches(TorchvisionResNet(18)) == 1


def test_views_of_broken_patches_are_refused():
    backbone = TimmBackbone("vit_tiny_patch16_224", patch_size=14, dynamic_img_size=True, dynamic_img_pad=True)
    require_whole_patches(backbone, 154)
    with pytest.raises(UserError, match=r"views of 160 x 160 pixels .* patches of 14: .*view_size=154 or 168$"):
        require_whole_patches(backbone, 160)
    with pytest.raises(UserError, match=r"view_size=14$"):
        require_whole_patches(backbone, 8)
