"""Decoding: all formats, all orientations, damaged files."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, features

from slotcon_plugin.photos.photo import EXIF_ORIENTATION, Orientation, Photo, PhotoError


def smooth(width=61, height=45):
    """A picture without fine detail, which every codec keeps."""
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    planes = [np.sin(x) * np.cos(y), np.cos(x + y), np.sin(x * y)]
    return (np.stack(planes, axis=-1) * 110 + 128).astype(np.uint8)


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_each_mode(mode):
    image = Image.fromarray(smooth()).convert(mode)
    data = encode(image, "JPEG", quality=95, subsampling=0)
    photo = Photo(data)
    assert photo.stored_size == (61, 45)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(photo.decode().astype(int) - expected).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_pngs_of_each_mode(mode):
    image = Image.fromarray(smooth()).convert(mode)
    seen = Photo(encode(image, "PNG")).decode()
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_upper_byte(format):
    values = np.linspace(0, 65535, 60 * 40).astype(np.uint16).reshape(40, 60)
    seen = Photo(encode(Image.fromarray(values), format)).decode()
    np.testing.assert_array_equal(seen, np.repeat((values >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_orientation_as_pillow_turns_it(tag, format):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = tag
    data = encode(Image.fromarray(smooth()), format, exif=exif)
    photo = Photo(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")).astype(int)
    assert (photo.orientation.height, photo.orientation.width) == expected.shape[:2]
    box = (7, 11, 30, 41)
    stored = photo.orientation.to_stored(box)
    assert photo.orientation.to_upright(stored) == box
    cut = photo.decode()[stored[1] : stored[3], stored[0] : stored[2]].astype(int)
    if photo.orientation.transpose:
        cut = cut.transpose(1, 0, 2)
    cut = cut[:: -1 if photo.orientation.mirror_y else 1, :: -1 if photo.orientation.mirror_x else 1]
    assert np.abs(cut - expected[box[1] : box[3], box[0] : box[2]]).max() <= 2


def test_boxes_turned_by_hand():
    # Tag 6, a phone held upright: the photo is the stored picture turned clockwise.
    turned = Orientation(width=40, height=60, transpose=True, mirror_x=True)
    assert turned.to_stored((0, 0, 10, 20)) == (0, 30, 20, 40)
    assert turned.to_upright((0, 30, 20, 40)) == (0, 0, 10, 20)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(160, 120), (163, 125)])
def test_a_reduced_decode_shrinks_block_by_block(size, reduction):
    picture = smooth(*size)
    photo = Photo(encode(Image.fromarray(picture), "JPEG", quality=97, subsampling=0))
    seen = photo.decode(reduction)
    assert seen.shape == (-(-size[1] // reduction), -(-size[0] // reduction), 3)
    height, width = (side // reduction for side in (size[1], size[0]))
    blocks = picture[: height * reduction, : width * reduction].reshape(height, reduction, width, reduction, 3)
    assert np.abs(seen[:height, :width] - blocks.mean((1, 3))).max() < 4


def test_a_jpeg_that_libjpeg_warns_about_is_damaged_and_kept_on_request():
    data = encode(Image.fromarray(smooth(160, 120)), "JPEG", quality=95)
    noisy = data[:-2] + bytes(range(1, 20)) + data[-2:]  # stray bytes before the end marker
    for reduction in (1, 4):
        with pytest.raises(PhotoError, match=r"cannot be decoded: .*extraneous bytes"):
            Photo(noisy).decode(reduction)
        kept = Photo(noisy).decode(reduction, keep_damaged=True).astype(int)
        assert np.abs(kept - Photo(data).decode(reduction)).mean() < 1.5


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_zeros_inside_a_jpeg_are_told_in_every_mode(mode):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8))
    data = bytearray(encode(noise.convert(mode), "JPEG"))
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    with pytest.raises(PhotoError, match="cannot be decoded: Corrupt JPEG data"):
        Photo(bytes(data)).decode()
    assert Photo(bytes(data)).decode(keep_damaged=True).shape == (120, 160, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("keep_damaged", [False, True])
def test_truncated_files_are_told(format, keep_damaged):
    data = encode(Image.fromarray(smooth(160, 120)), format)
    with pytest.raises(PhotoError):
        Photo(data[: len(data) // 2]).decode(keep_damaged=keep_damaged)


def declared_size(width, height):
    """A small JPEG whose header claims another size."""
    data = bytearray(encode(Image.fromarray(smooth(160, 120)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def test_a_photo_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    with pytest.raises(PhotoError, match=r"65500 x 65500 are more than 134,217,728 pixels"):
        Photo(declared_size(65500, 65500))
    with pytest.raises(PhotoError, match="13000 x 13000 are more than"):
        Photo(declared_size(13000, 13000))
    assert Photo(declared_size(11585, 11585)).stored_size == (11585, 11585)
    monkeypatch.setattr("slotcon_plugin.photos.photo.MAX_PIXELS", 61 * 45 - 1)
    for format in ("JPEG", "PNG"):
        with pytest.raises(PhotoError, match="61 x 45 are more than"):
            Photo(encode(Image.fromarray(smooth()), format))


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_no_memory_is_the_photos_fault(format, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    photo = Photo(encode(Image.fromarray(smooth()), format))
    monkeypatch.setattr("simplejpeg.decode_jpeg", fail)
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(PhotoError, match="cannot be decoded: MemoryError"):
        photo.decode()


def test_avif_is_read():
    pytest.importorskip("PIL.AvifImagePlugin")
    if not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    seen = Photo(encode(Image.fromarray(smooth()), "AVIF", quality=95)).decode()
    assert np.abs(seen.astype(int) - smooth()).mean() < 4


@pytest.mark.parametrize("data", [b"", b"no photo at all", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_photos_are_told(data):
    with pytest.raises(PhotoError, match="no readable header"):
        Photo(data)


def test_integers_of_32_bits_are_refused_rather_than_black():
    with pytest.raises(PhotoError, match="32-bit integers has no known white"):
        Photo(encode(Image.fromarray(np.full((4, 4), 200, np.int32)), "TIFF")).decode()


def test_a_floating_point_picture_is_refused():
    with pytest.raises(PhotoError, match="floating-point"):
        Photo(encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")).decode()
