"""How fast photos become views, stage by stage, against the plain pipeline of the papers' code in the same run."""

from __future__ import annotations

import io
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms

from slotcon_plugin.data import dataset as dataset_module
from slotcon_plugin.data.dataset import TwoViewDataset
from slotcon_plugin.data.keys import SampleKey
from slotcon_plugin.data.photo import Photo
from slotcon_plugin.data.photometric import PhotometricConfig
from slotcon_plugin.data.preprocessor import IMAGENET_MEAN, IMAGENET_STD, TwoViewPreprocessor


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
        everything = [worker + colour for worker, colour in zip(self.worker, self.photometric)]
        lines = [f"{'arm':<44}{'images/s':>18}{'ms/image':>10}{'x plain':>20}"]
        for name, seconds in (
            ("plain: all of it with Pillow", self.plain),
            ("ours: a worker (read to collate)", self.worker),
            ("ours: a worker + colour on the same core", everything),
        ):
            rates, ratios = [1 / s for s in seconds], [p / s for p, s in zip(self.plain, seconds)]
            middle = 1e3 * statistics.median(seconds)
            lines.append(f"{name:<44}{_spread(rates, 0):>18}{middle:>10.2f}{_spread(ratios, 2):>20}")
        worker = statistics.median(self.worker)
        lines += ["", f"{'stage of our worker':<44}{'ms/image':>18}{'share':>10}"]
        for name, seconds in self.stages.items():
            middle = statistics.median(seconds)
            lines.append(f"{name:<44}{1e3 * middle:>18.2f}{middle / worker:>10.0%}")
        lines.append(f"{'(colour, on the training device)':<44}{1e3 * statistics.median(self.photometric):>18.2f}")
        return "\n".join(lines)


def benchmark_pipeline(
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
    stages: dict[str, float] = defaultdict(float)
    colour = total = 0.0
    on_gpu = preprocessor.device.type != "cpu"
    clock = time.perf_counter if on_gpu else time.process_time
    with (
        _timed(dataset.source, "read", "read the file", stages),
        _timed(Photo, "__init__", "decode", stages),
        _timed(Photo, "decode", "decode", stages),
        _timed(dataset_module, "resize_crop", "crop and resize", stages),
        _timed(torch.utils.data, "default_collate", "collate", stages),
    ):
        # Batch after batch, as a loader does: what is done with is freed and its memory used again.
        for first in range(0, len(keys), batch_size):
            start = time.process_time()
            batch = torch.utils.data.default_collate([dataset[key] for key in keys[first : first + batch_size]])
            total += time.process_time() - start
            start = clock()
            preprocessor(batch, True)
            if on_gpu:
                torch.cuda.synchronize()
            colour += clock() - start
    stages["draw, flip, assemble"] = total - sum(stages.values())
    for name, seconds in stages.items():
        timings.stages[name].append(seconds / len(keys))
    timings.worker.append(total / len(keys))
    timings.photometric.append(colour / len(keys))


@contextmanager
def _timed(owner: object, name: str, stage: str, stages: dict[str, float]) -> Iterator[None]:
    """Add the time spent in ``owner.name`` to a stage, from outside: the pipeline itself carries no clocks."""
    original = getattr(owner, name)

    def timed(*args: object, **kwargs: object) -> object:
        start = time.process_time()
        try:
            return original(*args, **kwargs)
        finally:
            stages[stage] += time.process_time() - start

    with mock.patch.object(owner, name, timed):
        yield


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
