"""Whole photos: upright, shrunk; what cannot be read is named once and left out."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from slotcon_plugin.errors import UserError
from slotcon_plugin.photos import PhotoError, read_photo, read_photos, reading, upright_size
from slotcon_plugin.photos.photo import EXIF_ORIENTATION


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_photos_are_read_upright(tmp_path, tag, suffix):
    x, y = np.meshgrid(np.linspace(0, 3, 61), np.linspace(0, 2, 45))
    pixels = (np.stack([np.sin(x) * np.cos(y), np.cos(x + y), np.sin(x * y)], axis=-1) * 110 + 128).astype(np.uint8)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = tag
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(pixels).save(path, exif=exif, **({"quality": 95, "subsampling": 0} if suffix == ".jpg" else {}))
    seen = read_photo(path)
    assert seen.flags.c_contiguous
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).max() <= 2
    assert upright_size(path) == seen.shape[1::-1]


def test_a_long_profile_before_the_orientation(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    filling = b"\xff\xe2\xff\xff" + bytes(0xFFFD)
    (tmp_path / "a.jpg").write_bytes(data[:2] + 2 * filling + data[2:])
    assert read_photo(tmp_path / "a.jpg").shape == (6, 4, 3) and upright_size(tmp_path / "a.jpg") == (4, 6)


def test_sixteen_bit_grey_is_not_white(tmp_path):
    Image.fromarray(np.full((4, 5), 0x4080, np.uint16)).save(tmp_path / "deep.png")
    assert (read_photo(tmp_path / "deep.png") == 0x40).all()


def test_what_is_no_photo_is_named(tmp_path):
    (tmp_path / "no\ntes.jpg").write_text("no photo")
    with pytest.raises(PhotoError, match=r"no\\ntes\.jpg: cannot be read as a photo: no readable header"):
        read_photo(tmp_path / "no\ntes.jpg")
    for read in (read_photo, upright_size):
        with pytest.raises(PhotoError, match=r"gone\.jpg: cannot be read as a photo: .*No such file"):
            read(tmp_path / "gone.jpg")


def test_of_many_photos_those_that_can_be_read_are_read(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(reading, "print_log", lambda message, *_: said.append(message))
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for n in (1, 3):
        Image.new("RGB", (8, 6), (n, n, n)).save(paths[n])
    data = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(data, "PNG")
    paths[2].write_bytes(data.getvalue()[:500])
    for _ in range(2):
        assert [(index, int(photo[0, 0, 0])) for index, photo in read_photos(paths)] == [(1, 1), (3, 3)]
    assert [sum(name in line for line in said) for name in ("/0.png", "/2.png")] == [1, 1]
    with pytest.raises(UserError, match=r"not one can be read; the last: .*2\.png"):
        list(read_photos([paths[0], paths[2]]))
    with pytest.raises(UserError, match="not one can be read; there is none"):
        list(read_photos([]))
