"""Embeddings against means taken by hand, on a network whose maps are known."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from slotcon_plugin.convert.network import Network
from slotcon_plugin.embedding import Embeddings, check_out, embed_photos, load_embeddings
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.arms import load_backbone
from slotcon_plugin.evaluation.features import map_sizes
from slotcon_plugin.models import TimmBackbone

WIDTH, HEIGHT = 128, 96  # what is read is what the network sees: short side 96, both multiples of 32


class Colours(nn.Module):
    """One stage at stride 8: the mean colour of each cell, un-normalised, and a constant that keeps it off zero."""

    def forward(self, images):
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        cells = F.avg_pool2d(images * std + mean, 8)
        return (torch.cat([cells, torch.ones_like(cells[:, :1])], 1),)


@pytest.fixture
def photos(tmp_path):
    """Two photos of one shape and one upright, and their pixels."""
    rng = np.random.default_rng(0)
    made = {}
    for name, size in (("a", (HEIGHT, WIDTH)), ("b", (HEIGHT, WIDTH)), ("c", (WIDTH, HEIGHT))):
        pixels = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
        path = str(tmp_path / f"{name}.png")
        Image.fromarray(pixels).save(path)
        made[path] = pixels / 255
    return made


def unit(rows) -> np.ndarray:
    rows = np.concatenate([np.asarray(rows), np.ones((len(rows), 1))], 1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embed(photos, *args, **kwargs) -> Embeddings:
    return embed_photos(Colours(), list(photos), *args, short_side=HEIGHT, dtype=np.float32, **kwargs)


def test_a_photo_is_the_mean_of_its_map(photos):
    made = embed(photos)
    assert made.vectors == pytest.approx(unit([p.mean((0, 1)) for p in photos.values()]), abs=1e-5)
    assert made.photo.tolist() == [0, 1, 2] and made.paths == tuple(photos)
    assert made.boxes.tolist() == [[0, 0, WIDTH, HEIGHT]] * 2 + [[0, 0, HEIGHT, WIDTH]]
    assert str(made) == "3 vectors of 4 of 3 photos, one a photo"


def test_crops_of_a_grid(photos):
    """Rows first; cells of 2 x 4 end on the map's own cells, so that their means are those of their pixels."""
    made = embed(photos, "crop", grid=(2, 4))
    wide = next(iter(photos.values()))
    cells = [wide[48 * i : 48 * i + 48, 32 * j : 32 * j + 32].mean((0, 1)) for i in range(2) for j in range(4)]
    assert made.vectors[:8] == pytest.approx(unit(cells), abs=1e-5)
    assert made.boxes[5].tolist() == [32, 48, 64, 96] and made.photo.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert made.boxes[16 + 5].tolist() == [24, 64, 48, 128]


def test_crops_by_boxes(photos):
    first, second, _ = photos
    boxes = {first: [[8, 16, 40, 24], [0, 0, 8, 8]], second: [[64, 0, 128, 96]]}
    made = embed(photos, "crop", boxes=boxes)
    means = [photos[path][y0:y1, x0:x1].mean((0, 1)) for path in boxes for x0, y0, x1, y1 in boxes[path]]
    assert made.vectors == pytest.approx(unit(means), abs=1e-5)
    assert made.photo.tolist() == [0, 0, 1] and made.boxes.tolist() == [*boxes[first], *boxes[second]]
    with pytest.raises(UserError, match="x0 < x1"):
        embed(photos, "crop", boxes={first: [[5, 5, 5, 9]]})


