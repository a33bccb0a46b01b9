"""Unsupervised segmentation: do the prototypes, learned without labels, coincide with classes?

Every pixel belongs to the prototype whose assignment logit (cosine, upsampled bilinearly) is the largest. One table of
(prototype, class) counts over the whole set holds all that the matchings below need; labels choose nothing but the
names of clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.features import OwnPixels, add_counts, labelled_batches, pixels_of, to_short_side
from slotcon_plugin.evaluation.labelled_set import LabelledSet
from slotcon_plugin.evaluation.metrics import (
    SegmentationScores,
    match_hungarian,
    match_majority,
    merge_clusters,
    segmentation_scores,
    spherical_kmeans,
)
from slotcon_plugin.models.modes import evaluating
from slotcon_plugin.models.timm_backbone import whole_patches

PROTOCOLS = {
    "hungarian": "prototypes matched one-to-one to classes; pixels of prototypes left over are wrong",
    "kmeans": "prototypes first merged to as many clusters as there are classes (k-means on their pixels, no labels)",
    "majority": "every prototype takes its most frequent class; compares only at equal numbers of prototypes",
}


@dataclass(frozen=True)
class UnsupervisedSegmentation:
    """Scores of one model on one set.

    Attributes:
        counts: (K, C) int64, pixels by prototype and true class.
        classes: names of the C classes.
        scores: protocol -> scores.
    """

    counts: np.ndarray
    classes: tuple[str, ...]
    scores: dict[str, SegmentationScores]

    @property
    def live_prototypes(self) -> int:
        """Prototypes that own at least one labelled pixel."""
        return int((self.counts.sum(1) > 0).sum())

    def metrics(self) -> dict[str, float]:
        """Flat figures for a result file or a log, percent."""
        figures = {}
        for protocol, score in self.scores.items():
            figures[f"mIoU_{protocol}"] = score.miou
            figures[f"pixel_accuracy_{protocol}"] = score.pixel_accuracy
        return figures | {"live_prototypes": float(self.live_prototypes)}

    def __str__(self) -> str:
        protocols = [(name, score.miou, score.pixel_accuracy, PROTOCOLS[name]) for name, score in self.scores.items()]
        ious = np.stack([score.iou for score in self.scores.values()], axis=1)  # (C, protocols)
        classes = [(name, *row) for name, row in zip(self.classes, ious) if not np.isnan(row).all()]
        return "\n\n".join(
            [
                f"{self.live_prototypes} of {len(self.counts)} prototypes own pixels; {len(self.classes)} classes",
                tabulate(protocols, ["protocol", "mIoU", "pixel accuracy", ""], floatfmt=".1f"),
                tabulate(classes, ["IoU", *self.scores], floatfmt=".1f", disable_numparse=[0]),
            ]
        )


def score_counts(
    counts: np.ndarray, owned: np.ndarray, classes: tuple[str, ...], seed: int = 0
) -> UnsupervisedSegmentation:
    """All protocols from one table.

    k-means is that of the positions' features, those of one prototype staying together. It sees only the prototypes
    that own a pixel: dead ones would take clusters of their own. With no more live prototypes than classes it changes
    nothing.

    Args:
        counts: (K, C) pixels by prototype and class.
        owned: (K, D) sum of the unit features of all positions that a prototype owns.
        classes: names of the C classes.
        seed: of k-means.
    """
    live = np.flatnonzero(counts.sum(1))
    clusters = spherical_kmeans(owned[live], min(len(classes), len(live)), seed)
    merged = np.zeros((clusters.max() + 1, len(classes)), np.int64)
    np.add.at(merged, clusters, counts[live])
    tables = {
        "hungarian": merge_clusters(counts, match_hungarian(counts)),
        "kmeans": merge_clusters(merged, match_hungarian(merged)),
        "majority": merge_clusters(counts, match_majority(counts)),
    }
    scores = {protocol: segmentation_scores(table) for protocol, table in tables.items()}
    return UnsupervisedSegmentation(counts, classes, scores)


@torch.no_grad()
def segment_unsupervised(
    model: nn.Module,
    data: LabelledSet,
    *,
    branch: str = "teacher",
    short_side: int = 320,
    batch_size: int = 8,
    seed: int = 0,
) -> UnsupervisedSegmentation:
    """Group every photo of a set and score the prototypes against its masks.

    Args:
        model: a pretrainer with prototypes (SlotCon); its mode (training or not) is left as found.
        data: the labelled set.
        branch: "teacher" or "student".
        short_side: photos are resized to this short side in pixels; masks keep their size.
        batch_size: photos at a time.
        seed: of k-means.

    Raises:
        UserError: the model has no prototypes; see also `LabelledSet.read` and `segmentation_scores`.
    """
    prototypes = prototypes_of(model, branch)
    device = prototypes.device
    counts = np.zeros((len(prototypes), len(data.classes)), np.int64)
    # Each prototype starts with one pseudo-position at its own vector, since some own pixels only between positions.
    owned = F.normalize(prototypes.float(), dim=1)
    as_trained = OwnPixels(nn.Identity(), *pixels_of(model)).to(device)
    with evaluating(model):
        for images, masks in labelled_batches(data, to_short_side(short_side, whole_patches(model)), batch_size):
            grouping = model.group(as_trained(images.to(device)), branch)
            add_counts(counts, grouping.assignment_logits, masks)
            features = F.normalize(grouping.z.float(), dim=1).transpose(0, 1).flatten(1).T  # (B*H*W, D)
            owned.index_add_(0, grouping.assignment_logits.argmax(1).flatten(), features)
    if not counts.sum():
        raise UserError(f"{data.name}: every pixel of every mask is ignored")
    return score_counts(counts, owned.cpu().double().numpy(), data.classes, seed)


def prototypes_of(model: nn.Module, branch: str) -> torch.Tensor:
    """Prototypes (K, D) of a branch; UserError for a method that has none."""
    model.require("groups", "unsupervised segmentation")
    return model.prototypes(branch)
