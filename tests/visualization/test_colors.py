import numpy as np

from slotcon_plugin.visualization.colors import perceived, prototype_colors


def test_a_prototype_has_the_same_colour_whatever_their_number():
    assert (prototype_colors(8) == prototype_colors(256)[:8]).all()
    assert (prototype_colors(256) == prototype_colors(2048)[:256]).all()


def test_256_prototypes_have_256_colours_and_the_first_are_far_apart_for_every_reader():
    colors = prototype_colors(256)
    assert len({tuple(c) for c in colors.tolist()}) == 256
    lab = perceived(colors[:12])
    for sight in lab:
        gaps = np.linalg.norm(sight[:, None] - sight[None], axis=-1)[~np.eye(12, dtype=bool)]
        assert gaps.min() > 0.08  # about four just noticeable differences


def test_no_colour_is_black_white_or_grey():
    lightness, a, b = perceived(prototype_colors(512))[0].T
    assert lightness.min() > 0.4
    assert lightness.max() < 0.92
    assert np.hypot(a, b).min() > 0.07


def test_more_prototypes_than_colours_still_have_one_each():
    assert prototype_colors(9000).shape == (9000, 3)


def test_perception_of_known_colours():
    # OKLab of white and of sRGB red (Ottosson 2020); red and a dark green that protanopes confuse come closer
    lab = perceived(np.array([[255, 255, 255], [255, 0, 0], [90, 80, 0]], dtype=np.uint8))
    np.testing.assert_allclose(lab[0, 0], [1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(lab[0, 1], [0.62796, 0.22486, 0.12585], atol=1e-3)
    gap = np.linalg.norm(lab[:, 1] - lab[:, 2], axis=-1)
    assert gap[1] < gap[0] / 2
