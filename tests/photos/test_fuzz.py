"""Three hundred damaged photos: nothing crashes, what is damaged is named once, what is accepted is right."""

import io

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image
from torch.utils.data import DataLoader

from slotcon_plugin.data import EpochSampler, ImageFolder, TwoViewDataset
from slotcon_plugin.photos import Photo, PhotoError, read_photos

COUNT = 300


def whole_photo(rng):
    """A noisy picture in one of the usual encodings; every flipped bit of noise shows. Suffix and content."""
    size = rng.integers(48, 240, 2).tolist()
    coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 12, size[0] // 12, 3)).astype(np.uint8)).resize(size)
    image = Image.blend(coarse, Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)), 0.2)
    suffix, format, options = [
        (".jpg", "JPEG", dict(quality=90)),
        (".jpg", "JPEG", dict(quality=75, subsampling=0, restart_marker_rows=1)),
        (".jpg", "JPEG", dict(quality=85, progressive=True)),
        (".jpg", "JPEG", dict(quality=85)),
        (".png", "PNG", {}),
        (".webp", "WEBP", dict(quality=80)),
    ][rng.integers(6)]
    if format == "JPEG" and rng.random() < 0.2:
        image = image.convert(["L", "CMYK"][rng.integers(2)])
    file = io.BytesIO()
    image.save(file, format, **options)
    return suffix, file.getvalue()


def damage(data, rng):
    """What disks, networks and interrupted copies do to a file."""
    data, at = bytearray(data), int(rng.integers(len(data)))
    match rng.integers(6):
        case 0:
            del data[at:]
        case 1:
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        case 2:
            for where in rng.integers(0, len(data), 8):
                data[where] = rng.integers(256)
        case 3:
            data[at] ^= 1 << int(rng.integers(8))
        case 4:
            for where in rng.integers(0, min(400, len(data)), 3):  # the header
                data[where] = rng.integers(256)
        case 5:
            del data[at : at + int(rng.integers(1, 64))]
    return bytes(data)


def decoded(data):
    """Pixels, or None of a photo that is refused."""
    try:
        return Photo(data).decode().astype(int)
    except PhotoError:
        return None


@pytest.mark.slow
def test_damaged_photos_in_a_run(tmp_path, capfd):
    rng = np.random.default_rng(0)
    refused, silent, files = set(), 0, []
    for number in range(2 * COUNT):
        suffix, whole = whole_photo(rng)
        data = damage(whole, rng) if number < COUNT else whole
        files.append(tmp_path / f"{number:04}{suffix}")
        files[-1].write_bytes(data)
        expected, seen = decoded(whole), decoded(data)
        if seen is None:
            refused.add(number)
            continue
        assert seen.shape[2] == 3
        # right is what the file says: another decoder sees the same in it (and takes CMYK a little otherwise)
        other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert np.abs(seen - other).mean() < 2, files[-1]
        if suffix == ".jpg":
            silent += seen.shape != expected.shape or (np.abs(seen - expected).max(axis=2) > 8).mean() > 0.02
    assert not any(number >= COUNT for number in refused), "a whole photo is refused"
    assert all(number in refused for number in range(COUNT) if files[number].suffix == ".png"), "PNG has checksums"
    # a JPEG has none: some damage decodes without a warning
    jpegs = {number for number in refused if files[number].suffix == ".jpg"}
    print(f"{len(refused)} of {COUNT} damaged photos refused; of JPEGs {len(jpegs)}, wrong without a warning {silent}")
    assert silent < 0.4 * len(jpegs)

    MMLogger.get_instance("fuzz", logger_name="fuzz")
    dataset = TwoViewDataset(ImageFolder(tmp_path), view_size=32, max_broken_share=1.0)
    loader = DataLoader(dataset, batch_size=8, sampler=EpochSampler(dataset, seed=0), num_workers=2)
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        shown = torch.cat([batch["sample_index"] for batch in loader]).tolist()
        assert len(shown) == 2 * COUNT
        assert set(range(2 * COUNT)) - refused <= set(shown)
        assert not refused & set(shown)
    assert dataset.num_broken == len(refused)
    said = "".join(capfd.readouterr())
    assert [number for number, path in enumerate(files) if said.count(path.name) == 1] == sorted(refused)
    assert said.count("replaced by another") == len(refused)

    assert {index for index, _ in read_photos(files)} >= set(range(2 * COUNT)) - refused
