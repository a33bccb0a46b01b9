"""Boxes and points by hand tables, the inverse augmentation against a naive loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotcon_plugin.geometry import align_to_overlap, overlap_boxes, source_to_view, view_to_source

# Two crops: 10..50 x 20..60 and 30..70 x 40..80; they share 30..50 x 40..60.
CROPS = torch.tensor([[[10.0, 20, 50, 60], [30, 40, 70, 80]]])


@pytest.mark.parametrize(
    ("flips", "expected"),
    [
        ((False, False), [[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5]]),
        ((True, False), [[0, 0.5, 0.5, 1], [0, 0, 0.5, 0.5]]),
        ((False, True), [[0.5, 0.5, 1, 1], [0.5, 0, 1, 0.5]]),
        ((True, True), [[0, 0.5, 0.5, 1], [0.5, 0, 1, 0.5]]),
    ],
)
def test_overlap_boxes_by_hand(flips, expected):
    torch.testing.assert_close(overlap_boxes(CROPS, torch.tensor([flips])), torch.tensor([expected]))


def test_overlap_of_views_of_different_size_by_hand():
    crops = torch.tensor([[[0.0, 0, 100, 200], [25, 100, 75, 150]]])
    boxes = overlap_boxes(crops, torch.tensor([[False, True]]))
    torch.testing.assert_close(boxes, torch.tensor([[[0.25, 0.5, 0.75, 0.75], [0.0, 0, 1, 1]]]))


@pytest.mark.parametrize("second", [[50.0, 20, 90, 60], [60.0, 20, 90, 60], [10.0, 70, 50, 90]])
def test_pairs_without_overlap_are_named(second):
    crops = torch.tensor([[[10.0, 20, 50, 60]] * 2, [[10.0, 20, 50, 60], second]])
    with pytest.raises(ValueError, match=r"samples \[1\]"):
        overlap_boxes(crops, torch.zeros(2, 2, dtype=torch.bool))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 2, 4\)"):
        overlap_boxes(torch.zeros(3, 4), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="overlap_box"):
        align_to_overlap(torch.zeros(2, 1, 4, 4), torch.zeros(1, 4), torch.zeros(2, dtype=torch.bool))


def test_whole_view_aligns_to_itself_and_a_flipped_one_to_its_mirror_image():
    maps = torch.arange(25.0).view(1, 1, 5, 5).repeat(2, 1, 1, 1)
    aligned = align_to_overlap(maps, torch.tensor([[0.0, 0, 1, 1]] * 2), torch.tensor([False, True]))
    torch.testing.assert_close(aligned[0], maps[0])
    torch.testing.assert_close(aligned[1], maps[0].flip(-1))


def test_five_by_five_by_hand():
    maps = torch.arange(25.0).view(1, 1, 5, 5)  # 5 y + x
    # The box x 1..3, y 2..4: its bins are .4 wide, centred at 1.2, 1.6, ... 2.8, which are .7, 1.1, ... 2.3 of pixels.
    aligned = align_to_overlap(maps, torch.tensor([[0.2, 0.4, 0.6, 0.8]]), torch.tensor([False]))
    x, y = torch.tensor([0.7, 1.1, 1.5, 1.9, 2.3]), torch.tensor([1.7, 2.1, 2.5, 2.9, 3.3])
    torch.testing.assert_close(aligned[0, 0], 5 * y[:, None] + x)
    # At the border the outermost pixels alone count; the view is mirrored.
    aligned = align_to_overlap(maps, torch.tensor([[0.0, 0.0, 0.4, 0.4]]), torch.tensor([True]))
    x = torch.tensor([0, 0.1, 0.5, 0.9, 1.3])
    torch.testing.assert_close(aligned[0, 0], 5 * x[:, None] + x.flip(0))


def _naive_align(maps, box, flipped):
    """One bilinear sample at the centre of each bin; pixel i is centred at i + .5."""
    channels, height, width = maps.shape
    result = torch.zeros_like(maps)
    for i in range(height):
        for j in range(width):
            y = (box[1] + (box[3] - box[1]) * (i + 0.5) / height) * height - 0.5
            x = (box[0] + (box[2] - box[0]) * (j + 0.5) / width) * width - 0.5
            x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
            x0, y0 = min(int(x), width - 2), min(int(y), height - 2)
            fx, fy = x - x0, y - y0
            for c in range(channels):
                rows = maps[c, y0 : y0 + 2, x0 : x0 + 2]
                upper, lower = rows[:, 0] * (1 - fx) + rows[:, 1] * fx
                result[c, i, width - 1 - j if flipped else j] = upper * (1 - fy) + lower * fy
    return result


def test_alignment_equals_a_naive_loop():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(4, 2, 7, 6, generator=generator)
    corner = torch.rand(4, 2, generator=generator) * 0.5
    boxes = torch.cat([corner, corner + 0.1 + torch.rand(4, 2, generator=generator) * 0.4], dim=1)
    flipped = torch.tensor([False, True, True, False])
    aligned = align_to_overlap(maps, boxes, flipped)
    for n in range(4):
        torch.testing.assert_close(aligned[n], _naive_align(maps[n], boxes[n].tolist(), flipped[n]))


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_both_views_aligned_show_the_same_places(flips):
    # Each view is a picture of its own source coordinates; pixel centres. Inside the views RoIAlign is exact on them.
    crops = torch.tensor([[[10.0, 20, 74, 84], [30, 36, 62, 68]]])
    flipped = torch.tensor([flips])
    boxes = overlap_boxes(crops, flipped)
    aligned = []
    for view in (0, 1):
        centres = (torch.arange(16) + 0.5) / 16
        points = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).view(1, -1, 2)
        source = view_to_source(points, crops[:, view], flipped[:, view])
        maps = source.view(1, 16, 16, 2).permute(0, 3, 1, 2)
        aligned.append(align_to_overlap(maps, boxes[:, view], flipped[:, view]))
    torch.testing.assert_close(aligned[0], aligned[1])
    assert aligned[0][0, 0, 0, 0] == pytest.approx(31)  # the first bin of the shared box, 30..62
    assert aligned[0][0, 1, -1, 0] == pytest.approx(67)


def test_half_precision_maps_keep_their_type_and_place():
    maps = torch.arange(14.0).view(1, 1, 1, 14).expand(1, 1, 14, 14)
    box = torch.tensor([[0.35, 0.1, 0.9, 0.6]])
    exact = align_to_overlap(maps, box, torch.tensor([True]))
    half = align_to_overlap(maps.bfloat16(), box, torch.tensor([True]))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.04, rtol=0)


def test_gradient_reaches_only_what_was_seen():
    maps = torch.zeros(1, 1, 8, 8, requires_grad=True)
    align_to_overlap(maps, torch.tensor([[0.0, 0, 0.5, 0.5]]), torch.tensor([True])).sum().backward()
    assert maps.grad[0, 0, :5, :5].sum() == pytest.approx(64)
    assert maps.grad[0, 0, 5:].abs().sum() == 0
    assert maps.grad[0, 0, :, 5:].abs().sum() == 0


def test_points_by_hand():
    crop, points = torch.tensor([[10.0, 20, 50, 60]] * 2), torch.tensor([[[0.25, 0.75]]] * 2)
    source = view_to_source(points, crop, torch.tensor([False, True]))
    torch.testing.assert_close(source, torch.tensor([[[20.0, 50]], [[40, 50]]]))


coordinates = st.floats(0, 500, width=32)


@settings(max_examples=50, deadline=None)
@given(coordinates, coordinates, st.floats(1, 300), st.floats(1, 300), st.booleans(), st.integers(0, 2**31))
def test_source_to_view_undoes_view_to_source(left, top, width, height, flip, seed):
    crop = torch.tensor([[left, top, left + width, top + height]], dtype=torch.float64)
    points = torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    flipped = torch.tensor([flip])
    back = source_to_view(view_to_source(points, crop, flipped), crop, flipped)
    torch.testing.assert_close(back, points)
    assert math.isclose(float(view_to_source(points, crop, flipped)[0, 0, 1]), top + height * float(points[0, 0, 1]))
