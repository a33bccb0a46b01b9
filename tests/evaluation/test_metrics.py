from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from slotcon_plugin.evaluation.metrics import (
    IGNORE,
    confusion_counts,
    match_hungarian,
    match_majority,
    merge_clusters,
    segmentation_scores,
    spherical_kmeans,
)


def test_counts_by_hand():
    predicted = np.array([[0, 1, 2], [2, 2, 0]])
    label = np.array([[0, 1, 1], [1, IGNORE, 1]], np.uint8)
    assert confusion_counts(predicted, label, 3, 2).tolist() == [[1, 1], [0, 1], [0, 2]]


def test_scores_by_hand():
    #          true: a  b  c
    table = np.array([[4, 1, 0], [2, 3, 0], [0, 0, 0]])
    scores = segmentation_scores(table)
    np.testing.assert_allclose(scores.iou, [400 / 7, 300 / 6, np.nan])
    assert scores.miou == pytest.approx((400 / 7 + 50) / 2), "class c occurs nowhere and has no vote"
    assert scores.pixel_accuracy == pytest.approx(70)


def test_pixels_of_unmatched_clusters_are_wrong():
    counts = np.array([[5, 0], [0, 3], [2, 2]])
    merged = merge_clusters(counts, np.array([0, 1, -1]))
    assert merged.tolist() == [[5, 0], [0, 3], [2, 2]]
    scores = segmentation_scores(merged)
    np.testing.assert_allclose(scores.iou, [500 / 7, 300 / 5])
    assert scores.pixel_accuracy == pytest.approx(100 * 8 / 12)


def test_matchings_by_hand():
    counts = np.array([[6, 5, 0], [5, 0, 0], [0, 1, 2], [0, 0, 0]])
    assert match_hungarian(counts).tolist() == [1, 0, 2, -1], "6 + 0 + 2 would be fewer right than 5 + 5 + 2"
    assert match_majority(counts).tolist() == [0, 0, 2, -1]
    assert merge_clusters(counts, match_majority(counts)).tolist() == [[11, 5, 0], [0, 0, 0], [0, 1, 2], [0, 0, 0]]
    assert match_hungarian(np.array([[1, 7, 2]])).tolist() == [1], "fewer clusters than classes"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_scores_agree_with_sklearn(seed, num_classes):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, 200)
    predicted = np.where(rng.random(200) < 0.5, label, rng.integers(0, num_classes, 200))
    table = confusion_counts(predicted, label, num_classes, num_classes)
    np.testing.assert_array_equal(table, confusion_matrix(label, predicted, labels=range(num_classes)).T)
    scores = segmentation_scores(table)
    np.testing.assert_allclose(
        scores.iou, 100 * jaccard_score(label, predicted, average=None, labels=range(num_classes))
    )
    assert scores.pixel_accuracy == pytest.approx(100 * accuracy_score(label, predicted))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_hungarian_is_the_best_of_all_matchings(seed, size):
    counts = np.random.default_rng(seed).integers(0, 50, (size, size))
    match = match_hungarian(counts)
    assert sorted(match) == list(range(size))
    best = max(sum(counts[k, c] for k, c in enumerate(order)) for order in permutations(range(size)))
    assert counts[np.arange(size), match].sum() == best


def test_the_names_of_clusters_do_not_matter():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 500)
    renamed = np.array([2, 0, 3, 1])[label]
    counts = confusion_counts(renamed, label, 4, 4)
    assert segmentation_scores(merge_clusters(counts, match_hungarian(counts))).miou == 100


def test_kmeans_finds_directions():
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.standard_normal((6, 6)))[0][:3]
    truth = np.repeat([0, 1, 2], [5, 20, 9])
    points = (centres[truth] + 0.1 * rng.standard_normal((34, 6))) * rng.uniform(0.01, 100, (34, 1))
    found = spherical_kmeans(points, 3)
    counts = confusion_counts(found, truth, 3, 3)
    assert np.count_nonzero(counts) == 3, "one cluster a direction"
    np.testing.assert_array_equal(found, spherical_kmeans(points * 7, 3))


def test_kmeans_reaches_the_best_of_all_partitions():
    points = np.random.default_rng(1).standard_normal((7, 2))

    def objective(assigned):  # sum over clusters of |sum of vectors|: of weight times cosine to the cluster's centre
        return sum(np.linalg.norm(points[assigned == k].sum(0)) for k in (0, 1))

    best = max(objective(np.array([(code >> i) & 1 for i in range(7)])) for code in range(2**7))
    assert objective(spherical_kmeans(points, 2)) == pytest.approx(best)


def test_kmeans_splits_where_the_weight_is():
    """Two heavy directions not far apart, two light ones opposite: by number the light ones would get a cluster."""
    angles = np.radians([0, 30, 175, 185])
    points = np.array([1000, 1000, 0.01, 0.01])[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    heavy, light = (
        spherical_kmeans(points, 2)[:2],
        spherical_kmeans(points / np.linalg.norm(points, axis=1)[:, None], 2),
    )
    assert heavy[0] != heavy[1] and light[0] == light[1] and light[2] == light[3] != light[0]


@pytest.mark.parametrize("num_clusters", [1, 4, 5])
def test_kmeans_leaves_no_cluster_empty_even_for_equal_points(num_clusters):
    points = np.ones((5, 3))
    assert np.unique(spherical_kmeans(points, num_clusters)).tolist() == list(range(num_clusters))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confusion_counts(np.zeros(3, int), np.zeros(4, int), 1, 1), r"\(3,\) and \(4,\)"),
        (
            lambda: confusion_counts(np.array([2]), np.array([0]), 2, 1),
            "predicted: expected indices 0 to 1, got 2 to 2",
        ),
        (lambda: confusion_counts(np.array([0]), np.array([7]), 1, 3), "label: expected indices 0 to 2, got 7 to 7"),
        (lambda: segmentation_scores(np.zeros((2, 2), int)), "no labelled pixel"),
        (lambda: segmentation_scores(np.ones((4, 2), int)), r"got \(4, 2\)"),
        (lambda: spherical_kmeans(np.ones((3, 2)), 4), "expected 1 to the number of points, 3, got 4"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
