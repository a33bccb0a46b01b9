import base64
import io
import re
from unicodedata import normalize

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from slotcon_plugin.photos import read_photo
from slotcon_plugin.visualization import prototypes
from slotcon_plugin.visualization.colors import prototype_colors
from slotcon_plugin.visualization.grouped import group_photos, model_input
from slotcon_plugin.visualization.prototypes import find_nearest_segments, prototype_row, segment_picture
from slotcon_plugin.visualization.sheet import (
    caption,
    contact_sheet,
    font,
    in_font,
    inner_point,
    legend,
    numbered_overlay,
)
from slotcon_plugin.visualization.write import write_pictures

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def test_a_photo_is_divided_where_its_colours_change(model, halves, tmp_path):
    grouped = group_photos(model, [halves(tmp_path / "a.png", RED, BLUE)], short_side=96)[0]
    assert grouped.name == "a.png"
    assert grouped.owners.shape == (96, 128)
    assert (grouped.owners[:, :60] == 0).all()
    assert (grouped.owners[:, 68:] == 2).all()
    np.testing.assert_allclose(grouped.shares(), [0.5, 0, 0.5, 0], atol=0.03)


def test_input_has_sides_of_multiples_of_32_and_is_normalised(model):
    pixels = model_input(np.full((100, 151, 3), 255, dtype=np.uint8), 64, model)
    assert pixels.shape == (1, 3, 64, 96)
    torch.testing.assert_close(pixels, torch.full_like(pixels, 2.0))  # (1 - .5) / .25


