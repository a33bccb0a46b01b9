"""The picture of two views shows what was sampled."""

import numpy as np
import pytest
from PIL import Image

from slotcon_plugin.data import ImageFolder, SampleKey, TwoViewDataset
from slotcon_plugin.geometry import overlap_boxes
from slotcon_plugin.visualization import views
from slotcon_plugin.visualization.views import views_row, views_sheet
from tests.processes import run_python


@pytest.fixture(autouse=True)
def height(monkeypatch):
    """That of the views, so that a picture's pixels are theirs."""
    monkeypatch.setattr(views, "_HEIGHT", 48)


@pytest.fixture
def photos(tmp_path):
    """Smooth colour fields, on which a wrong place shows as a wrong colour."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        small = np.random.default_rng(number).integers(0, 255, (3, 4, 3)).astype(np.uint8)
        Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def test_tiles_of_both_views_fit_together(photos):
    dataset = TwoViewDataset(ImageFolder(photos), view_size=48, min_overlap=0.3)
    for epoch in range(4):
        row = np.asarray(views_row(dataset, SampleKey(0, epoch, 1), augment=False)).astype(int)
        first, second, mixed = (row[-48:, row.shape[1] - (k * 48 + (k - 1) * 8) :][:, :48] for k in (3, 2, 1))
        assert np.abs(first - second).mean() < 4
        assert np.abs(first - second[:, ::-1]).mean() > 10
        np.testing.assert_array_equal(mixed[:8, :8], first[:8, :8])
        np.testing.assert_array_equal(mixed[:8, 8:16], second[:8, 8:16])


def test_shared_region_is_outlined_in_each_view(photos):
    dataset = TwoViewDataset(ImageFolder(photos), view_size=48, scale=(0.3, 0.5), min_overlap=0.3)
    sample = dataset[0]
    row = np.asarray(views_row(dataset, SampleKey(0, 0, 0), augment=False))
    boxes = overlap_boxes(sample["crop_boxes"][None], sample["flipped"][None])[0] * 48
    for view, box in zip((5, 4), boxes):
        picture = row[-48:, row.shape[1] - (view * 48 + (view - 1) * 8) :][:, :48]
        yellow = (picture == (255, 215, 0)).all(-1)
        ys, xs = yellow.nonzero()
        seen = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        assert seen == pytest.approx(box.tolist(), abs=1)


def test_crops_of_a_very_long_photo_are_outlined_on_it(tmp_path):
    Image.new("RGB", (1200, 1)).save(tmp_path / "line.png")
    dataset = TwoViewDataset(ImageFolder(tmp_path), view_size=48)
    row = np.asarray(views_row(dataset, SampleKey(0, 0, 0), augment=False))
    assert row.shape[1] < 8 * 48 + 6 * (48 + 8)
    photo = row[-48:, : 8 * 48]
    blue = (photo == (0, 130, 200)).all(-1).nonzero()
    box = dataset[SampleKey(0, 0, 0)]["crop_boxes"][1] * 8 * 48 / 1200
    assert (blue[1].min(), blue[1].max()) == pytest.approx((box[0].item(), box[2].item()), abs=4)
    assert blue[0].max() < 4


def test_views_that_share_nothing_are_shown_without_their_overlap(photos):
    dataset = TwoViewDataset(ImageFolder(photos), view_size=32, scale=(0.08, 0.1), min_overlap=0)
    widths = {views_row(dataset, SampleKey(0, epoch, 0)).width for epoch in range(20)}
    assert len(widths) == 2
    assert max(widths) - min(widths) == 3 * (48 + 8)


def test_a_row_for_each_sample(photos):
    dataset = TwoViewDataset(ImageFolder(photos), view_size=32)
    one = views_sheet(dataset, [SampleKey(0, 0, 0)])
    three = views_sheet(dataset, [SampleKey(0, 0, index) for index in range(3)])
    assert three.height > 2.5 * one.height


def test_the_tool_writes_a_picture(photos, repo, tmp_path):
    out = tmp_path / "views.png"
    done = run_python("tools/visualize_views.py", photos, out, "--num", "2", "--view-size", "32", cwd=repo)
    assert done.returncode == 0, done.stderr
    assert Image.open(out).width > 6 * 32
    assert [path.name for path in tmp_path.glob("views*")] == ["views.png"]
