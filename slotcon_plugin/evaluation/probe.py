"""Probes on frozen features: how well do they name what is at a place, with a head as simple as can be?

Linear: one 1x1 convolution on standardised features. k-NN: the labels of the most similar training positions.
Everything below stays as it is, and is run once a photo, however many heads there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.features import (
    INPUT_SIZE,
    add_counts,
    fitting,
    labelled_batches,
    stage_features,
    to_size,
)
from slotcon_plugin.evaluation.labelled_set import LabelledSet, resize_label, too_few_classes
from slotcon_plugin.evaluation.metrics import IGNORE, SegmentationScores, segmentation_scores
from slotcon_plugin.evaluation.readers import with_same_classes

_QUERIES = 4096  # positions compared with the bank at once
_GOLDEN = 0.618034  # multiples of it fill [0, 1) evenly

Classifier = Callable[[Tensor], Tensor]
"""Standardised features (B, C, h, w) -> scores of the classes (B, num_classes, h, w)."""


@dataclass(frozen=True)
class ProbeResult:
    """Scores of one kind of probe, one entry for each head (seed).

    Attributes:
        scores: test scores, one a seed.
        classes: names, in the order of `SegmentationScores.iou`.
        wall_time_s: of the whole probe, features included.
    """

    scores: tuple[SegmentationScores, ...]
    classes: tuple[str, ...]
    wall_time_s: float

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
        heads = len(self.scores)
        spreads = f" ({heads} heads, spread {spread:.1f} / {accuracy_spread:.1f})" if heads > 1 else ""
        return f"{miou:.1f} mIoU / {accuracy:.1f} pixel accuracy{spreads}"


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.ptp(values))


@torch.no_grad()
def probe_backbone(
    backbone: nn.Module,
    train: LabelledSet,
    test: LabelledSet,
    *,
    input_size: tuple[int, int] = INPUT_SIZE,
    stages: Sequence[int] = (-2, -1),
    epochs: int = 15,
    learning_rate: float = 2e-3,
    batch_size: int = 16,
    seeds: Sequence[int] = (0, 1),
    neighbours: int = 20,
    bank_size: int = 20_000,
    device: str | torch.device = "cpu",
) -> dict[str, ProbeResult]:
    """Fit heads on the frozen features of `train`, score them on `test`.

    Features of `test` are never stored, those of `train` are kept in memory as float32. The score is taken at the size
    of the masks, class scores being upsampled bilinearly.

    Args:
        backbone: (B, 3, H, W) normalised photos -> tuple of stage maps; put into eval mode, otherwise not changed.
        input_size: (height, width) to which photos are resized, or the nearest that is of whole patches (of a ViT).
        stages: stage maps that are put side by side on the finest one's grid; negative ones count from the last.
        epochs, learning_rate, batch_size: of the linear heads (AdamW).
        seeds: one linear head each (initialisation and order of the photos).
        neighbours: k of the k-NN probe; 0 leaves it out.
        bank_size: training positions that the k-NN probe looks among, drawn evenly from the photos.
        device: where backbone and heads run.

    Returns:
        "linear" and, unless left out, "knn".

    Raises:
        UserError: the two sets have different classes, `train` holds one class only or shows one only at the places
            of such small maps, or see `LabelledSet.read` and `stage_features`.
    """
    train, test = with_same_classes(train, test)
    start = time.perf_counter()
    backbone.eval().to(device)
    input_size = fitting(input_size, backbone)
    num_classes = len(train.classes)
    features, labels = gather_features(backbone, train, input_size, stages, batch_size, device)
    if len(found := labels[labels != IGNORE].unique().tolist()) < 2:
        raise _one_class_only(train, [train.classes[k] for k in found], labels.shape[1:], input_size)
    mean, std = standardise_(features)
    classifiers: list[Classifier] = [
        fit_head(features, labels, num_classes, epochs, learning_rate, batch_size, seed, device) for seed in seeds
    ]
    if neighbours:
        classifiers.append(NeighbourBank(features, labels, num_classes, neighbours, bank_size, device))
    del features

    mean, std = mean.to(device), std.to(device)
    tables = [np.zeros((num_classes, num_classes), np.int64) for _ in classifiers]
    for images, masks in labelled_batches(test, to_size(*input_size), batch_size):
        maps = (stage_features(backbone, images.to(device), stages) - mean) / std
        for classify, table in zip(classifiers, tables):
            add_counts(table, classify(maps), masks)
    scores = tuple(segmentation_scores(table) for table in tables)
    seconds = time.perf_counter() - start
    results = {"linear": ProbeResult(scores[: len(seeds)], test.classes, seconds)}
    if neighbours:
        results["knn"] = ProbeResult(scores[len(seeds) :], test.classes, seconds)
    return results


def _one_class_only(
    train: LabelledSet, found: Sequence[str], grid: tuple[int, int], input_size: tuple[int, int]
) -> UserError:
    """Why fewer than two classes were found at the places of the maps: no more in the masks, or the maps too small."""
    grid = "{}x{}".format(*grid)
    if len(train.check()) < 2:
        return too_few_classes(f"{train.name}, at {grid} places a photo", found)
    seen, height, width = f"one class only ({found[0]})" if found else "no class", *input_size
    return UserError(
        f"input_size: photos of {height}x{width} have maps of {grid} places, where the masks of {train.name} show "
        f"{seen}; they hold more of them: expected larger photos"
    )


def gather_features(
    backbone: nn.Module,
    data: LabelledSet,
    input_size: tuple[int, int],
    stages: Sequence[int],
    batch_size: int,
    device: str | torch.device,
) -> tuple[Tensor, Tensor]:
    """Features (N, C, h, w) float32 and labels (N, h, w) int64 (nearest pixel) of a whole set, on the CPU."""
    all_maps, all_labels = [], []
    for images, masks in labelled_batches(data, to_size(*input_size), batch_size):
        maps = stage_features(backbone, images.to(device), stages).cpu()
        all_maps.append(maps)
        all_labels += [torch.from_numpy(resize_label(mask, *maps.shape[-2:])) for mask in masks]
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
    """Train a 1x1 convolution by AdamW on cross-entropy at the positions of the features.

    Args:
        features: (N, C, h, w), standardised.
        labels: (N, h, w) int64, class index or `IGNORE`.

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
                target = labels[chosen].to(device)
                if (target == IGNORE).all():
                    continue  # the mean over no position is NaN
                loss = F.cross_entropy(head(features[chosen].to(device)), target, ignore_index=IGNORE)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return head.requires_grad_(False)


