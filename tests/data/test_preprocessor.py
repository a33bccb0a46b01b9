"""The batch that a pretrainer gets."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils.data import default_collate

from slotcon_plugin.data import ImageFolder, TwoViewDataset, TwoViewPreprocessor
from slotcon_plugin.data.photometric import NEUTRAL, apply_photometric
from slotcon_plugin.registry import MODELS

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def batch(folder):
    dataset = TwoViewDataset(ImageFolder(folder), view_size=24)
    return default_collate([dataset[index] for index in range(5)])


def test_samples_that_nothing_happens_to_are_the_normalised_crops(batch):
    batch["photometric"][:] = torch.tensor(NEUTRAL)
    out = MODELS.build(dict(type="slotcon_plugin.TwoViewPreprocessor"))(batch, True)["inputs"]
    for view in range(2):
        expected = (batch["views"][:, view] / 255 - MEAN[:, None, None]) / STD[:, None, None]
        torch.testing.assert_close(out.views[view], expected, atol=1e-6, rtol=0)
    for name in ("crop_boxes", "flipped", "sample_index"):
        assert torch.equal(getattr(out, name), batch[name])


def test_each_view_of_each_sample_gets_its_own_parameters(batch):
    before = {name: value.clone() for name, value in batch.items()}
    out = TwoViewPreprocessor()(batch, True)["inputs"]
    for view in range(2):
        for n in range(5):
            pixels = apply_photometric(batch["views"][n, view][None] / 255, batch["photometric"][n, view][None])[0]
            expected = (pixels - MEAN[:, None, None]) / STD[:, None, None]
            torch.testing.assert_close(out.views[view][n], expected, atol=2e-5, rtol=0)
    assert all(torch.equal(batch[name], before[name]) for name in batch)


def test_memory_format(batch):
    assert all(view.is_contiguous() for view in TwoViewPreprocessor()(batch)["inputs"].views)
    out = TwoViewPreprocessor(channels_last=True)(batch)["inputs"]
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in out.views)
    torch.testing.assert_close(out.views[1], TwoViewPreprocessor()(batch)["inputs"].views[1], rtol=0, atol=1e-6)


def test_wrong_input_is_told(batch):
    with pytest.raises(ValueError, match="default_collate"):
        TwoViewPreprocessor()(dict(batch, views=batch["views"][:, 0]))
    with pytest.raises(ValueError, match="divide them by 255"):
        TwoViewPreprocessor(mean=(123.675, 116.28, 103.53))


def test_it_says_what_the_network_is_fed():
    """The numbers of a detector's config, which normalises pixels in 0..255."""
    assert TwoViewPreprocessor().input_convention == {
        "colour_order": "RGB",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
    }


def test_nothing_of_it_is_saved_in_checkpoints():
    assert TwoViewPreprocessor().state_dict() == {}


def test_nothing_is_read_back_from_the_device(batch, monkeypatch):
    """The meta device has no values to read, so every wait for a result would raise there."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    out = TwoViewPreprocessor().to("meta")(batch, True)["inputs"]
    assert [view.shape for view in out.views] == [(5, 3, 24, 24)] * 2
    assert out.views[0].device.type == "meta"
