from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from slotcon_plugin.errors import UserError
from slotcon_plugin.models import VADeR
from slotcon_plugin.visualization import run
from slotcon_plugin.visualization.colors import prototype_colors
from slotcon_plugin.visualization.retrieval import draw_matches, nearest_pixels
from slotcon_plugin.visualization.run import visualize_retrieval


def test_the_nearest_pixel_is_found_by_angle_not_by_length():
    first = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # (2, 1, 2): an x to the left, a y to the right
    second = torch.zeros(2, 2, 4)
    second[0] = 5.0
    second[1] = 5.0  # long vectors at 45 degrees everywhere ...
    second[:, 1, 3] = torch.tensor([0.1, 0.0])  # ... short ones of the right direction at two places
    second[:, 0, 2] = torch.tensor([0.0, 0.1])
    points = torch.tensor([[0.25, 0.5], [0.75, 0.5]])
    matches, similarity = nearest_pixels(first, second, points)
    assert matches.tolist() == [[0.875, 0.75], [0.625, 0.25]]
    assert similarity.tolist() == pytest.approx([1.0, 1.0])


def test_a_map_finds_itself():
    maps = torch.randn(8, 5, 7)
    points = torch.tensor([[0.5, 0.5], [0.5 / 7, 0.1]])
    matches, similarity = nearest_pixels(maps, maps, points)
    assert torch.allclose(matches, points)
    assert similarity.tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_points_and_matches_are_drawn_where_they_are():
    photos = np.zeros((210, 420, 3), np.uint8), np.full((420, 210, 3), 255, np.uint8)
    points, matches = torch.tensor([[0.25, 0.5], [0.5, 0.1]]), torch.tensor([[0.5, 0.5], [0.9, 0.9]])
    sheet = np.asarray(draw_matches(photos, points, matches, torch.tensor([0.5, -0.25])))
    assert sheet.shape == (420, 840 + 8 + 210, 3)
    colors = prototype_colors(2)
    for i, (start, end) in enumerate([((210, 210), (848 + 105, 210)), ((420, 42), (848 + 189, 378))]):
        assert (sheet[start[1], start[0]] == colors[i]).all()
        assert (sheet[end[1], end[0]] == colors[i]).all()
    middle = (210 + 848 + 105) // 2
    assert (sheet[210, middle] == colors[0]).all()  # the first pair's line is level


def test_points_of_a_very_long_photo_lie_on_it():
    photos = np.zeros((1, 1200, 3), np.uint8), np.zeros((210, 420, 3), np.uint8)
    points, matches = torch.tensor([[0.25, 0.5]]), torch.tensor([[0.5, 0.5]])
    sheet = np.asarray(draw_matches(photos, points, matches, torch.tensor([0.5])))
    assert sheet.shape == (420, 8 * 420 + 8 + 840, 3)
    color = prototype_colors(1)[0]
    assert (sheet[1, 840] == color).all()  # the line is 3 pixels high
    assert (sheet[12, 840] == 255).all()  # and the ring around the point ends above this
    assert (sheet[210, 8 * 420 + 8 + 420] == color).all()


@pytest.fixture
def vader(monkeypatch):
    model = VADeR(
        backbone=dict(type="slotcon_plugin.TorchvisionResNet", depth=18),
        decoder=dict(fpn_channels=8, channels=8),
        queue_size=4,
    ).eval()
    monkeypatch.setattr(run, "load_pretrainer", lambda *_: model)
    return model


def test_a_photo_and_itself(tmp_path, vader):
    photo = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(photo)
    centre = (12 + 0.5) / 24, (7 + 0.5) / 16
    out = visualize_retrieval("c", "k", [str(photo), str(photo)], str(tmp_path / "out.png"), [centre], short_side=64)
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (420, 630 * 2 + 8, 3)
    x, y = round(centre[0] * 630), round(centre[1] * 420)
    assert (sheet[y, 638 + x] == prototype_colors(1)[0]).all()


def test_what_cannot_be_drawn_is_refused(tmp_path, vader, monkeypatch):
    with pytest.raises(ValueError, match=r"\(1.5, 0.5\)"):
        visualize_retrieval("c", "k", ["a.png", "a.png"], str(tmp_path / "o.png"), [(0.5, 0.5), (1.5, 0.5)])
    monkeypatch.setattr(vader, "method", replace(vader.method, embeds_pixels=False))
    with pytest.raises(UserError, match="retrieval needs a method with"):
        visualize_retrieval("c", "k", ["a.png", "a.png"], str(tmp_path / "o.png"))
