"""What a sample is: recorded geometry against the pixels, determinism, broken photos."""

import io
import logging
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from slotcon_plugin.data import BrokenPhotosError, EpochSampler, ImageFolder, SampleKey, TwoViewDataset
from slotcon_plugin.data import dataset as data_set
from slotcon_plugin.data.dataset import resize_crop
from slotcon_plugin.data.photometric import SOLARISE
from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import source_to_view
from slotcon_plugin.photos.photo import _UPRIGHT, EXIF_ORIENTATION, Orientation, Photo

POINTS = torch.tensor([[150.3, 120.7], [451.2, 300.4], [310.0, 180.9]])  # red, green, blue; upright source pixels


def dotted_photo(path, size, scale, tag=1, **options):
    """A soft dot in each channel, saved such that a viewer who minds ``tag`` sees them at ``scale * POINTS``."""
    width, height = size
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    picture = np.stack(
        [
            np.exp(-((x - px * scale) ** 2 + (y - py * scale) ** 2) / (2 * (9 * scale) ** 2))
            for px, py in POINTS.tolist()
        ],
        axis=-1,
    )
    # What a camera stores is undone by what a viewer does (EXIF 2.32): mirror and rotate back.
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture),
        7: np.rot90(picture, 2).transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[tag]
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = tag
    Image.fromarray((stored * 250).round().astype(np.uint8)).save(path, exif=exif, **options)


@pytest.mark.parametrize(
    ("name", "size", "scale", "tag", "options"),
    [
        ("plain.png", (641, 433), 1.0, 1, {}),
        ("plain.jpg", (641, 433), 1.0, 1, dict(quality=95)),
        ("large.jpg", (2403, 1621), 3.75, 1, dict(quality=92)),
        *[(f"turned_{tag}.jpg", (1283, 867), 2.0, tag, dict(quality=92, subsampling=0)) for tag in range(2, 9)],
        ("turned_6.png", (641, 433), 1.0, 6, {}),
    ],
)
def test_points_of_the_photo_are_found_where_the_crop_boxes_say(tmp_path, name, size, scale, tag, options, monkeypatch):
    dotted_photo(tmp_path / name, size, scale, tag, **options)
    dataset = TwoViewDataset(ImageFolder(tmp_path), view_size=112, scale=(0.2, 1.0))
    reductions = set()
    decode = Photo.decode
    monkeypatch.setattr(Photo, "decode", lambda self, r, keep: reductions.add(r) or decode(self, r, keep))
    centres = (torch.arange(112) + 0.5) / 112
    checked, worst = 0, 0.0
    for epoch in range(25):
        sample = dataset[SampleKey(0, epoch, 0)]
        points = source_to_view((POINTS * scale).expand(2, -1, -1), sample["crop_boxes"], sample["flipped"])
        radius = 4 * 9 * scale / (sample["crop_boxes"][:, 2:] - sample["crop_boxes"][:, :2])
        for view, point, reach in zip(sample["views"].double(), points, radius):
            for channel in range(3):
                if bool(((point[channel] - reach > 0) & (point[channel] + reach < 1)).all()):
                    mass = (view[channel] - 8).clamp(min=0)
                    found = torch.stack([(mass.sum(0) * centres).sum(), (mass.sum(1) * centres).sum()]) / mass.sum()
                    worst = max(worst, float((found - point[channel]).abs().max()) * 112)
                    checked += 1
    assert checked > 30
    assert worst < 0.2, f"{worst:.3f} pixels of the view"
    if size[0] > 1000 and name.endswith("jpg"):
        assert max(reductions) > 1
        assert len(reductions) > 1


@pytest.fixture(scope="module")
def strict_dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    Image.new("RGB", (8, 8)).save(folder / "photo.png")
    return TwoViewDataset(ImageFolder(folder), view_size=32, min_overlap=0.5, min_overlap_pixels=1600, overlap_grid=56)


