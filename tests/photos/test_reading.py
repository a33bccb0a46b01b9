"""Whole photos: upright, shrunk; what cannot be read is named once and left out."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from slotcon_plugin.errors import UserError
from slotcon_plugin.photos import PhotoError, photo, read_photo, read_photos, reading, require_whole, upright_size
from slotcon_plugin.photos.photo import EXIF_ORIENTATION, Photo


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


def segment(marker, content):
    return b"\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2, "big") + content


def header(where, tag):
    """Segments of a JPEG that say how it stands."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = tag
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % tag
    far = 5 * segment(0xE2, bytes(0xFFFD))  # a colour profile, 320 KB
    other = Image.Exif()
    other[0x010F] = "a maker"
    return {
        "exif": segment(0xE1, exif.tobytes()),
        "exif behind a long profile": far + segment(0xE1, exif.tobytes()),
        "exif behind fill bytes": b"\xff\xff" + segment(0xFE, b"a comment") + segment(0xE1, exif.tobytes()),
        "xmp": segment(0xE1, xmp),
        "xmp behind a long profile": far + segment(0xE1, xmp),
        "xmp beside exif of other things": segment(0xE1, other.tobytes()) + segment(0xE1, xmp),
        "exif beside xmp": segment(0xE1, exif.tobytes()) + segment(0xE1, xmp.replace(b'"%d"' % tag, b'"8"')),
    }[where]


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize(
    "where",
    [
        *("exif", "exif behind a long profile", "exif behind fill bytes", "exif beside xmp"),
        *("xmp", "xmp behind a long profile", "xmp beside exif of other things"),
    ],
)
def test_size_and_pixels_are_turned_by_one_rule_wherever_it_is_told(tmp_path, where, tag):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :16] = 255  # the corner tells all eight apart, with the sides
    pixels[:16, 16:32] = 120
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    data = path.read_bytes()
    path.write_bytes(data[:2] + header(where, tag) + data[2:])
    seen = read_photo(path)
    assert upright_size(path) == seen.shape[1::-1] == ((48, 32) if tag < 5 else (32, 48))
    stored = Image.open(io.BytesIO(data))
    stored.getexif()[EXIF_ORIENTATION] = tag
    assert np.abs(seen.astype(int) - np.asarray(ImageOps.exif_transpose(stored))).max() <= 2


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("where", ["exif", "xmp"])
def test_a_tiff_is_turned_once_and_its_size_with_it(tmp_path, where, tag):
    """Pillow turns the pixels of both when it loads them, and tells the turned size of the first alone."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :16], pixels[:16, 16:32] = 255, 120
    path, tags = tmp_path / "a.tif", TiffImagePlugin.ImageFileDirectory_v2()
    if where == "exif":
        tags[EXIF_ORIENTATION] = tag
    else:
        tags[700] = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % tag
    Image.fromarray(pixels).save(path, tiffinfo=tags)
    upright = Image.fromarray(pixels)
    upright.getexif()[EXIF_ORIENTATION] = tag
    seen = read_photo(path)
    assert (seen == np.asarray(ImageOps.exif_transpose(upright))).all()
    turn = Photo(path.read_bytes()).orientation
    assert upright_size(path) == (turn.width, turn.height) == seen.shape[1::-1] == ((48, 32) if tag < 5 else (32, 48))


def test_sixteen_bit_grey_is_not_white(tmp_path):
    Image.fromarray(np.full((4, 5), 0x4080, np.uint16)).save(tmp_path / "deep.png")
    assert (read_photo(tmp_path / "deep.png") == 0x40).all()


def test_a_nearly_black_picture_of_sixteen_bits_is_told_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(photo, "print_log", lambda message, *_: said.append(message))
    monkeypatch.setattr(photo, "_dark_told", False)
    for name, largest in (("bright.png", 4096), ("black.png", 0), ("dark.tif", 4095), ("dark.png", 100)):
        values = np.zeros((4, 5), np.uint16)
        values[0, 0] = largest
        Image.fromarray(values).save(tmp_path / name)
        read_photo(tmp_path / name)
    (told,) = said
    assert "dark.tif: its largest 16-bit value is 4,095 of 65,535" in told and "values of 12 bits by 16" in told


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


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm"])
def test_a_photo_that_is_cut_short_is_found(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    require_whole(path)
    for kept in (6, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:kept])
        with pytest.raises(PhotoError, match=rf"a{suffix}: cannot be read as a photo"):
            require_whole(path)
    path.write_bytes(whole + bytes(100))  # as some cameras do
    require_whole(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_whole_photos_of_the_usual_formats_are_not_decoded_for_it(tmp_path, suffix, monkeypatch):
    Image.new("RGB", (64, 48)).save(tmp_path / f"a{suffix}")
    monkeypatch.setattr(reading, "read_photo", lambda path: pytest.fail("decoded"))
    require_whole(tmp_path / f"a{suffix}")
