"""Linear segmentation probe: how well do frozen features name what is at a place?

One 1x1 convolution (a linear classifier) on standardised features; everything below it stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slotcon_plugin.evaluation.features import labelled_batches, stage_features
from slotcon_plugin.evaluation.labelled_set import LabelledSet, resize_label
from slotcon_plugin.evaluation.metrics import IGNORE, SegmentationScores, confusion_counts, segmentation_scores


@dataclass
class ProbeResult:
    """Scores of one probe, one entry for each head (seed).

    Attributes:
        scores: test scores, one a seed.
        classes: names, in the order of `SegmentationScores.iou`.
        wall_time_s: features, heads and test together.
    """

    scores: list[SegmentationScores]
    classes: tuple[str, ...]
    wall_time_s: float = field(default=0.0)

    @property
    def miou(self) -> tuple[float, float]:
        """Mean and spread (largest minus smallest) over the seeds, percent."""
        return _mean_and_spread([score.miou for score in self.scores])

    @property
    def pixel_accuracy(self) -> tuple[float, float]:
        """Mean and spread (largest minus smallest) over the seeds, percent."""
        return _mean_and_spread([score.pixel_accuracy for score in self.scores])

    def __str__(self) -> str:
        (miou, spread), (accuracy, accuracy_spread) = self.miou, self.pixel_accuracy
        heads = (
            f"{len(self.scores)} head{'s' if len(self.scores) > 1 else ''}, spread {spread:.1f} / {accuracy_spread:.1f}"
        )
        return f"{miou:.1f} mIoU / {accuracy:.1f} pixel accuracy ({heads}, {self.wall_time_s:.0f} s)"


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.ptp(values))


@torch.no_grad()
def linear_probe(
    backbone: nn.Module,
    train: LabelledSet,
    test: LabelledSet,
    *,
    input_size: tuple[int, int] = (240, 320),
    stages: Sequence[int] = (-2, -1),
    epochs: int = 15,
    learning_rate: float = 2e-3,
    batch_size: int = 16,
    seeds: Sequence[int] = (0, 1),
    device: str | torch.device = "cpu",
) -> ProbeResult:
    """Fit a linear head on the frozen features of `train`, score it on `test`.

    Features are computed once, whatever the number of seeds; those of `test` are never stored. The score is taken at
    the size of the masks, the logits being upsampled bilinearly.

    Args:
        backbone: (B, 3, H, W) normalised photos -> tuple of stage maps; put into eval mode, otherwise not changed.
        input_size: (height, width) to which photos are resized.
        stages: stage maps that are put side by side.
        epochs, learning_rate, batch_size: of the head (AdamW).
        seeds: one head each (initialisation and order of the photos).
        device: where backbone and heads run.

    Raises:
        ValueError: the two sets have different classes, or see `LabelledSet.read` and `stage_features`.
    """
    if train.classes != test.classes:
        raise ValueError(f"expected the same classes, got {train.name}: {train.classes}, {test.name}: {test.classes}")
    start = time.perf_counter()
    backbone.eval().to(device)
    features, labels = gather_features(backbone, train, input_size, stages, batch_size, device)
    mean, std = standardise_(features)
    heads = [
        fit_head(features, labels, len(train.classes), epochs, learning_rate, batch_size, seed, device)
        for seed in seeds
    ]
    del features
    counts = [np.zeros((len(test.classes),) * 2, np.int64) for _ in heads]
    for images, masks in labelled_batches(test, input_size, batch_size):
        maps = (stage_features(backbone, images.to(device), stages) - mean) / std
        for head, table in zip(heads, counts):
            add_counts(table, head(maps), masks)
    scores = [segmentation_scores(table) for table in counts]
    return ProbeResult(scores, test.classes, time.perf_counter() - start)


def gather_features(
    backbone: nn.Module,
    data: LabelledSet,
    input_size: tuple[int, int],
    stages: Sequence[int],
    batch_size: int,
    device: str | torch.device,
    label_scale: int = 4,
) -> tuple[Tensor, Tensor]:
    """Features and labels of a whole set, in memory on the CPU.

    Args:
        label_scale: labels are kept on a grid `label_scale` times as fine as the features (nearest pixel).

    Returns:
        (N, C, h, w) float32 and (N, label_scale * h, label_scale * w) int64.
    """
    all_maps, all_labels = [], []
    for images, masks in labelled_batches(data, input_size, batch_size):
        maps = stage_features(backbone, images.to(device), stages).cpu()
        height, width = (label_scale * side for side in maps.shape[-2:])
        all_maps.append(maps)
        all_labels += [torch.from_numpy(resize_label(mask, height, width)) for mask in masks]
    return torch.cat(all_maps), torch.stack(all_labels).long()


def standardise_(features: Tensor) -> tuple[Tensor, Tensor]:
    """Give every channel of (N, C, h, w) mean 0 and deviation 1, in place; returns what was there, (C, 1, 1) each."""
    mean = features.mean((0, 2, 3), dtype=torch.float64).float()[:, None, None]
    features -= mean
    # a channel that is always the same carries nothing and stays 0
    std = features.square().mean((0, 2, 3), dtype=torch.float64).sqrt().clamp_min(1e-6).float()[:, None, None]
    features /= std
    return mean, std


def fit_head(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    device: str | torch.device,
) -> nn.Conv2d:
    """Train a 1x1 convolution by AdamW on cross-entropy of the upsampled logits.

    Args:
        features: (N, C, h, w), standardised.
        labels: (N, H, W) int64, class index or `IGNORE`.

    Returns:
        The head, without gradients.
    """
    generator = torch.Generator().manual_seed(seed)
    head = nn.Conv2d(features.shape[1], num_classes, 1)
    with torch.no_grad():
        head.weight.normal_(0, 0.01, generator=generator)
        head.bias.zero_()
    head.to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate)
    with torch.enable_grad():
        for _ in range(epochs):
            for chosen in torch.randperm(len(features), generator=generator).split(batch_size):
                logits = head(features[chosen].to(device))
                logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
                loss = F.cross_entropy(logits, labels[chosen].to(device), ignore_index=IGNORE)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return head.requires_grad_(False)


def add_counts(counts: np.ndarray, scores: Tensor, masks: Sequence[np.ndarray]) -> None:
    """Upsample class scores (B, C, h, w) to each mask, take the largest, and add to the table (C, C) in place."""
    for score, mask in zip(scores, masks):
        full = F.interpolate(score[None], mask.shape, mode="bilinear", align_corners=False)
        counts += confusion_counts(full[0].argmax(0).cpu().numpy(), mask, *counts.shape)
