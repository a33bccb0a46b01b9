"""Which backbones of mmdet's and mmseg's count as the plain ResNet whose weights they could hold."""

import pytest
import torch
from mmengine.registry import MODELS

from slotcon_plugin.config import list_configs, read_config, shipped
from slotcon_plugin.convert.network import foreign_options, is_plain_resnet, network_of_backbone

from .conftest import IMAGE, random_resnet, stage_features

INDIFFERENT = dict(
    depth=18,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    frozen_stages=1,
    norm_cfg=dict(type="SyncBN", requires_grad=False, momentum=0.01, eps=1e-5),
    norm_eval=True,
    conv_cfg=dict(type="Conv2d"),
    style="pytorch",
    stem_channels=64,
    deep_stem=False,
    dcn=None,
    zero_init_residual=False,
    with_cp=True,
    init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet18"),
)
FOREIGN = {
    "weight standardisation": dict(conv_cfg=dict(type="ConvWS")),
    "adaptive padding": dict(conv_cfg=dict(type="Conv2dAdaptivePadding")),
    "an epsilon": dict(norm_cfg=dict(type="BN", eps=1e-1)),
    "dilation with the stride": dict(dilations=(1, 1, 1, 2)),
    "no stride": dict(strides=(1, 2, 2, 1)),
    "group norm": dict(norm_cfg=dict(type="GN", num_groups=32)),
    "no weights": dict(norm_cfg=dict(type="BN", affine=False)),
    "statistics of the batch": dict(norm_cfg=dict(type="BN", track_running_stats=False)),
    "dilation by the block, in place of the stage's": dict(multi_grid=(1, 1, 1)),
    "the stem": dict(deep_stem=True),
    "whatever is new": dict(another_activation=True),
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_an_option_that_changes_what_weights_compute_is_found(scope, foreign):
    backbone = dict(type=f"{scope}.ResNet", depth=18, **foreign)
    assert foreign.items() <= foreign_options(backbone).items()
    assert not is_plain_resnet(backbone)


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_options_that_leave_the_computation_as_it_is_are_let_pass(scope):
    backbone = dict(type=f"{scope}.ResNet", **INDIFFERENT)
    assert foreign_options(backbone) == {}
    # mmseg's recipes: the last stages dilated in place of strided
    dilated = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
    assert foreign_options({**backbone, **dilated}) == {}
    # MMSyncBN cannot be built without several GPUs
    norm = dict(type="MMSyncBN", affine=True, track_running_stats=True, requires_grad=True)
    assert foreign_options({**backbone, "norm_cfg": norm}) == {}


SAME_SHAPES = ("weight standardisation", "adaptive padding", "an epsilon", "dilation with the stride", "no stride")


@pytest.mark.parametrize(("options", "plain"), [(INDIFFERENT, True), *((FOREIGN[name], False) for name in SAME_SHAPES)])
def test_mmdets_own_network_agrees(options, plain):
    """Weights load into all of them."""
    pytest.importorskip("mmdet.models")
    truth = random_resnet(18, 1)
    net = MODELS.build({"type": "mmdet.ResNet", "depth": 18, **options, "norm_eval": True})
    missing, unexpected = net.load_state_dict(truth.state_dict(), strict=False)
    assert not missing and set(unexpected) == {"fc.weight", "fc.bias"}
    with torch.no_grad():
        net.eval()  # mmdet's returns None
        maps = net(IMAGE)
    same = all(a.shape == b.shape and torch.allclose(a, b, atol=1e-4) for a, b in zip(maps, stage_features(truth)))
    assert same == plain == is_plain_resnet({"type": "mmdet.ResNet", "depth": 18, **options})


@pytest.mark.parametrize("name", list_configs("pretrain"))
def test_the_backbone_of_every_shipped_pretraining_converts(name):
    assert network_of_backbone(read_config(name).model.backbone)


@pytest.mark.parametrize("library", ["mmdet", "mmseg"])
def test_the_resnets_of_the_shipped_recipes_are_plain(library):
    pytest.importorskip(library)
    files = (shipped() / "configs" / "transfer" / library).glob("*.py")
    backbones = [read_config(file).model.backbone for file in files]
    plain = [{**backbone, "type": f"{library}.ResNet"} for backbone in backbones if backbone.type == "ResNet"]
    assert plain
    assert [foreign_options(backbone) for backbone in plain] == [{}] * len(plain)