def test_boxes_are_of_the_photos_and_within_them(photos, monkeypatch, tmp_path):
    first = next(iter(photos))
    monkeypatch.chdir(tmp_path)
    relative = embed_photos(Colours(), ["a.png"], "crop", boxes={"./a.png": [[0, 0, 8, 8]]}, short_side=HEIGHT)
    assert len(relative) == 1
    with pytest.raises(UserError, match=r"none is of these photos: boxes are of elsewhere/a\.png, photos are "):
        embed(photos, "crop", boxes={"elsewhere/a.png": [[0, 0, 8, 8]]})
    for box in ([500, 10, 600, 20], [10, HEIGHT, 20, HEIGHT + 5], [-9, 0, 0, 9]):
        with pytest.raises(UserError, match=rf"a\.png: a box lies outside the photo, which is {WIDTH} x {HEIGHT}"):
            embed(photos, "crop", boxes={first: [[0, 0, 5, 5], box]})
    embed(photos, "crop", boxes={first: [[-5, -5, WIDTH + 5, HEIGHT + 5]]})


def test_a_line_of_pixels_does_not_become_a_huge_picture(tmp_path):
    Image.new("RGB", (1920, 1)).save(tmp_path / "line.png")
    seen = []

    class Watched(Colours):
        def forward(self, images):
            seen.append(tuple(images.shape))
            return super().forward(images)

    embed_photos(Watched(), [str(tmp_path / "line.png")], short_side=64)
    assert seen == [(1, 3, 32, 512)]


def test_a_vit_from_a_file_takes_photos_of_any_shape(photos, tmp_path):
    """It is built for one size; where photos have that, its figures are those that it always had."""
    name, options = "vit_tiny_patch16_224", {"img_size": (HEIGHT, WIDTH)}
    torch.manual_seed(0)
    vit = TimmBackbone(name, **options).eval()
    network = Network(name, "timm", options)
    states = {any_size: network.build(any_size=any_size).state_dict() for any_size in (False, True)}
    assert {k: v.shape for k, v in states[True].items()} == {k: v.shape for k, v in states[False].items()}
    torch.save(TimmBackbone(name).model.state_dict(), tmp_path / "vit.pth")
    loaded = load_backbone(tmp_path / "vit.pth", network=name)
    for backbone in (loaded.backbone, loaded.untrained(0)):
        assert len(embed_photos(backbone, list(photos), "pixel", short_side=64)) == 3 * 4 * 6  # rounded to 64 x 96

    other = network.build(any_size=True).eval()
    other.load_state_dict(vit.state_dict())
    with torch.no_grad():
        image = torch.randn(1, 3, HEIGHT, WIDTH)
        assert all(torch.equal(a, b) for a, b in zip(vit(image), other(image), strict=True))


def test_the_box_of_a_patch_is_what_the_patch_sees(tmp_path):
    """256 pixels are no whole number of patches of 14: timm would pad, and cells would lie elsewhere than they do."""
    Image.fromarray(np.zeros((252, 378, 3), np.uint8)).save(tmp_path / "a.png")
    network = Network("vit_tiny_patch16_224", "timm", {"patch_size": 14, "depth": 4})
    backbone = network.build(any_size=True).eval()
    made = embed_photos(backbone, [tmp_path / "a.png"], "pixel", short_side=256)
    seen = torch.zeros(1, 3, 252, 378, requires_grad=True)  # the size of whole patches nearest to 256 x 384
    cells = backbone.model.patch_embed(seen).flatten(0, 2)
    assert len(made) == len(cells) == 18 * 27
    for number in (0, 37, len(cells) - 1):
        (gradient,) = torch.autograd.grad(cells[number].sum(), seen, retain_graph=True)
        rows, columns = (gradient.abs().sum(axes).nonzero()[:, 0] for axes in ((0, 1, 3), (0, 1, 2)))
        extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert made.boxes[number] == pytest.approx([float(edge) for edge in extent], abs=1e-3)
    assert map_sizes(backbone, (240, 320))[-1] == (17, 23)  # 238 x 322


def test_pixels_are_positions_of_the_map(photos):
    made = embed(photos, "pixel", batch_size=1)
    wide = next(iter(photos.values()))
    assert len(made) == 3 * 12 * 16
    row, column = 7, 13
    cell = wide[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].mean((0, 1))
    assert made.vectors[16 * row + column] == pytest.approx(unit([cell])[0], abs=1e-5)
    assert made.boxes[16 * row + column].tolist() == [104, 56, 112, 64]