class NeighbourBank:
    """k-NN: scores of a position are the votes of its k most similar training positions, weighted exp(cosine / 0.07).

    Args:
        features: (N, C, h, w), standardised.
        labels: (N, h, w) int64, class index or `IGNORE`.
        num_classes, neighbours: neighbours = k.
        bank_size: positions kept, the same number from each photo, evenly spread over its labelled positions; where
            the spread begins differs from photo to photo.
        device: where to look.

    Raises:
        UserError: no labelled position.
    """

    temperature = 0.07

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        neighbours: int,
        bank_size: int,
        device: str | torch.device,
    ) -> None:
        share = max(bank_size // len(features), 1)
        vectors, names = [], []
        for number, (maps, label) in enumerate(zip(features.flatten(2), labels.flatten(1))):  # (C, h*w), (h*w,)
            known = (label != IGNORE).nonzero()[:, 0]
            count = min(share, len(known))
            bins = torch.arange(count, dtype=torch.float64) + number * _GOLDEN % 1
            chosen = known[(bins * len(known) / max(count, 1)).long()]
            vectors.append(maps[:, chosen].T)
            names.append(label[chosen])
        names = torch.cat(names)
        if not len(names):
            raise UserError("k-NN: no labelled position; every pixel of every training mask is ignored")
        self.vectors = F.normalize(torch.cat(vectors), dim=1).to(device)  # (M, C)
        self.votes = F.one_hot(names, num_classes).float().to(device)  # (M, num_classes)
        self.neighbours = min(neighbours, len(names))

    def __call__(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) standardised -> (B, num_classes, h, w), votes that sum to 1."""
        batch, channels, height, width = maps.shape
        queries = F.normalize(maps.permute(0, 2, 3, 1).reshape(-1, channels), dim=1)
        votes = torch.cat([self._vote(part) for part in queries.split(_QUERIES)])
        return votes.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def _vote(self, queries: Tensor) -> Tensor:
        """(N, C) of length 1 -> (N, num_classes)."""
        cosine, nearest = (queries @ self.vectors.T).topk(self.neighbours, dim=1)  # (N, k)
        weight = (cosine / self.temperature).softmax(1)
        return torch.einsum("nk,nkc->nc", weight, self.votes[nearest])
