import math

import pytest
import torch

from slotcon_plugin.models.losses import Similarities, contrast_figures, cosine_similarities, info_nce_loss


def naive_loss(queries, positives, negatives, excluded, tau):
    """InfoNCE, term by term."""

    def cos(a, b):
        return (a @ b / (a.norm() * b.norm())).item()

    total = 0.0
    for b in range(len(queries)):
        for p in range(queries.shape[1]):
            positive = math.exp(cos(queries[b, p], positives[b, p]) / tau)
            others = [
                math.exp(cos(queries[b, p], negatives[m]) / tau) for m in range(len(negatives)) if not excluded[b, m]
            ]
            total -= math.log(positive / (positive + sum(others)))
    return total / (len(queries) * queries.shape[1])


@pytest.fixture
def batch():
    queries, positives, negatives = torch.randn(3, 4, 5), torch.randn(3, 4, 5), torch.randn(7, 5)
    return queries, positives, negatives, torch.rand(3, 7) < 0.4


@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_equals_the_equation(batch, tau):
    loss = info_nce_loss(cosine_similarities(*batch), tau)
    assert loss.item() == pytest.approx(naive_loss(*batch, tau), rel=1e-5)


def test_by_hand():
    """One query at 60 degrees of its positive, one negative at 90: -log(e^.5 / (e^.5 + 1)) at tau 1."""
    query = torch.tensor([[[2.0, 0.0]]])
    positive = torch.tensor([[[0.5, math.sqrt(0.75)]]])
    similarities = cosine_similarities(query, positive, torch.tensor([[0.0, -3.0]]))
    assert similarities.positive.item() == pytest.approx(0.5)
    assert similarities.negative.item() == pytest.approx(0.0)
    assert info_nce_loss(similarities, 1.0).item() == pytest.approx(math.log(1 + math.exp(-0.5)))


def test_all_negatives_excluded_is_no_loss_and_a_finite_gradient(batch):
    queries, positives, negatives, excluded = batch
    queries.requires_grad_()
    loss = info_nce_loss(cosine_similarities(queries, positives, negatives, torch.ones_like(excluded)))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(queries.grad, torch.zeros_like(queries))


def test_gradient_reaches_queries_alone_and_equals_finite_differences(batch):
    queries, positives, negatives, excluded = (x.double() if x.is_floating_point() else x for x in batch)
    for x in (queries, positives, negatives):
        x.requires_grad_()
    info_nce_loss(cosine_similarities(queries, positives, negatives, excluded), 0.5).backward()
    assert positives.grad is None
    assert negatives.grad is None
    step = torch.zeros_like(queries)
    step[1, 2, 3] = 1e-2
    with torch.no_grad():
        up, down = (
            info_nce_loss(cosine_similarities(queries + s, positives, negatives, excluded), 0.5) for s in (step, -step)
        )
    assert queries.grad[1, 2, 3].item() == pytest.approx((up - down).item() / 2e-2, rel=1e-2)


def test_computed_in_float32_under_autocast(batch):
    expected = info_nce_loss(cosine_similarities(*batch))
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce_loss(cosine_similarities(*batch))
    assert loss.dtype is torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize(
    ("positives", "negatives", "excluded"),
    [((3, 5, 5), (7, 5), (3, 7)), ((3, 4, 5), (7, 6), (3, 7)), ((3, 4, 5), (7, 5), (4, 7))],
)
def test_shapes_are_checked(positives, negatives, excluded):
    with pytest.raises(ValueError, match="cosine_similarities: want"):
        cosine_similarities(
            torch.randn(3, 4, 5), torch.randn(positives), torch.randn(negatives), torch.zeros(excluded).bool()
        )


def test_figures_by_hand():
    """Two queries and two negatives; for the second query one negative does not count, and that is the nearest."""
    similarities = Similarities(torch.tensor([[0.5, 0.2]]), torch.tensor([[[0.6, -0.6], [-torch.inf, 0.1]]]))
    figures = contrast_figures(similarities)
    assert figures["contrast_accuracy"].item() == 0.5
    assert figures["positive_similarity"].item() == pytest.approx(0.35)
    assert figures["negative_similarity"].item() == pytest.approx(0.1 / 3)