@settings(max_examples=200, deadline=None)
@given(st.integers(8, 3000), st.integers(8, 3000), st.sampled_from(list(_UPRIGHT.values())), st.integers(0, 2**32))
def test_rounding_to_a_reduced_decode_keeps_the_guarantees(strict_dataset, width, height, turn, seed):
    orientation = Orientation(width, height, *turn)
    stored_size = (height, width) if orientation.transpose else (width, height)
    photo = SimpleNamespace(orientation=orientation, stored_size=stored_size, reductions=(8, 4, 2, 1))
    pair = strict_dataset.crops.draw(np.random.default_rng(seed), width, height)
    reduction, placed = strict_dataset._place(photo, pair)
    recorded = [orientation.to_upright(tuple(reduction * side for side in box)) for box in placed]
    assert strict_dataset.crops.accepts(*recorded)
    for drawn, box, pixels in zip(pair, recorded, placed):
        assert all(0 <= low < high <= side // reduction for low, high, side in zip(pixels, pixels[2:], stored_size))
        assert max(abs(a - b) for a, b in zip(drawn, box)) <= 1.5 * reduction * (reduction > 1)
        if reduction > 1:
            assert min(pixels[2] - pixels[0], pixels[3] - pixels[1]) >= 32


def test_crops_are_resized_as_pillow_does_it():
    """Pillow rounds once between its two passes and so do we: at most 1 level of 255 apart."""
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    for box in ((0, 0, 160, 120), (13, 7, 101, 119), (30, 40, 70, 60)):
        pillow = Image.fromarray(pixels).crop(box).resize((64, 64), Image.Resampling.BICUBIC)
        difference = np.abs(resize_crop(pixels, box, 64).permute(1, 2, 0).numpy().astype(int) - np.asarray(pillow))
        assert difference.max() <= 1
        assert difference.mean() < 0.1


def test_a_reduced_decode_hardly_changes_a_view(tmp_path, monkeypatch):
    """Against Pillow's full decode and resize: above 35 dB, on detail as fine as photos have it."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(60, 200, (15, 20, 3)).astype(np.uint8)).resize((1200, 900))
    fine = Image.fromarray(rng.integers(60, 200, (225, 300, 3)).astype(np.uint8)).resize((1200, 900))
    Image.blend(coarse, fine, 0.2).save(tmp_path / "photo.jpg", quality=95)
    dataset = TwoViewDataset(ImageFolder(tmp_path), view_size=64, scale=(0.3, 1.0))
    reductions, decode = [], Photo.decode
    monkeypatch.setattr(Photo, "decode", lambda self, r, keep: reductions.append(r) or decode(self, r, keep))
    full = Image.open(tmp_path / "photo.jpg")
    for epoch in range(5):
        sample = dataset[SampleKey(0, epoch, 0)]
        for view, box, flip in zip(sample["views"], sample["crop_boxes"].tolist(), sample["flipped"].tolist()):
            expected = np.asarray(full.resize((64, 64), Image.Resampling.BICUBIC, box=box)).astype(float)
            seen = (view.flip(-1) if flip else view).permute(1, 2, 0).numpy()
            assert 10 * np.log10(255**2 / ((seen - expected) ** 2).mean()) > 35
    assert min(reductions) >= 4


def test_contract_of_a_sample(folder):
    batch = default_collate(
        [TwoViewDataset(dict(type="ImageFolder", root=str(folder)), view_size=32)[i] for i in range(4)]
    )
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    assert shapes == dict(
        views=((4, 2, 3, 32, 32), torch.uint8),
        crop_boxes=((4, 2, 4), torch.float32),
        flipped=((4, 2), torch.bool),
        photometric=((4, 2, 11), torch.float32),
        sample_index=((4,), torch.int64),
    )
    assert batch["sample_index"].tolist() == [0, 1, 2, 3]


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_sample_follows_from_its_key_alone(folder):
    first, second = (TwoViewDataset(ImageFolder(folder), view_size=32) for _ in range(2))
    second[SampleKey(0, 0, 5)], torch.rand(3), np.random.rand(3)
    key = SampleKey(7, 3, 4)
    assert same(first[key], second[key])
    for other in (SampleKey(8, 3, 4), SampleKey(7, 4, 4), SampleKey(7, 3, 5)):
        assert not torch.equal(first[key]["crop_boxes"], first[other]["crop_boxes"])
    assert same(first[4], first[SampleKey(0, 0, 4)])


def test_batches_are_the_same_with_any_number_of_workers(folder):
    dataset = TwoViewDataset(ImageFolder(folder), view_size=16)

    def batches(workers):
        sampler = EpochSampler(dataset, seed=3)
        sampler.set_epoch(2)
        return list(DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers, drop_last=True))

    alone = batches(0)
    assert len(alone) == 3
    assert all(same(a, b) for a, b in zip(alone, batches(2)))


def test_flips_come_with_their_probability(folder):
    dataset = TwoViewDataset(ImageFolder(folder), view_size=8)
    flips = torch.cat([dataset[SampleKey(0, epoch, 0)]["flipped"] for epoch in range(400)]).float().mean()
    assert float(flips) == pytest.approx(0.5, abs=0.08)
    assert not TwoViewDataset(ImageFolder(folder), view_size=8, flip_prob=0)[0]["flipped"].any()


@pytest.fixture
def log(request):
    """Lines that the package logs, as mmengine's current logger gets them."""
    logger = MMLogger.get_instance(request.node.name, logger_name=request.node.name)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def break_photos(folder, count):
    broken = sorted(folder.rglob("*.*"))[:count]
    for number, path in enumerate(broken):
        path.write_bytes(b"" if number % 2 else path.read_bytes()[:200])
    return broken


def test_broken_photos_are_replaced_the_same_way_and_named_once(folder, log):
    broken = break_photos(folder, 2)
    one, other = (TwoViewDataset(ImageFolder(folder), view_size=16, max_broken_share=0.2) for _ in range(2))
    first = [one[SampleKey(0, epoch, index)] for epoch in range(3) for index in range(12)]
    named = log.getvalue()
    again = [other[SampleKey(0, epoch, index)] for epoch in reversed(range(3)) for index in range(12)]
    again = again[24:] + again[12:24] + again[:12]
    assert all(same(a, b) for a, b in zip(first, again))
    indices = [int(sample["sample_index"]) for sample in first[:12]]
    assert indices[2:] == list(range(2, 12))
    assert set(indices[:2]) <= set(range(2, 12))
    assert one.num_broken == 2
    assert all(named.count(str(path)) == 1 for path in broken)


def test_workers_share_what_they_found_broken(folder, capfd):
    (broken,) = break_photos(folder, 1)
    MMLogger.get_instance("workers", logger_name="workers")
    dataset = TwoViewDataset(ImageFolder(folder), view_size=8, max_broken_share=0.2)
    loader = DataLoader(dataset, batch_size=2, sampler=EpochSampler(dataset, seed=0), num_workers=2)
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        assert len(torch.cat([batch["sample_index"] for batch in loader])) == 12
    assert dataset.num_broken == 1
    shown = capfd.readouterr()
    assert (shown.out + shown.err).count(str(broken)) == 1


def test_naming_the_broken_while_other_workers_find_more():
    """On the shared flags themselves, nonzero() overruns its buffer within some ten calls and the process dies."""
    code = """
import os, signal, sys
from slotcon_plugin.data import TwoViewDataset
from slotcon_plugin.data.sources import PhotoSource

dataset = TwoViewDataset(PhotoSource("/nowhere", ["a.jpg"] * 500_000, "a list"))
other = os.fork()
if other == 0:
    signal.alarm(60)
    while True:
        dataset._broken.fill_(False), dataset._broken.fill_(True)
try:
    for _ in range(150):
        dataset._some_broken()
finally:
    os.kill(other, signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_each_of_several_processes_counts_among_the_photos_that_it_met(folder, monkeypatch):
    """Of 12 photos one of two processes meets 6 in the first epoch: 1.5 may be broken, with the odds of a deal 4.9."""
    break_photos(folder, 5)
    monkeypatch.setattr(data_set, "get_world_size", lambda: 2)
    dataset = TwoViewDataset(ImageFolder(folder), view_size=8, max_broken_share=0.25)
    for index in range(4):
        dataset[SampleKey(0, 0, index)]
    with pytest.raises(BrokenPhotosError, match=r"5 of 6 photos"):
        dataset[SampleKey(0, 0, 4)]
    assert dataset[SampleKey(0, 1, 4)]["sample_index"] > 4, "7.5 of the 12 that it has met by now"


def test_too_many_broken_photos_stop_the_run(folder):
    broken = break_photos(folder, 4)
    dataset = TwoViewDataset(ImageFolder(folder), view_size=8, max_broken_share=0.25)
    with pytest.raises(BrokenPhotosError, match=r"4 of 12 photos .* max_broken_share=0.25") as stopped:
        list(DataLoader(dataset, batch_size=2, num_workers=1))
    assert all(str(path) in str(stopped.value) for path in broken)


def test_what_stops_a_run_is_said_without_the_workers_traceback(folder):
    break_photos(folder, 4)
    dataset = TwoViewDataset(ImageFolder(folder), view_size=8, max_broken_share=0.25)
    with pytest.raises(UserError) as stopped:
        list(DataLoader(dataset, batch_size=2, num_workers=1))
    assert str(stopped.value).startswith("4 of 12 photos of folder")


def test_damaged_photos_count_as_broken_unless_they_are_kept(folder, log):
    data = (folder / "dogs/00.jpg").read_bytes()
    (folder / "dogs/00.jpg").write_bytes(data[:-2] + bytes(range(1, 20)) + data[-2:])  # libjpeg: extraneous bytes
    index = next(i for i in range(12) if ImageFolder(folder).path(i).endswith("00.jpg"))
    dataset = TwoViewDataset(ImageFolder(folder), view_size=16, max_broken_share=0.2)
    assert int(dataset[index]["sample_index"]) != index
    assert dataset.num_broken == 1
    assert "extraneous bytes" in log.getvalue()
    dataset = TwoViewDataset(ImageFolder(folder), view_size=16, keep_damaged=True)
    assert int(dataset[index]["sample_index"]) == index
    assert dataset.num_broken == 0


def test_a_photo_too_large_for_the_memory_is_replaced(folder, monkeypatch):
    source, read = ImageFolder(folder), ImageFolder.read

    def hungry(self, index):
        if index == 3:
            raise MemoryError
        return read(self, index)

    monkeypatch.setattr(ImageFolder, "read", hungry)
    dataset = TwoViewDataset(source, view_size=16, max_broken_share=0.1)
    assert int(dataset[3]["sample_index"]) != 3


def test_what_a_source_of_another_kind_raises_makes_a_broken_photo(folder, log):
    class Archive(ImageFolder):
        def read(self, index):
            if index == 0:
                raise zipfile.BadZipFile("Bad CRC-32")
            return super().read(index)

    dataset = TwoViewDataset(Archive(folder), view_size=16, max_broken_share=0.2)
    assert dataset[0]["sample_index"] != 0 and dataset.num_broken == 1
    assert "BadZipFile: Bad CRC-32" in log.getvalue()


@pytest.mark.parametrize(("view_size", "side"), [(224, 56), (96, 24), (90, 23)])
def test_pixels_that_views_share_are_those_of_a_map_of_stride_4(folder, view_size, side):
    assert TwoViewDataset(ImageFolder(folder), view_size).crops.overlap_grid == side
    assert TwoViewDataset(ImageFolder(folder), view_size, overlap_grid=7).crops.overlap_grid == 7


def test_a_source_without_names_is_refused():
    with pytest.raises(UserError, match="the photo source list has no path, read, origin; a source has __len__, path"):
        TwoViewDataset(["a.jpg"], view_size=16)


def test_a_source_of_nothing_but_broken_photos_stops_soon(folder):
    break_photos(folder, 12)
    with pytest.raises(BrokenPhotosError, match="photos in a row"):
        TwoViewDataset(ImageFolder(folder), view_size=8, max_broken_share=1.0)[0]


@pytest.mark.parametrize("shares", [(0.0, 1.0), (1.0, 0.0)])
def test_each_view_has_the_colours_of_its_own_config(shares, folder):
    configs = [dict(solarise_prob=share) for share in shares]
    dataset = TwoViewDataset(ImageFolder(folder), view_size=8, photometric=configs)
    for index in range(4):
        assert tuple(dataset[index]["photometric"][:, SOLARISE].tolist()) == shares


def test_impossible_settings_are_refused(folder):
    with pytest.raises(ValueError, match="two configs"):
        TwoViewDataset(ImageFolder(folder), photometric=[{}])
    with pytest.raises(UserError, match=r"takes no 'grey_prop'; did you mean grey_prob\?"):
        TwoViewDataset(ImageFolder(folder), photometric=[dict(grey_prop=0.3), {}])
    with pytest.raises(UserError, match="takes no 'sharpness'; it takes brightness, contrast"):
        TwoViewDataset(ImageFolder(folder), photometric=[{}, dict(sharpness=0.3)])
    with pytest.raises(ValueError, match="view_size"):
        TwoViewDataset(ImageFolder(folder), view_size=0)
