import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotcon_plugin.data.crops import CropPairSampler
from slotcon_plugin.models.pixel_pairs import (
    corresponding_points,
    pixel_centres,
    sample_pairs,
    sample_points,
    take_pixels,
)

side = st.floats(8, 200)
box = st.tuples(st.floats(0, 300), st.floats(0, 300), side, side)


def as_boxes(*boxes):
    return torch.tensor([[[x, y, x + w, y + h] for x, y, w, h in boxes]], dtype=torch.float64)


def test_pixel_centres_of_two_rows_of_four():
    x = [0.125, 0.375, 0.625, 0.875]
    expected = torch.tensor([[a, 0.25] for a in x] + [[a, 0.75] for a in x])
    assert torch.equal(pixel_centres(2, 4), expected)


@given(
    first=box, second=box, flips=st.tuples(st.booleans(), st.booleans()), at=st.tuples(st.floats(0, 1), st.floats(0, 1))
)
@settings(max_examples=200, deadline=None)
def test_a_point_is_tracked_through_crop_resize_and_flip(first, second, flips, at):
    """Oracle: undo flip, resize and crop of view 1 by hand, do those of view 2."""
    u, v = at
    x = first[0] + (1 - u if flips[0] else u) * first[2]
    y = first[1] + v * first[3]
    u2, v2 = (x - second[0]) / second[2], (y - second[1]) / second[3]
    expected = (1 - u2 if flips[1] else u2), v2
    points = torch.tensor([[at]], dtype=torch.float64)
    got = corresponding_points(points, as_boxes(first, second), torch.tensor([flips]))
    assert got[0, 0].tolist() == pytest.approx(expected, abs=1e-9)


@given(first=box, second=box, flips=st.tuples(st.booleans(), st.booleans()))
@settings(max_examples=100, deadline=None)
def test_there_and_back_is_the_identity(first, second, flips):
    boxes, flipped, points = as_boxes(first, second), torch.tensor([flips]), torch.rand(1, 6, 2, dtype=torch.float64)
    there = corresponding_points(points, boxes, flipped)
    back = corresponding_points(there, boxes.flip(1), flipped.flip(1))
    assert torch.allclose(back, points, atol=1e-9)


@pytest.mark.parametrize("flips", [(False, False), (True, True)])
def test_identical_views_pair_every_pixel_with_itself(flips):
    boxes = torch.tensor([[[13.0, 7.0, 60.0, 90.0]] * 2])
    pairs = sample_pairs(boxes, torch.tensor([flips]), (3, 5), num_pairs=15)
    assert pairs.index.sort().values.tolist() == [list(range(15))]
    maps = torch.randn(1, 4, 3, 5)
    for interpolation in ("bilinear", "nearest"):
        assert torch.allclose(
            sample_points(maps, pairs.points, interpolation), take_pixels(maps, pairs.index), atol=1e-5
        )


@pytest.mark.parametrize("flips", [(False, True), (True, False)])
def test_mirrored_views_pair_mirrored_pixels(flips):
    boxes = torch.tensor([[[13.0, 7.0, 60.0, 90.0]] * 2])
    pairs = sample_pairs(boxes, torch.tensor([flips]), (3, 5), num_pairs=15)
    maps = torch.randn(1, 4, 3, 5)
    seen = sample_points(maps.flip(-1), pairs.points)
    assert torch.allclose(seen, take_pixels(maps, pairs.index), atol=1e-5)