def test_photos_that_cannot_be_read_are_left_out(photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    made = embed([str(tmp_path / "broken.jpg"), *photos])
    assert made.paths == tuple(photos) and made.photo.tolist() == [0, 1, 2]


def test_nearest_and_duplicates():
    vectors = np.array([[1, 0], [0, 1], [0.8, 0.6], [0.96, 0.28], [-1, 0]], np.float32)
    made = Embeddings(vectors, np.arange(5), np.zeros((5, 4), np.float32), tuple("abcde"), "photo")
    rows, cosines = made.nearest(5 * vectors[:2], k=2)
    assert rows.tolist() == [[0, 3], [1, 2]] and cosines == pytest.approx(np.array([[1, 0.96], [1, 0.6]]), abs=1e-6)
    assert made.duplicates(0.93) == [[0, 2, 3]]  # 0-3 and 3-2 are alike, 0-2 only by way of 3
    assert made.duplicates(0.99) == []


def test_the_same_photo_twice_is_a_duplicate_of_itself():
    """float16 makes the vectors' length .9999 or 1.0001."""
    vectors = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    rows, parts = np.arange(600, dtype=np.int32), np.zeros((600, 4), np.float32)
    made = Embeddings(np.concatenate([vectors, vectors]), rows, parts, tuple(map(str, rows)), "photo")
    assert made.duplicates(1.0) == [[i, i + 300] for i in range(300)]
    assert made.nearest(made.vectors[:5], k=2)[1] == pytest.approx(np.ones((5, 2)), abs=1e-6)


@pytest.mark.parametrize("option", [{"short_side": 0}, {"short_side": -5}, {"batch_size": 0}, {"grid": (0, 3)}])
def test_sizes_below_one_are_refused(photos, option):
    with pytest.raises(UserError, match=f"{next(iter(option))}: expected .*at least 1, got"):
        embed_photos(Colours(), list(photos), **option)


def test_what_is_saved_is_read_again(photos, tmp_path):
    made = embed(photos, "crop")
    again = load_embeddings(made.save(tmp_path / "e.npz"))
    for name in ("vectors", "photo", "boxes"):
        assert np.array_equal(getattr(again, name), getattr(made, name)) and len(made) == 27
    assert (again.paths, again.level) == (made.paths, "crop")
    with pytest.raises(UserError, match=r"\.npz or \.parquet, got 'e\.csv'"):
        made.save(tmp_path / "e.csv")


def test_a_file_that_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for out in ("file/e.npz", "file/e.parquet"):
        if out.endswith(".parquet"):
            pytest.importorskip("pyarrow")
        with pytest.raises(UserError, match=r"file: e\.\w+ cannot be written there .*--out"):
            check_out(tmp_path / out)


def test_parquet(photos, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    made = embed(photos, "crop")
    table = pq.read_table(made.save(tmp_path / "e.parquet"))
    assert table.column_names == ["path", "x0", "y0", "x1", "y1", "embedding"]
    row = table.slice(13, 1).to_pylist()[0]
    assert row["path"] == made.paths[1] and row["embedding"] == pytest.approx(made.vectors[13].tolist())
    assert [row[key] for key in ("x0", "y0", "x1", "y1")] == made.boxes[13].tolist()


def test_parquet_of_names_that_are_no_utf_8(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    name = os.fsdecode(b"stra\xdfe.jpg")
    made = Embeddings(np.zeros((1, 2), np.float32), np.array([0]), np.zeros((1, 4)), (name,), "photo")
    assert pq.read_table(made.save(tmp_path / "e.parquet"))["path"].to_pylist() == ["stra\ufffde.jpg"]


def test_parquet_without_pyarrow_is_refused_before_the_work(photos, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        embed(photos).save(tmp_path / "e.parquet")
