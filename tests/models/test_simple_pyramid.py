"""ViTDet's pyramid has detectron2's levels and, with its weights, detectron2's values."""

import pytest
import torch

from slotcon_plugin.errors import UserError
from slotcon_plugin.models import SimpleFeaturePyramid


def test_levels_have_the_strides_of_a_detector_s_pyramid():
    levels = SimpleFeaturePyramid([32, 32], 8, num_outs=5)([None, torch.randn(2, 32, 6, 8)])
    assert [tuple(level.shape) for level in levels] == [
        (2, 8, h, w) for h, w in ((24, 32), (12, 16), (6, 8), (3, 4), (2, 2))
    ]
    torch.testing.assert_close(levels[4], levels[3][..., ::2, ::2])


def test_values_are_those_of_detectron2(monkeypatch):
    vit = pytest.importorskip("detectron2.modeling.backbone.vit")
    from detectron2.modeling import Backbone, ShapeSpec

    class LastMap(Backbone):
        def output_shape(self):
            return {"last_feat": ShapeSpec(channels=32, stride=16)}

        def forward(self, x):
            return {"last_feat": x}

    theirs = vit.SimpleFeaturePyramid(LastMap(), "last_feat", 8, (4.0, 2.0, 1.0, 0.5), square_pad=0).eval()
    ours = SimpleFeaturePyramid(32, 8, num_outs=4).eval()
    # detectron2 lists conv and its norm as conv.weight, conv.norm.weight; both modules list their tensors in order
    values = [value for name, value in theirs.state_dict().items() if not name.startswith("net.")]
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    x = torch.randn(1, 32, 6, 8)
    with torch.no_grad():
        got, want = ours([x]), theirs(x)
    for a, b in zip(got, (want["p2"], want["p3"], want["p4"], want["p5"]), strict=True):
        torch.testing.assert_close(a, b)


def test_a_pyramid_has_four_levels_at_least():
    with pytest.raises(UserError, match="at least 4"):
        SimpleFeaturePyramid(32, 8, num_outs=3)