@pytest.mark.parametrize("flips", [(False, False), (False, True), (True, False), (True, True)])
def test_both_pixels_of_a_pair_show_the_same_place_of_a_photo(flips):
    """The photo is x and y themselves, which bilinear sampling reproduces exactly wherever it does not hit a border."""
    sampler, rng, size = CropPairSampler(min_overlap_pixels=4, overlap_grid=8), np.random.default_rng(0), 8
    boxes = torch.tensor([sampler.draw(rng, 320, 240) for _ in range(100)]).float()
    flipped = torch.tensor([flips]).expand(100, 2)

    def view(i):
        centres = pixel_centres(size, size).clone()
        if flips[i]:
            centres[:, 0] = 1 - centres[:, 0]
        shown = boxes[:, i, None, :2] + centres * (boxes[:, i, None, 2:] - boxes[:, i, None, :2])
        return shown.transpose(1, 2).unflatten(2, (size, size))

    pairs = sample_pairs(boxes, flipped, (size, size), num_pairs=4)
    expected = take_pixels(view(0), pairs.index)
    inside = ((pairs.points > 0.5 / size) & (pairs.points < 1 - 0.5 / size)).all(-1)
    assert inside.float().mean() > 0.5
    assert torch.allclose(sample_points(view(1), pairs.points)[inside], expected[inside], atol=1e-3)
    pixel = (boxes[:, 1, None, 2:] - boxes[:, 1, None, :2]) / size
    assert ((sample_points(view(1), pairs.points, "nearest") - expected).abs() <= pixel / 2 + 1e-3).all()


def test_draws_distinct_visible_pixels_all_equally_often():
    """View 2 is the left half of view 1: of a 4 x 4 map 8 pixels are visible."""
    boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 4.0, 8.0]]]).expand(2000, 2, 4)
    index = sample_pairs(boxes, torch.zeros(2000, 2, dtype=torch.bool), (4, 4), num_pairs=3).index
    assert (index.sort().values.diff() > 0).all()
    counts = torch.bincount(index.flatten(), minlength=16).reshape(4, 4)
    assert counts[:, 2:].sum() == 0
    expected = 2000 * 3 / 8
    assert ((counts[:, :2] - expected).abs() < 5 * expected**0.5).all()


def test_too_few_shared_pixels_is_an_error_that_names_the_option():
    boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 4.0, 8.0]]])
    flipped = torch.zeros(1, 2, dtype=torch.bool)
    assert sample_pairs(boxes, flipped, (4, 4), num_pairs=8).index.shape == (1, 8)
    with pytest.raises(ValueError, match=r"these share \[8\].*min_overlap_pixels=9"):
        sample_pairs(boxes, flipped, (4, 4), num_pairs=9)
    with pytest.raises(ValueError, match=r"\[1, 16\]"):
        sample_pairs(boxes, flipped, (4, 4), num_pairs=17)


def test_the_crop_sampler_guarantees_the_pairs_of_either_view():
    """Also where rounding decides: a small grid and tiny photos put many centres on the edges of the overlap."""
    rng = np.random.default_rng(0)
    sampler = CropPairSampler(min_overlap_pixels=5, overlap_grid=6)
    drawn = torch.tensor([sampler.draw(rng, *rng.integers(5, 60, 2).tolist()) for _ in range(500)]).float()
    flipped = torch.rand(500, 2) < 0.5
    for views in (slice(None), [1, 0]):
        pairs = sample_pairs(drawn[:, views], flipped[:, views], (6, 6), num_pairs=5)
        assert ((pairs.points > -2e-4) & (pairs.points < 1 + 2e-4)).all()


def test_bilinear_by_hand():
    """Between the centres .25 and .75 of a row of two; beyond them the border's value."""
    maps = torch.tensor([[[[0.0, 1.0]]]])
    points = torch.tensor([[[0.25, 0.5], [0.5, 0.5], [0.65, 0.5], [0.05, 0.1], [0.99, 0.9]]])
    assert sample_points(maps, points).flatten().tolist() == pytest.approx([0.0, 0.5, 0.8, 0.0, 1.0], abs=1e-6)
    assert sample_points(maps, points, "nearest").flatten().tolist()[2:] == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="bilinear"):
        sample_points(maps, points, "cubic")


def test_take_pixels_reads_row_by_row():
    maps = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    taken = take_pixels(maps, torch.tensor([[3, 0], [1, 2]]))
    assert taken.tolist() == [[[3, 7, 11], [0, 4, 8]], [[13, 17, 21], [14, 18, 22]]]


def test_resampling_is_differentiable_for_the_student():
    maps = torch.randn(1, 2, 4, 4, requires_grad=True)
    take_pixels(maps, torch.tensor([[5, 5, 9]])).sum().backward()
    expected = torch.zeros(16).index_add_(0, torch.tensor([5, 5, 9]), torch.ones(3)).reshape(4, 4)
    assert torch.equal(maps.grad, expected.expand(1, 2, 4, 4))
