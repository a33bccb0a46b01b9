"""The profile measures what it says: both arms run, the stages add up, the plain arm makes the same kind of views."""

import pytest
import torch

from slotcon_plugin.data import ImageFolder, SampleKey, TwoViewDataset
from slotcon_plugin.profiling.pipeline import plain_sample, profile_pipeline, write_resized
from tests.processes import run_python


def test_figures_of_all_arms_and_stages(folder):
    timings = profile_pipeline(TwoViewDataset(ImageFolder(folder), view_size=16), rounds=2, batch_size=4, max_photos=8)
    assert len(timings.worker) == len(timings.plain) == len(timings.photometric) == 2
    assert min(timings.worker + timings.plain + timings.photometric) > 0
    assert all(len(seconds) == 2 for seconds in timings.stages.values())
    for number, worker in enumerate(timings.worker):
        assert sum(seconds[number] for seconds in timings.stages.values()) == pytest.approx(worker)
    report = timings.report()
    assert all(stage in report for stage in ("read the file", "decode", "crop and resize", "collate"))


def test_without_colour_the_plain_arm_makes_our_views(folder):
    """Same draws, so the same crops, none reduced at this size; the two round differently by a level of 255."""
    still = dict(jitter_prob=0, grey_prob=0, blur_prob=0)
    dataset = TwoViewDataset(ImageFolder(folder), view_size=48, photometric=[still] * 2, flip_prob=0)
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for index in range(12):
        plain = plain_sample(dataset, SampleKey(0, 0, index))
        ours = (dataset[SampleKey(0, 0, index)]["views"] / 255 - mean) / std
        difference = (torch.stack(plain) - ours) * std * 255
        assert difference.abs().mean() < 0.6


def test_resized_copies_have_the_size(folder, tmp_path):
    source = ImageFolder(folder)
    out = tmp_path / "copies"
    out.mkdir()
    write_resized([source.path(index) for index in range(3)], out, (64, 48), quality=90)
    dataset = TwoViewDataset(ImageFolder(out), view_size=8, scale=(1, 1), ratio=(4 / 3, 4 / 3))
    assert dataset[0]["crop_boxes"].tolist() == [[0, 0, 64, 48]] * 2


def test_the_tool_prints_a_table(folder, repo):
    options = ["--view-size", "16", "--rounds", "1", "--photos", "4", "--resize-to", "64x48"]
    done = run_python("tools/benchmark_pipeline.py", folder, *options, cwd=repo)
    assert done.returncode == 0, done.stderr
    assert "plain: all of it with Pillow" in done.stdout
    assert "4 photos" in done.stdout
