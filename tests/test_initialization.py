"""Starting from weights that exist: step 0 gives their features exactly, and what does not fit is refused."""

import logging

import pytest
import timm
import torch
from mmengine.config import Config
from torchvision import models

from slotcon_plugin.errors import UserError
from slotcon_plugin.initialization import read_initial_weights
from slotcon_plugin.registry import MODELS

LITE = {"type": "TimmBackbone", "name": "tf_efficientnet_lite0"}
RESNET = {"type": "TorchvisionResNet", "depth": 18}


def slotcon(backbone):
    head = {"hidden_channels": 16, "out_channels": 8}
    return {
        "type": "SlotCon",
        "data_preprocessor": {"type": "TwoViewPreprocessor"},
        "backbone": backbone,
        "projector": head,
        "predictor": {"hidden_channels": 16},
        "grouping": {"num_prototypes": 4},
    }


def as_trained(network):
    """Norms and their statistics as after training, so that no wrong tensor goes unseen."""
    torch.manual_seed(1)
    for value in network.state_dict().values():
        if value.ndim == 1:
            value.copy_(torch.rand_like(value) + 0.5)
    return network.eval()


@pytest.fixture
def lite_file(tmp_path):
    network = as_trained(timm.create_model("tf_efficientnet_lite0", num_classes=3))
    torch.save(network.state_dict(), tmp_path / "lite.pth")
    return network, tmp_path / "lite.pth"


def test_both_branches_give_the_features_of_the_file(lite_file):
    network, path = lite_file
    model = MODELS.build({**slotcon(LITE), "channels_last": False})  # the format decides the order of sums
    initial = read_initial_weights(str(path), LITE)
    initial.put_into(model)
    model.init_weights()  # the runner's
    model.eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        want = network.forward_intermediates(image, [1, 2, 3, 4], intermediates_only=True)
        for branch in ("student", "teacher"):
            for got, expected in zip(model.extract_features(image, branch), want, strict=True):
                assert torch.equal(got, expected)
    assert (initial.facts["title"], initial.facts["left_over"]) == ("lite.pth", ["classifier"])


@pytest.mark.parametrize(
    ("prefix", "spelling"), [("module.encoder_q.", "moco"), ("backbone.", "lightning"), ("model.", "lightning")]
)
def test_a_resnet_is_found_under_any_prefix(prefix, spelling, tmp_path):
    network = as_trained(models.resnet18())
    torch.save({"state_dict": {prefix + k: v for k, v in network.state_dict().items()}}, tmp_path / "x.ckpt")
    initial = read_initial_weights({"file": str(tmp_path / "x.ckpt"), "title": spelling}, RESNET)
    assert initial.facts["title"] == spelling
    assert torch.equal(initial.weights["layer4.1.conv2.weight"], network.layer4[1].conv2.weight)


def test_pixels_are_fed_as_the_weights_expect_them(lite_file):
    _, path = lite_file
    cfg = Config({"model": slotcon(LITE)})
    read_initial_weights(str(path), LITE).set_input(cfg)  # timm's card of this network: .5 throughout
    assert (cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.std) == ((0.5,) * 3, (0.5,) * 3)
    declared = {"file": str(path), "mean": [10.0, 20.0, 30.0], "std": [51.0] * 3, "colour_order": "RGB"}
    cfg = Config({"model": slotcon(LITE)})
    read_initial_weights(declared, LITE).set_input(cfg)
    assert cfg.model.data_preprocessor.std == (0.2,) * 3
    with pytest.raises(UserError, match="BGR"):
        read_initial_weights({**declared, "colour_order": "BGR"}, LITE)


def test_pixels_of_ones_own_are_fed_with_a_warning_where_they_are_others(lite_file, monkeypatch):
    said = []
    monkeypatch.setattr("slotcon_plugin.initialization.print_log", lambda *words: said.append(words))
    initial = read_initial_weights({"file": str(lite_file[1]), "title": "Lite"}, LITE)
    said.clear()
    own = {"mean": (0.4, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    cfg = Config({"model": slotcon(LITE)})
    cfg.model.data_preprocessor.update(own)
    initial.set_input(cfg)
    assert {name: tuple(cfg.model.data_preprocessor[name]) for name in own} == own
    ((text, _, level),) = said  # nothing on the other, which is what the weights expect
    assert level == logging.WARNING
    assert text.startswith("model.data_preprocessor.mean is (0.4, 0.5, 0.5), but Lite expects (0.5, 0.5, 0.5)")


def test_what_does_not_fit_is_refused(lite_file, tmp_path):
    network, path = lite_file
    state = network.state_dict()
    half = {k: v for i, (k, v) in enumerate(state.items()) if i % 2 or "conv_dw" in k}
    other = {**state, "blocks.1.0.conv_pw.weight": torch.zeros(3, 16, 1, 1)}
    nan = {**state, "conv_stem.weight": torch.full_like(state["conv_stem.weight"], torch.nan)}
    for name, content, said in (
        ("half", half, r"is missing from what looks like timm's tf_efficientnet_lite0; \d+ of \d+ names are"),
        ("other", other, r"conv_pw\.weight has shape \(3, 16, 1, 1\)"),
        ("nan", nan, r"conv_stem\.weight holds NaN"),
        ("resnet", models.resnet18().state_dict(), "holds no timm's tf_efficientnet_lite0"),
    ):
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(UserError, match=said):
            read_initial_weights(str(tmp_path / f"{name}.pth"), LITE)
    with pytest.raises(UserError, match="holds no ResNet"):
        read_initial_weights(str(path), RESNET)
    with pytest.raises(UserError, match="got fil"):
        read_initial_weights({"fil": str(path)}, LITE)
    with pytest.raises(UserError, match=r"mmdet\.ResNet cannot be started from weights"):
        read_initial_weights(str(path), {"type": "mmdet.ResNet"})


def test_published_weights_are_asked_of_the_library_alone(monkeypatch):
    asked = []

    def published(name, pretrained, **options):
        asked.append((name, pretrained, options))
        model = create(name, pretrained=False, **options)
        model.pretrained_cfg = {**model.pretrained_cfg, "tag": "in1k"}
        return as_trained(model)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", published)
    initial = read_initial_weights("timm", LITE)
    assert ("tf_efficientnet_lite0", True) in [(name, pretrained) for name, pretrained, _ in asked]
    assert (initial.facts["title"], initial.mean) == ("timm's in1k", (127.5,) * 3)

    def offline(*args, **kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"Name or service not known.*--init FILE"):
        read_initial_weights("timm", RESNET)
    with pytest.raises(UserError, match="is not torchvision's; use --init timm"):
        read_initial_weights("torchvision", {**LITE, "name": "convnext_atto"})
