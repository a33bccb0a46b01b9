from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from slotcon_plugin.demo_scenes import make_demo_scenes
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import calibrate_batch_norm, open_labelled_set, probe_backbone
from slotcon_plugin.evaluation import probe as probe_module
from slotcon_plugin.evaluation.features import labelled_batches, stage_features, to_short_side, to_size
from slotcon_plugin.evaluation.metrics import IGNORE
from slotcon_plugin.normalization import IMAGENET_MEAN, IMAGENET_STD

SIZE = (64, 48)


def linear_probe(backbone, train, test, **settings):
    return probe_backbone(backbone, train, test, neighbours=0, **settings)["linear"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = make_demo_scenes(tmp_path_factory.mktemp("probe") / "demo", {"train": 6, "val": 3}, SIZE)
    return open_labelled_set(root, "train"), open_labelled_set(root, "val")


class Stages(nn.Module):
    """Four stage maps at strides 2, 4, 8, 16."""

    def __init__(self):
        super().__init__()
        widths = (3, 4, 6, 8, 10)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)
        )
        self.calls = 0

    def forward(self, images):
        self.calls += len(images)
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return tuple(maps)


class Oracle(nn.Module):
    """Sees the label: the photos of the fixture below carry it in the red channel."""

    def forward(self, images):
        red = (images[:, :1] * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255
        return (F.one_hot((red / 50).round().long().squeeze(1), 4).permute(0, 3, 1, 2).float()[:, :, ::2, ::2],)


def test_batches_are_normalised_photos_with_their_masks(data):
    train, _ = data
    images, masks = next(labelled_batches(train, to_size(24, 32), 4))
    assert images.shape == (4, 3, 24, 32)
    assert [mask.shape for mask in masks] == [(48, 64)] * 4
    pixels = torch.tensor(train.read(1).image).float().permute(2, 0, 1) / 255
    small = F.avg_pool2d(pixels, 2)
    expected = (small - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    torch.testing.assert_close(images[1], expected, atol=0.02, rtol=0)
    assert [len(masks) for _, masks in labelled_batches(train, to_size(24, 32), 4)] == [4, 2]


def test_a_batch_ends_where_the_size_changes(data):
    sizes = iter([(8, 8), (8, 8), (8, 16), (8, 8), (8, 8), (8, 8)])
    batches = [images.shape for images, _ in labelled_batches(data[0], lambda *_: next(sizes), 2)]
    assert [(b, w) for b, _, _, w in batches] == [(2, 8), (1, 16), (2, 8), (1, 8)]


def test_short_side_keeps_the_shape():
    assert to_short_side(320)(480, 640) == (320, 427)
    assert to_short_side(100)(640, 480) == (133, 100)


def test_stages_stand_side_by_side_on_the_finest_grid():
    backbone = Stages().eval()
    images = torch.randn(2, 3, 32, 48)
    maps = backbone(images)
    joined = stage_features(backbone, images, (-2, -1))
    assert joined.shape == (2, 18, 4, 6)
    torch.testing.assert_close(joined[:, :8], maps[2])
    torch.testing.assert_close(joined[:, 8:], F.interpolate(maps[3], (4, 6), mode="bilinear", align_corners=False))
    torch.testing.assert_close(stage_features(backbone, images, (1,)), maps[1])
    with pytest.raises(ValueError, match=r"has 4 \(0 to 3\), got \[4\]"):
        stage_features(backbone, images, (4,))
    with pytest.raises(ValueError, match="Identity: expected a tuple of stage maps"):
        stage_features(nn.Identity(), images, (0,))


def test_standardise():
    features = torch.randn(5, 3, 4, 4) * torch.tensor([1.0, 20.0, 0.0])[:, None, None] + 7
    kept = features.clone()
    mean, std = probe_module.standardise_(features)
    torch.testing.assert_close(features[:, :2].mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(features[:, :2].std((0, 2, 3), correction=0), torch.ones(2))
    assert (features[:, 2] == 0).all(), "a constant channel stays silent"
    torch.testing.assert_close((kept - mean) / std, features)


def test_an_oracle_backbone_is_read_out_fully_and_chance_is_chance(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        for k in range(4):
            label = np.kron(rng.integers(0, 4, (4, 4)), np.ones((4, 4), int)).astype(np.uint8)
            photo = np.stack([label * 50, *rng.integers(0, 255, (2, 16, 16))], -1).astype(np.uint8)
            probe_image(tmp_path / "images" / split / f"{k}.png", photo)
            probe_image(tmp_path / "annotations" / split / f"{k}.png", label)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    train, test = (open_labelled_set(tmp_path, split) for split in ("train", "val"))
    settings = dict(input_size=(16, 16), stages=(0,), batch_size=2, epochs=40, learning_rate=0.05)
    results = probe_backbone(Oracle(), train, test, neighbours=3, **settings)
    for probe in ("linear", "knn"):
        assert results[probe].miou[0] > 99, probe

    class Blind(nn.Module):
        def forward(self, images):
            return (images.new_zeros(len(images), 4, 8, 8),)

    blind = linear_probe(Blind(), train, test, **settings)
    assert blind.pixel_accuracy[0] < 50
    assert np.count_nonzero(np.nan_to_num(blind.scores[0].iou)) == 1, "one class for all"


def probe_image(path, array):
    from PIL import Image

    Image.fromarray(array).save(path)


def test_heads_repeat_by_seed_and_features_are_computed_once(data):
    torch.manual_seed(0)
    backbone = Stages()
    settings = dict(input_size=(32, 32), epochs=2, batch_size=4)
    first = probe_backbone(backbone, *data, seeds=(0, 1), neighbours=5, **settings)
    assert backbone.calls == 6 + 3
    again = linear_probe(backbone, *data, seeds=(1, 0), **settings)
    assert first["linear"].scores[0].miou == again.scores[1].miou
    assert first["linear"].scores[1].pixel_accuracy == again.scores[0].pixel_accuracy
    assert again.miou[1] == pytest.approx(abs(again.scores[0].miou - again.scores[1].miou))
    assert "2 heads, spread" in str(again)
    assert "heads" not in str(first["knn"])


def test_the_backbone_does_not_change(data):
    backbone = Stages()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    linear_probe(backbone, *data, input_size=(32, 32), epochs=1, seeds=(0,))
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_neighbours_against_naive_code():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 5, 2, 2, generator=generator)
    labels = torch.randint(0, 3, (3, 2, 2), generator=generator)
    labels[0, 0, 0] = IGNORE
    bank = probe_module.NeighbourBank(features, labels, 3, neighbours=4, bank_size=100, device="cpu")
    query = torch.randn(2, 5, 2, 3, generator=generator)
    got = bank(query)
    points = [
        (features[n, :, i, j], int(labels[n, i, j]))
        for n in range(3) for i in range(2) for j in range(2) if labels[n, i, j] != IGNORE
    ]  # fmt: skip
    assert len(bank.vectors) == len(points) == 11
    for b in range(2):
        for i in range(2):
            for j in range(3):
                near = sorted(
                    ((float(F.cosine_similarity(query[b, :, i, j], v, 0)), name) for v, name in points), reverse=True
                )[:4]
                weights = np.exp([cosine / 0.07 for cosine, _ in near])
                votes = np.bincount([name for _, name in near], weights, minlength=3) / weights.sum()
                np.testing.assert_allclose(got[b, :, i, j].numpy(), votes, atol=1e-4)


def test_bank_takes_as_many_from_each_photo_and_never_an_ignored_place():
    labels = torch.full((4, 6, 6), IGNORE)
    labels[0], labels[1, 0, :2], labels[2] = 0, 1, 2
    features = labels[:, None].float() + 1
    bank = probe_module.NeighbourBank(features, labels, 3, 5, bank_size=20, device="cpu")
    assert bank.votes.sum(0).tolist() == [5, 2, 5]
    with pytest.raises(ValueError, match="no labelled position"):
        probe_module.NeighbourBank(features[3:], labels[3:], 3, 5, 20, "cpu")


def test_positions_of_many_photos_are_from_all_over_them():
    """More photos than the bank has places: one of each, and not always the first."""
    labels = torch.arange(40)[:, None, None].expand(40, 5, 8) % 3
    places = torch.arange(40.0).reshape(1, 1, 5, 8).expand(40, 1, 5, 8)
    features = torch.cat([places.cos(), places.sin()], 1)
    bank = probe_module.NeighbourBank(features, labels, 3, 5, bank_size=20, device="cpu")
    assert len(bank.vectors) == 40
    assert len(torch.unique(bank.vectors, dim=0)) > 25
    whole = probe_module.NeighbourBank(features[:2], labels[:2], 3, 5, bank_size=1000, device="cpu")
    assert len(torch.unique(whole.vectors[:40], dim=0)) == 40


def test_layers_whose_statistics_otherwise_stay_are_set_too(data):
    train, _ = data
    backbone = Stages()
    first = backbone.stages[0][1]
    backbone.train = lambda mode=True: backbone  # as norm_eval: they stay in eval mode
    for module in backbone.modules():
        module.training = False
    calibrate_batch_norm(backbone, [photo for photo, _ in train.items], (24, 32), batch_size=2)
    assert first.num_batches_tracked == 3
    assert not first.running_mean.eq(0).all()
    assert not first.training


def test_a_batch_without_labels_does_not_poison_the_head():
    features = torch.randn(2, 3, 2, 2)
    labels = torch.full((2, 2, 2), IGNORE)
    labels[1] = 1
    head = probe_module.fit_head(features, labels, 2, epochs=3, learning_rate=0.1, batch_size=1, seed=0, device="cpu")
    assert torch.isfinite(head.weight).all()


def test_bn_calibration_sets_the_mean_of_the_batches(data):
    train, _ = data
    backbone = Stages().eval()
    photos = [photo for photo, _ in train.items]
    first = backbone.stages[0]
    first[1].running_mean += 5
    calibrate_batch_norm(backbone, photos, (24, 32), batch_size=2)
    means = [first[0](images).mean((0, 2, 3)) for images, _ in labelled_batches(train, to_size(24, 32), 2)]
    torch.testing.assert_close(first[1].running_mean, torch.stack(means).mean(0))
    assert not backbone.training
    assert first[1].momentum == 0.1
    with pytest.raises(ValueError, match="got 0 and 4"):
        calibrate_batch_norm(backbone, [], (24, 32))
    with pytest.raises(ValueError, match="got 6 and 0"):
        calibrate_batch_norm(nn.Identity(), photos, (24, 32))


def test_training_masks_of_one_class_are_refused(data):
    train, test = data
    table = np.full(256, IGNORE, np.int16)
    table[0] = 0
    with pytest.raises(ValueError, match=rf"train, at .* a photo: .*one class only \({train.classes[0]}; 255 is ign"):
        linear_probe(Stages(), replace(train, table=table), test, input_size=(32, 32))


def test_of_maps_that_are_too_small_for_the_masks_not_the_masks_are_blamed(data):
    train = data[0].subset(1)  # one place: one class, whatever the mask holds
    assert len(train.check()) > 1
    with pytest.raises(UserError, match=r"input_size: photos of 5x7 have maps of 1x1 places, .*one class only"):
        linear_probe(Stages(), train, data[1], input_size=(5, 7))


def test_different_classes_are_refused(data):
    with pytest.raises(ValueError, match="expected the same classes"):
        linear_probe(Stages(), data[0], replace(data[1], classes=("x",)))
