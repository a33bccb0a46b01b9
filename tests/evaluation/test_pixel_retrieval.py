import math

import numpy as np
import pytest
import torch
from PIL import Image

from slotcon_plugin.config import load_config
from slotcon_plugin.data import TwoViewDataset
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.pixel_retrieval import (
    _RADIUS,
    _right_pixels,
    compare_pixel_retrieval,
    evaluate_pixel_retrieval,
    retrieval_table,
)
from slotcon_plugin.models.pixel_pairs import pixel_centres
from slotcon_plugin.normalization import IMAGENET_STD
from slotcon_plugin.registry import DATASETS, MODELS

PHOTOS = 6


@pytest.fixture
def folder(tmp_path):
    """Photos whose red says the column, green the row and blue the photo."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rows, columns = np.mgrid[0:96, 0:96] * 2.5 + 8
    for i in range(PHOTOS):
        pixels = np.stack([columns, rows, np.full_like(rows, 20 + 40 * i)], axis=-1).round().astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    return photos


def no_change_of_colours():
    return dict(jitter_prob=0.0, grey_prob=0.0, blur_prob=0.0, solarise_prob=0.0)


def make_dataset(folder, **more):
    return TwoViewDataset(
        dict(type="ImageFolder", root=str(folder)),
        **{"view_size": 64, "scale": (0.3, 1.0), "min_overlap_pixels": 8, "overlap_grid": 16, **more},
        photometric=[no_change_of_colours()] * 2,
    )


def colours(images):
    """An embedding of unit length that tells all colours apart: three angles, on a map of stride 4."""
    angle = torch.nn.functional.avg_pool2d(images, 4) * 0.6
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def test_colours_that_say_the_place_find_it(folder):
    figures = evaluate_pixel_retrieval(colours, make_dataset(folder), num_pairs=4)
    assert figures["pixel_accuracy"] > 0.9
    assert figures["photo_accuracy"] == 1.0
    assert figures["place_accuracy"] > 0.95
    assert figures["pixel_chance"] == 1 / (4 * PHOTOS)
    assert figures["photo_chance"] == 1 / PHOTOS


def test_an_embedding_that_knows_the_photo_alone(folder):
    def photo(images):
        return colours(images)[:, [2, 5]]

    figures = evaluate_pixel_retrieval(photo, make_dataset(folder), num_pairs=8)
    assert figures["photo_accuracy"] == 1.0
    assert figures["pixel_accuracy"] < 0.5
    assert figures["place_accuracy"] < 0.3


def test_an_embedding_that_knows_nothing_is_guessing(folder):
    figures = evaluate_pixel_retrieval(lambda x: torch.ones(len(x), 2, 16, 16), make_dataset(folder), num_pairs=4)
    assert figures["pixel_accuracy"] == pytest.approx(figures["pixel_chance"])
    assert figures["photo_accuracy"] == pytest.approx(figures["photo_chance"])


def test_the_seed_decides_all_and_the_callers_generator_is_left_alone(folder):
    before = torch.get_rng_state()
    figures = [evaluate_pixel_retrieval(colours, make_dataset(folder), num_pairs=2, seed=s) for s in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), before)
    assert figures[0] == figures[1]
    assert figures[0]["place_chance"] != figures[2]["place_chance"]


def test_pixels_near_a_place_are_right_and_the_nearest_one_is():
    points = torch.tensor([[[0.5, 0.5], [0.1, 0.9], [0.21, 0.26]]])
    for radius in (0.25, 0.01):
        right = _right_pixels(points, (5, 5), radius).reshape(3, 25)
        for found, point in zip(right, points[0].tolist()):
            far = [math.dist(point, ((c + 0.5) / 5, (r + 0.5) / 5)) for r in range(5) for c in range(5)]
            assert found.tolist() == [d <= radius or d == min(far) for d in far]
            assert found.sum() > 1 or radius == 0.01


def test_the_nearest_pixel_adds_to_those_that_are_near_on_coarse_maps_alone():
    """Figures of finer ones, such as those of docs/experiments.md on 24 x 24, are of the distance alone."""
    points = torch.rand(1, 5000, 2, generator=torch.Generator().manual_seed(0))
    for side, adds in ((24, False), (15, False), (14, True), (6, True)):
        distance = torch.cdist(points, pixel_centres(side, side)[None])
        assert torch.equal(_right_pixels(points, (side, side), _RADIUS), distance <= _RADIUS) is not adds


@pytest.mark.parametrize("side", [24, 12, 6, 3])
def test_no_map_is_too_coarse_for_a_perfect_embedding(folder, side):
    def place(images):
        steps = images * torch.tensor(IMAGENET_STD).view(3, 1, 1)  # of columns and rows alike
        angle = torch.nn.functional.avg_pool2d(steps, 96 // side) * 3
        return torch.cat([angle.cos(), angle.sin()], dim=1)

    dataset = make_dataset(folder, view_size=96, min_overlap_pixels=4, overlap_grid=side)
    figures = evaluate_pixel_retrieval(place, dataset, num_pairs=4, seed=1)
    assert figures["place_accuracy"] == 1
    assert 0.999 / side**2 <= figures["place_chance"] < 1.1 / side**2 + 0.01  # a disc of 5 % is .8 % of a view


@pytest.fixture
def config(tmp_path, folder):
    dataset = dict(
        type="TwoViewDataset", source=dict(type="ImageFolder", root=str(folder)), view_size=64, scale=(0.3, 1.0),
        min_overlap_pixels=8, overlap_grid=16,
    )  # fmt: skip
    model = dict(
        type="VADeR", backbone=dict(type="TorchvisionResNet", depth=18), decoder=dict(fpn_channels=8, channels=8),
        num_pairs=8, queue_size=16, data_preprocessor=dict(type="TwoViewPreprocessor"),
    )  # fmt: skip
    path = tmp_path / "config.py"
    path.write_text(f"default_scope = 'slotcon_plugin'\nmodel = {model}\ntrain_dataloader = dict(dataset={dataset})\n")
    return path


@pytest.mark.parametrize("branch", ["teacher", "student"])
def test_random_weights_and_a_checkpoint_side_by_side(branch, tmp_path, folder, config, moved_apart):
    """Of the checkpoint the branch that its run transfers."""
    checkpoint = tmp_path / "iter_1.pth"
    config.write_text(config.read_text() + f"\nmodel['transfer_branch'] = {branch!r}\n")
    model = moved_apart(MODELS.build({**load_config(config).model, "_scope_": "slotcon_plugin"}))
    torch.save({"state_dict": model.state_dict()}, checkpoint)
    figures = compare_pixel_retrieval(config, folder, [checkpoint], num_pairs=4)
    assert list(figures) == ["random weights", str(checkpoint)]
    dataset = DATASETS.build({**load_config(config).train_dataloader.dataset, "_scope_": "slotcon_plugin"})
    model.eval()
    of_branch = {
        name: evaluate_pixel_retrieval(lambda images, b=name: model.embed(images, b), dataset, num_pairs=4)
        for name in ("teacher", "student")
    }
    expected = of_branch[branch]
    assert figures[str(checkpoint)] == expected
    assert of_branch["teacher"] != of_branch["student"]
    assert {name for name in expected if figures["random weights"][name] == expected[name]} >= {
        "pixel_chance",
        "photo_chance",
        "place_chance",
    }


def test_a_network_sees_the_pixels_that_it_was_trained_on(tmp_path, folder, config, monkeypatch):
    """The random one beside it as well; a checkpoint's own statistics count more than its config's."""
    model = MODELS.build({**load_config(config).model, "_scope_": "slotcon_plugin"})
    checkpoint = {"state_dict": model.state_dict()}
    model.data_preprocessor.normalise_by([0.5] * 3, [0.5] * 3)
    model.declare(checkpoint)
    torch.save(checkpoint, tmp_path / "iter_1.pth")
    seen, embed = [], type(model).embed
    monkeypatch.setattr(type(model), "embed", lambda self, images, *a: seen.append(images) or embed(self, images, *a))
    compare_pixel_retrieval(config, folder, [tmp_path / "iter_1.pth"], num_pairs=4)
    lowest, highest = min(v.min().item() for v in seen), max(v.max().item() for v in seen)
    assert -1.001 < lowest < -0.9 and 0.8 < highest < 1.001


def test_norms_of_the_decoder_get_statistics_too(folder, config, monkeypatch):
    text = config.read_text().replace("'fpn_channels': 8", "'fpn_channels': 8, 'fpn_norm': 'BatchNorm'")
    config.write_text(text)
    models, build = [], type(MODELS).build
    monkeypatch.setattr(type(MODELS), "build", lambda *a, **k: models.append(build(*a, **k)) or models[-1])
    compare_pixel_retrieval(config, folder, [], num_pairs=4)
    (untrained,) = [model for model in models if hasattr(model, "teacher")]
    norms = [m for m in untrained.teacher["decoder"].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(norm.num_batches_tracked > 0 for norm in norms)


def test_a_method_without_a_dense_embedding_is_refused(folder, config):
    slotcon = dict(
        type="SlotCon", backbone=dict(type="TorchvisionResNet", depth=18), projector=dict(hidden_channels=8),
        predictor=dict(hidden_channels=8), grouping=dict(num_prototypes=4),
    )  # fmt: skip
    config.write_text(config.read_text() + f"\nmodel = {slotcon}\n")
    with pytest.raises(UserError, match=r"needs a method with a dense embedding \(VADeR, DenseCL\).*SlotCon has none"):
        compare_pixel_retrieval(config, folder)


def test_no_more_pixels_are_looked_up_than_a_map_has(folder, config):
    with pytest.raises(UserError, match=r"num_pairs: at most 256, the positions of the 16 x 16 map, got 257"):
        compare_pixel_retrieval(config, folder, num_pairs=257)


def test_views_of_a_method_that_needs_no_overlap_share_the_pixels_that_are_looked_up(folder, config):
    head = dict(hidden_channels=8, out_channels=8, num_layers=2)
    densecl = dict(
        type="DenseCL", backbone=dict(type="TorchvisionResNet", depth=18), projector=head, dense_projector=head,
        queue_size=4,
    )  # fmt: skip
    independent = dict(min_overlap=0, min_overlap_pixels=0, scale=(0.05, 0.1))
    lines = f"\nmodel = {densecl}\ntrain_dataloader['dataset'].update({independent})\n"
    config.write_text(config.read_text() + lines)
    figures = compare_pixel_retrieval(config, folder, num_pairs=3)["random weights"]
    assert figures["pixel_chance"] == 1 / (PHOTOS * 3)


def test_the_table_starts_with_guessing():
    arm = dict.fromkeys(("pixel_accuracy", "photo_accuracy", "place_accuracy"), 0.5)
    chance = dict(pixel_chance=0.001, photo_chance=0.01, place_chance=0.1)
    table = retrieval_table({"random weights": {**arm, **chance}, "a.pth": {**arm, "pixel_accuracy": 1.0, **chance}})
    lines = [line.split() for line in table.splitlines() if "--" not in line]
    assert lines == [
        ["pixel", "photo", "place"],
        ["guessing", "0.10", "1.00", "10.00"],
        ["random", "weights", "50.00", "50.00", "50.00"],
        ["a.pth", "100.00", "50.00", "50.00"],
    ]