def test_the_model_sees_the_photo_and_not_the_picture_of_it_that_is_shown(model, tmp_path, monkeypatch):
    path = tmp_path / "stripes.png"
    stripes = np.zeros((128, 224, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(path)
    seen, group = [], model.group
    monkeypatch.setattr(model, "group", lambda images, *args: seen.append(images) or group(images, *args))
    monkeypatch.setattr("slotcon_plugin.visualization.prototypes._MAX_SIDE", 56)
    grouped = group_photos(model, [path], short_side=128, max_side=56)[0]
    find_nearest_segments(model, [path], 1, short_side=128)
    picture, mask = segment_picture(model, path, 0, short_side=128)
    assert len(seen) == 3
    for images in seen:
        torch.testing.assert_close(images, model_input(stripes, 128, model))
    assert grouped.photo.shape[:2] == grouped.owners.shape == picture.shape[:2] == mask.shape == (32, 56)


def test_the_number_stands_inside_its_segment():
    ring = np.zeros((40, 60), dtype=bool)
    ring[5:35, 5:55] = True
    ring[15:25, 15:50] = False  # the centre of mass is in the hole
    x, y = inner_point(ring)
    assert ring[y - 2 : y + 3, x - 2 : x + 3].all()
    square = np.zeros((21, 21), dtype=bool)
    square[4:17, 2:15] = True
    assert inner_point(square) == (8, 10)


def test_the_legend_shows_the_largest_first_in_their_colours():
    shares = np.array([0.1, 0.0, 0.6, 0.3])
    picture = np.asarray(legend(shares, width=330))
    for place, k in enumerate([2, 3, 0]):
        assert (picture[14, place * 104 + 10] == prototype_colors(4)[k]).all()
    assert picture.shape == (28, 330, 3)  # the fourth owns nothing


def test_contact_sheet_shows_photo_and_colours_side_by_side(model, halves, tmp_path):
    photos = [halves(tmp_path / f"{i}.png", RED, BLUE, size=(320, 240)) for i in range(3)]
    sheet = np.asarray(contact_sheet(group_photos(model, photos, 96), height=240))
    top = 8 + 20  # margin and caption
    assert sheet.shape[1] == 8 + 642 + 16 + 642 + 8  # two pairs a row
    assert (sheet[top + 20, 8 + 20] == RED).all()
    assert (sheet[top + 20, 8 + 300] == BLUE).all()
    for x, k, colour in ((20, 0, RED), (300, 2, BLUE)):
        grey = np.array(colour) @ [0.299, 0.587, 0.114]
        want = 0.55 * prototype_colors(4)[k] + 0.45 * grey
        np.testing.assert_allclose(sheet[top + 20, 8 + 322 + x], want, atol=1.01)


@pytest.fixture
def line(tmp_path):
    """A photo of one row: red, then blue from a quarter on."""
    pixels = np.full((1, 1200, 3), BLUE, np.uint8)
    pixels[:, :300] = RED
    Image.fromarray(pixels).save(tmp_path / "line.png")
    return tmp_path / "line.png"


def test_a_very_long_photo_makes_no_huge_picture(model, line, halves, tmp_path):
    paths = [line, halves(tmp_path / "a.png", RED, BLUE)]
    grouped = group_photos(model, paths, 96)
    sheet = np.asarray(contact_sheet(grouped, height=240))
    assert sheet.shape[1] == 8 + 2 * 8 * 240 + 2 + 8
    top = 8 + 20  # margin and caption
    assert (sheet[top, 8 + 100] == RED).all() and (sheet[top, 8 + 1000] == BLUE).all()
    assert (sheet[top + 10, 8 + 1000] == 255).all()  # paper
    row = prototype_row(model, paths, find_nearest_segments(model, paths, 7, 96), 2, 96)
    assert row.size == (12 + 8 + 120 + 8 + 8 * 150 + 8 + 200, 150 + 20)


def test_numbers_stand_in_the_segments_of_a_very_long_photo(model, line, monkeypatch):
    drawn = {}
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, **_: drawn.update({text: xy}))
    assert numbered_overlay(group_photos(model, [line], 96)[0], 200).size == (1600, 200)
    assert drawn == {"0": (0, 0), "2": (pytest.approx(400, abs=30), 0)}  # where the segments begin


def test_captions_have_the_letters_of_names_and_escape_the_rest():
    missing = bytes(font().getmask("\uffff"))
    for letter in "üéßЖα":
        assert bytes(font().getmask(letter)) != missing
        assert in_font(letter) == in_font(normalize("NFD", letter)) == letter
    assert [in_font(name) for name in ("水.jpg", "火.jpg")] == [r"\u6c34.jpg", r"\u706b.jpg"]
    water, fire = (np.asarray(caption(name, 200)) for name in ("水.jpg", "火.jpg"))
    assert (water != fire).any()


def test_a_page_holds_its_pictures(tmp_path):
    picture = Image.new("RGB", (5, 4), GREEN)
    written = write_pictures(tmp_path / "deep" / "a.html", "A <title>", picture, [("one & two", picture)])
    text = written.read_text()
    assert "A &lt;title&gt;" in text
    assert "one &amp; two" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    np.testing.assert_allclose(shown, np.full((4, 5, 3), GREEN), atol=4)
    assert [p.name for p in written.parent.iterdir()] == ["a.html"]


def test_only_png_and_html_are_written(tmp_path):
    with pytest.raises(ValueError, match=r"a\.gif: expected a file name ending in \.png"):
        write_pictures(tmp_path / "a.gif", "", Image.new("RGB", (1, 1)))


def test_nearest_segments_against_a_naive_search(model, halves, tmp_path, monkeypatch):
    reds = [(200, 30, 30), (200, 90, 90), (200, 60, 60), (200, 0, 0)]
    paths = [halves(tmp_path / f"{i}.png", red, BLUE, share=0.25 + 0.1 * i) for i, red in enumerate(reds)]
    paths.append(halves(tmp_path / "green.png", GREEN, GREEN))
    found = find_nearest_segments(model, paths, count=3, short_side=96)
    assert found.usage.tolist() == [4, 1, 4, 0]
    assert found.most_used(2) == [0, 2]
    assert found.most_used(9) == [0, 2, 1]
    # the purer the red, the nearer
    assert found.photo[0].tolist() == [3, 0, 2]
    for rank, index in enumerate([3, 0, 2]):
        slot = model.group(model_input(read_photo(paths[index]), 96, model)).slots[0, 0]
        want = (slot[0] / slot.norm()).item()
        assert found.similarity[0, rank].item() == pytest.approx(want, rel=1e-5)
    assert found.photo[1].tolist() == [4, -1, -1]
    assert found.photo[3].tolist() == [-1, -1, -1]
    # segments of less than the least share do not count
    monkeypatch.setattr(prototypes, "_MIN_SHARE", 0.4)
    large = find_nearest_segments(model, paths, count=3, short_side=96)
    assert large.usage.tolist() == [2, 1, 4, 0]


def test_the_segment_is_in_the_light(model, halves, tmp_path):
    picture, mask = segment_picture(model, halves(tmp_path / "a.png", RED, BLUE), prototype=2, short_side=96)
    assert not mask[:, :60].any()
    assert mask[:, 68:].all()
    assert (picture[:, 68:] == BLUE).all()
    edge = mask[0].argmax()
    assert (picture[:, edge - 1] == prototype_colors(4)[2]).all()
    assert (picture[:, :50] == round(0.45 * float(np.array(RED) @ [0.299, 0.587, 0.114]))).all()


def test_a_row_begins_with_the_prototypes_colour(model, halves, tmp_path):
    paths = [halves(tmp_path / "a.png", RED, BLUE, size=(200, 150))]
    row = np.asarray(prototype_row(model, paths, find_nearest_segments(model, paths, 4, 96), 2, 96))
    assert (row[:150, :12] == prototype_colors(4)[2]).all()
    assert (row[10, 12 + 8 + 120 + 8 + 190] == BLUE).all()
    assert row.shape[1] == 12 + 8 + 120 + 8 + 200


def test_unreadable_photos_are_left_out_of_the_search(model, halves, tmp_path):
    paths = [tmp_path / "gone.png", halves(tmp_path / "a.png", RED, BLUE), halves(tmp_path / "b.png", RED, GREEN)]
    found = find_nearest_segments(model, paths, 3, 96)
    assert found.num_photos == 2
    assert found.usage.tolist() == [2, 1, 1, 0]
    assert sorted(found.photo[0].tolist()) == [-1, 1, 2]
    with pytest.raises(ValueError, match="not one can be read"):
        find_nearest_segments(model, [], 3)
