"""Figures of a segmentation, from a table of counts. Pure: numpy and scipy, no files, no models.

Everywhere: `counts` is an int64 table (K, C), rows = predicted clusters or classes, columns = true classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from slotcon_plugin.errors import UserError

IGNORE = 255
_TRIES = 10  # of k-means, each from another start


class SegmentationScores(NamedTuple):
    """Scores in percent; a class that occurs neither in the truth nor in the prediction has IoU NaN and no vote.

    Attributes:
        miou: mean of `iou` over the classes that occur.
        pixel_accuracy: share of the labelled pixels that are right.
        iou: (C,) float64.
    """

    miou: float
    pixel_accuracy: float
    iou: np.ndarray


def confusion_counts(predicted: np.ndarray, label: np.ndarray, num_predicted: int, num_classes: int) -> np.ndarray:
    """Count pixels by (predicted, true) index.

    Args:
        predicted: integers in [0, num_predicted), any shape.
        label: integers in [0, num_classes) or `IGNORE`, the same shape; ignored pixels are not counted.

    Returns:
        (num_predicted, num_classes) int64.

    Raises:
        ValueError: the shapes differ or an index is outside its range.
    """
    if predicted.shape != label.shape:
        raise ValueError(f"predicted and label: expected the same shape, got {predicted.shape} and {label.shape}")
    counted = label != IGNORE
    row, column = predicted[counted].astype(np.int64), label[counted].astype(np.int64)
    for name, values, size in (("predicted", row, num_predicted), ("label", column, num_classes)):
        if values.size and not 0 <= values.min() <= values.max() < size:
            raise ValueError(f"{name}: expected indices 0 to {size - 1}, got {values.min()} to {values.max()}")
    return np.bincount(row * num_classes + column, minlength=num_predicted * num_classes).reshape(
        num_predicted, num_classes
    )


def match_hungarian(counts: np.ndarray) -> np.ndarray:
    """One-to-one matching of clusters to classes that gets most pixels right.

    Args:
        counts: (K, C), K and C may differ.

    Returns:
        (K,) int64, the class of each cluster; -1 for the K - C clusters left over when K > C.
    """
    rows, columns = linear_sum_assignment(counts, maximize=True)
    match = np.full(counts.shape[0], -1)
    match[rows] = columns
    return match


def match_majority(counts: np.ndarray) -> np.ndarray:
    """Many-to-one matching: every cluster takes the class that most of its pixels have.

    Knows the labels of more clusters than there are classes, so its figures only compare at equal K.

    Returns:
        (K,) int64; -1 for a cluster without pixels.
    """
    return np.where(counts.sum(1) > 0, counts.argmax(1), -1)


def merge_clusters(counts: np.ndarray, match: np.ndarray) -> np.ndarray:
    """Table of clusters -> table of classes.

    Args:
        counts: (K, C).
        match: (K,) class of each cluster or -1.

    Returns:
        (C + 1, C): row c = predicted as class c; the last row = pixels of unmatched clusters, right for no class.
    """
    num_classes = counts.shape[1]
    merged = np.zeros((num_classes + 1, num_classes), np.int64)
    np.add.at(merged, np.where(match < 0, num_classes, match), counts)
    return merged


def segmentation_scores(counts: np.ndarray) -> SegmentationScores:
    """IoU and pixel accuracy from a table of classes: IoU_c = n_cc / (predicted_c + true_c - n_cc).

    Args:
        counts: (C, C), or (C + 1, C) with a last row of pixels that were given no class (as `merge_clusters` returns).

    Raises:
        UserError: there is no labelled pixel at all.
    """
    rows, num_classes = counts.shape
    if rows not in (num_classes, num_classes + 1):
        raise ValueError(f"counts: expected a table (C, C) or (C + 1, C), got {counts.shape}")
    if counts.sum() == 0:
        raise UserError("no labelled pixel: every pixel of every mask is ignored")
    right = np.diag(counts[:num_classes]).astype(np.float64)
    true, predicted = counts.sum(0), counts[:num_classes].sum(1)
    union = true + predicted - right
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(union > 0, 100 * right / union, np.nan)
    accuracy = 100 * float(right.sum()) / float(counts.sum())
    return SegmentationScores(float(np.nanmean(iou)), accuracy, iou)


def spherical_kmeans(points: np.ndarray, num_clusters: int, seed: int = 0) -> np.ndarray:
    """k-means by cosine similarity (Dhillon & Modha 2001), started as k-means++; the best of ten tries.

    Args:
        points: (N, D), not all zero. A point's length is its weight: the sum of many unit vectors that are to stay
            together counts as all of them.
        num_clusters: C, 1 to N.
        seed: of the starts; the try with the largest weighted sum of cosines wins.

    Returns:
        (N,) int64, the cluster of each point; every cluster has at least one.

    Raises:
        ValueError: `num_clusters` is not within 1 to N.
    """
    if not 1 <= num_clusters <= len(points):
        raise ValueError(f"num_clusters: expected 1 to the number of points, {len(points)}, got {num_clusters}")
    weights = np.linalg.norm(points, axis=1)
    unit = points / np.maximum(weights, 1e-12)[:, None]
    rng = np.random.default_rng(seed)
    best, best_sum = np.zeros(len(unit), np.int64), -np.inf
    for _ in range(_TRIES):
        centres = _spread_start(unit, weights, num_clusters, rng)
        assigned = np.full(len(unit), -1)
        for _ in range(100):
            cosine = unit @ centres.T  # (N, C)
            new = cosine.argmax(1)
            for empty in np.setdiff1d(np.arange(num_clusters), new):  # takes the point that fits its cluster worst
                crowded = np.bincount(new, minlength=num_clusters)[new] > 1
                new[np.where(crowded, cosine[np.arange(len(unit)), new], np.inf).argmin()] = empty
            if (new == assigned).all():
                break
            assigned = new
            sums = np.zeros_like(centres)
            np.add.at(sums, assigned, points)
            centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        total = float((points * centres[assigned]).sum())
        if total > best_sum:
            best, best_sum = assigned, total
    return best


def _spread_start(unit: np.ndarray, weights: np.ndarray, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: the first centre is drawn by weight, each further by weight times 1 - cosine to the nearest so far."""
    centres = []
    distance = np.ones(len(unit))
    while len(centres) < num_clusters:
        share = weights * distance
        total = share.sum()
        chance = share / total if total > 1e-9 * weights.sum() else np.full(len(unit), 1 / len(unit))
        centres.append(unit[rng.choice(len(unit), p=chance)])
        distance = np.clip(1 - (unit @ np.stack(centres).T).max(1), 0, None)
    return np.stack(centres)
