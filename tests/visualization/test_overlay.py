import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slotcon_plugin.models.grouping import pixel_owners
from slotcon_plugin.visualization.colors import prototype_colors
from slotcon_plugin.visualization.overlay import boundaries, overlay, spotlight


def test_owners_are_those_of_upsampling_everything_at_once():
    logits = torch.randn(150, 3, 4)
    want = F.interpolate(logits[None], (24, 36), mode="bilinear", align_corners=False)[0].argmax(dim=0)
    assert torch.equal(pixel_owners(logits, 24, 36), want)


def test_the_boundary_lies_where_the_interpolated_logits_cross():
    # two positions, centred at x = 4 and 12 of 16 pixels; logits cross half way between them
    logits = torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]])
    assert pixel_owners(logits, 1, 16)[0].tolist() == [0] * 8 + [1] * 8
    # a stronger left position pushes the crossing to the right: 3 (1 - t) - t = 0 at t = 3/4, x = 4 + 6
    logits = torch.tensor([[[3.0, -1.0]], [[0.0, 0.0]]])
    assert pixel_owners(logits, 1, 16)[0].tolist() == [0] * 10 + [1] * 6


def test_boundaries_by_hand():
    owners = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert boundaries(owners).tolist() == [[False, True, True], [False, True, True], [False, False, True]]
    assert not boundaries(np.zeros((4, 4))).any()
    assert boundaries(np.array([[0, 0, 0, 1, 1, 1]]), thickness=2).tolist() == [[False, True, True, True, True, False]]


def test_overlay_pixels():
    photo = np.full((4, 6, 3), (100, 100, 100), dtype=np.uint8)
    owners = np.repeat([[0, 0, 0, 2, 2, 2]], 4, axis=0)
    picture = overlay(photo, owners, num_prototypes=3)
    for column, prototype in ((0, 0), (1, 0), (4, 2), (5, 2)):
        want = 0.55 * prototype_colors(3)[prototype] + 0.45 * 100
        np.testing.assert_allclose(picture[:, column], np.broadcast_to(want, (4, 3)), atol=0.51)
    assert (picture[:, 2:4] == 255).all()


def test_spotlight_pixels():
    photo = np.full((1, 8, 3), (10, 200, 60), dtype=np.uint8)
    mask = np.array([[True, True, True, False, False, False, False, False]])
    picture = spotlight(photo, mask, np.array([1, 2, 3], dtype=np.uint8))
    assert (picture[0, :3] == photo[0, :3]).all()
    assert (picture[0, 3:5] == [1, 2, 3]).all()
    grey = round(0.45 * (0.299 * 10 + 0.587 * 200 + 0.114 * 60))
    assert (picture[0, 5:] == grey).all()


@pytest.mark.parametrize("draw", [lambda p, o: overlay(p, o, 2), lambda p, o: spotlight(p, o > 0, np.zeros(3))])
def test_sizes_must_agree(draw):
    with pytest.raises(ValueError, match=r"got \(4, 4\) and \(4, 5\)"):
        draw(np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((4, 5), dtype=int))
