"""How fast photos become views, stage by stage, against the plain pipeline of the papers' code in the same run."""

from __future__ import annotations

import io
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from cProfile import Profile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import transforms

from slotcon_plugin.data.dataset import TwoViewDataset, resize_crop
from slotcon_plugin.data.keys import SampleKey
from slotcon_plugin.data.photometric import PhotometricConfig
from slotcon_plugin.data.preprocessor import TwoViewPreprocessor
from slotcon_plugin.normalization import IMAGENET_MEAN, IMAGENET_STD
from slotcon_plugin.photos import Photo


@dataclass
class Timings:
    """Seconds of one core per image, one figure a round.

    Attributes:
        worker: what a loader's worker does: file to collated uint8 views.
        photometric: colour augmentation and normalisation, on the device.
        plain: the whole plain pipeline.
        stages: of the worker.
    """

    worker: list[float] = field(default_factory=list)
    photometric: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def report(self) -> str:
        """A table for people: median over the rounds, lowest and highest in brackets."""
        arms = {
            "plain: all of it with Pillow": self.plain,
            "ours: a worker (read to collate)": self.worker,
            "ours: a worker + colour on the same core": [a + b for a, b in zip(self.worker, self.photometric)],
        }
        worker = statistics.median(self.worker)
        rows = [
            (
                name,
                _spread([1 / s for s in seconds], 0),
                f"{1e3 * statistics.median(seconds):.2f}",
                _spread([plain / s for plain, s in zip(self.plain, seconds)], 2),
            )
            for name, seconds in arms.items()
        ]
        stages = {name: statistics.median(seconds) for name, seconds in self.stages.items()}
        parts = [(name, f"{1e3 * seconds:.2f}", f"{seconds / worker:.0%}") for name, seconds in stages.items()]
        parts.append(("(colour, on the training device)", f"{1e3 * statistics.median(self.photometric):.2f}"))
        return "\n\n".join(
            tabulate(table, head, colalign=("left", *["right"] * (len(head) - 1)), disable_numparse=True)
            for table, head in (
                (rows, ["arm", "images/s", "ms/image", "x plain"]),
                (parts, ["stage of our worker", "ms/image", "share"]),
            )
        )


def profile_pipeline(
    dataset: TwoViewDataset, rounds: int = 5, batch_size: int = 32, max_photos: int = 256, device: str = "cpu"
) -> Timings:
    """Run both pipelines over the same photos in turn, on one thread.

    Time is CPU time of this process, so that a busy machine disturbs it little; colour on an accelerator is wall time
    of the device.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timings = Timings()
        indices = range(min(max_photos, len(dataset)))
        preprocessor = TwoViewPreprocessor().to(device)
        batch_size = min(batch_size, len(indices))
        # Round -1 warms caches up and is not counted.
        for epoch in range(-1, rounds):
            current = timings if epoch >= 0 else Timings()
            keys = [SampleKey(0, epoch + 1, index) for index in indices]
            _time_ours(dataset, preprocessor, keys, batch_size, current)
            start = time.process_time()
            for key in keys:
                plain_sample(dataset, key)
            current.plain.append((time.process_time() - start) / len(keys))
    finally:
        torch.set_num_threads(threads)
    return timings


def plain_sample(dataset: TwoViewDataset, key: SampleKey) -> list[Tensor]:
    """The two views as the papers' code makes them: full decode, and every step with Pillow, one view at a time."""
    rng = key.rng()
    image = Image.open(io.BytesIO(dataset.source.read(key.index))).convert("RGB")
    size = (dataset.view_size,) * 2
    views = []
    for box, config in zip(dataset.crops.draw(rng, *image.size), dataset.photometric):
        view = image.crop(box).resize(size, Image.Resampling.BICUBIC)
        if rng.random() < dataset.flip_prob:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        views.append(_plain_photometric(view, config, rng))
    return views


def write_resized(paths: list[str], folder: Path, size: tuple[int, int], quality: int) -> None:
    """Copies of photos at ``size`` (width, height), JPEG, landscape."""
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC).save(
                folder / f"{number:05}.jpg", quality=quality
            )


def _time_ours(
    dataset: TwoViewDataset,
    preprocessor: TwoViewPreprocessor,
    keys: list[SampleKey],
    batch_size: int,
    timings: Timings,
) -> None:
    colour = worker = 0.0
    on_gpu = preprocessor.device.type != "cpu"
    clock = time.perf_counter if on_gpu else time.process_time
    # Batch after batch, as a loader does: what is done with is freed and its memory used again.
    batches = [keys[first : first + batch_size] for first in range(0, len(keys), batch_size)]
    for batch_keys in batches:
        start = time.process_time()
        batch = default_collate([dataset[key] for key in batch_keys])
        worker += time.process_time() - start
        start = clock()
        preprocessor(batch, True)
        if on_gpu:
            torch.cuda.synchronize()
        colour += clock() - start
    timings.worker.append(worker / len(keys))
    timings.photometric.append(colour / len(keys))
    for name, share in _stage_shares(dataset, batches).items():
        timings.stages[name].append(share * worker / len(keys))


def _stage_shares(dataset: TwoViewDataset, batches: list[list[SampleKey]]) -> dict[str, float]:
    """Shares of a worker's time, which sum to 1, from a pass of its own: the profiler costs time too."""
    stages: dict[str, list[Callable]] = {
        "read the file": [type(dataset.source).read],
        "decode": [Photo.__init__, Photo.decode],
        "crop and resize": [resize_crop],
        "collate": [default_collate],
    }
    profile = Profile(time.process_time)
    start = time.process_time()
    with profile:
        for keys in batches:
            default_collate([dataset[key] for key in keys])
    total = time.process_time() - start
    seconds = {entry.code: entry.totaltime for entry in profile.getstats()}
    shares = {
        name: sum(seconds.get(function.__code__, 0.0) for function in functions) / total
        for name, functions in stages.items()
    }
    return {**shares, "draw, flip, assemble": 1 - sum(shares.values())}


def _plain_photometric(view: Image.Image, config: PhotometricConfig, rng: np.random.Generator) -> Tensor:
    if rng.random() < config.jitter_prob:
        jitter = transforms.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
        view = jitter(view)
    if rng.random() < config.grey_prob:
        view = transforms.functional.to_grayscale(view, num_output_channels=3)
    if rng.random() < config.blur_prob:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(*config.blur_sigma)))
    if rng.random() < config.solarise_prob:
        view = ImageOps.solarize(view)
    return transforms.functional.normalize(transforms.functional.to_tensor(view), IMAGENET_MEAN, IMAGENET_STD)


def _spread(values: list[float], digits: int) -> str:
    middle, low, high = (f"{x:.{digits}f}" for x in (statistics.median(values), min(values), max(values)))
    return f"{middle} [{low}..{high}]"
