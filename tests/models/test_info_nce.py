import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slotcon_plugin.models.losses import contrast_figures, info_nce, info_nce_loss, nearest_keys


def naive_loss(queries, positives, negatives, excluded, tau, decoupled=False):
    """InfoNCE, term by term; decoupled without the positive in the denominator."""

    def cos(a, b):
        return (a @ b / (a.norm() * b.norm())).item()

    total = 0.0
    for b in range(len(queries)):
        for p in range(queries.shape[1]):
            positive = math.exp(cos(queries[b, p], positives[b, p]) / tau)
            others = [
                math.exp(cos(queries[b, p], negatives[m]) / tau) for m in range(len(negatives)) if not excluded[b, m]
            ]
            total -= math.log(positive / (sum(others) + (0 if decoupled else positive)))
    return total / (len(queries) * queries.shape[1])


@pytest.fixture
def batch():
    queries, positives, negatives = torch.randn(3, 4, 5), torch.randn(3, 4, 5), torch.randn(7, 5)
    return queries, positives, negatives, torch.rand(3, 7) < 0.4


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_equals_the_equation(batch, tau, decoupled):
    loss = info_nce_loss(*batch, tau, decoupled)
    assert loss.item() == pytest.approx(naive_loss(*batch, tau, decoupled), rel=1e-5)


def test_by_hand():
    """One query at 60 degrees of its positive, one negative at 90: -log(e^.5 / (e^.5 + 1)) at tau 1."""
    query = torch.tensor([[[2.0, 0.0]]])
    positive = torch.tensor([[[0.5, math.sqrt(0.75)]]])
    contrast = (query, positive, torch.tensor([[0.0, -3.0]]))
    assert info_nce_loss(*contrast, temperature=1.0).item() == pytest.approx(math.log(1 + math.exp(-0.5)))


@pytest.mark.parametrize("decoupled", [False, True])
def test_all_negatives_excluded_is_no_loss_and_a_finite_gradient(batch, decoupled):
    queries, positives, negatives, excluded = batch
    queries.requires_grad_()
    loss = info_nce_loss(queries, positives, negatives, torch.ones_like(excluded), decoupled=decoupled)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(queries.grad, torch.zeros_like(queries))


def test_gradient_reaches_queries_alone_and_equals_finite_differences(batch):
    queries, positives, negatives, excluded = (x.double() if x.is_floating_point() else x for x in batch)
    for x in (queries, positives, negatives):
        x.requires_grad_()
    info_nce_loss(queries, positives, negatives, excluded, 0.5).backward()
    assert positives.grad is None
    assert negatives.grad is None
    step = torch.zeros_like(queries)
    step[1, 2, 3] = 1e-2
    with torch.no_grad():
        up, down = (info_nce_loss(queries + s, positives, negatives, excluded, 0.5) for s in (step, -step))
    assert queries.grad[1, 2, 3].item() == pytest.approx((up - down).item() / 2e-2, rel=1e-2)


def test_computed_in_float32_under_autocast(batch):
    expected = info_nce_loss(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce_loss(*batch)
    assert loss.dtype is torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize(
    ("positives", "negatives", "excluded"),
    [((3, 5, 5), (7, 5), (3, 7)), ((3, 4, 5), (7, 6), (3, 7)), ((3, 4, 5), (7, 5), (4, 7))],
)
def test_shapes_are_checked(positives, negatives, excluded):
    with pytest.raises(ValueError, match="InfoNCE: want"):
        info_nce_loss(
            torch.randn(3, 4, 5), torch.randn(positives), torch.randn(negatives), torch.zeros(excluded).bool()
        )


def plain_loss(queries, positives, negatives, excluded, tau):
    """All similarities at once, as autograd differentiates them."""
    query, positive, negative = (F.normalize(x, dim=-1) for x in (queries, positives, negatives))
    of_negatives = torch.einsum("bpd,md->bpm", query, negative).masked_fill(excluded[:, None], -torch.inf)
    logits = torch.cat([(query * positive).sum(-1, keepdim=True), of_negatives], dim=-1) / tau
    return F.cross_entropy(logits.flatten(0, 1), torch.zeros(query[..., 0].numel(), dtype=torch.int64))


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest result of an operation has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
        return out


@pytest.mark.parametrize("block", [1, 40, 90, 2**24])
def test_blocks_give_loss_and_gradient_of_the_whole_in_little_memory(monkeypatch, block):
    """Sizes at which blocks end within an image and with a rest."""
    monkeypatch.setattr(info_nce, "_BLOCK", block)
    queries, positives, negatives = torch.randn(3, 7, 4), torch.randn(3, 7, 4), torch.randn(40, 4)
    excluded = torch.rand(3, 40) < 0.3
    excluded[1] = True  # an image without any negative
    plain = queries.clone().requires_grad_()
    want = plain_loss(plain, positives, negatives, excluded, 0.1)
    want.backward()
    queries.requires_grad_()
    with LargestTensor() as largest:
        loss = info_nce_loss(queries, positives, negatives, excluded, 0.1)
        (3 * loss).backward()
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(queries.grad, 3 * plain.grad)
    assert largest.numbers == max(3 * 40, 40 * 4, 40 * (21 if block == 2**24 else max(1, block // 40)))
    figures = contrast_figures(queries, positives, negatives, excluded)
    monkeypatch.undo()
    for name, value in contrast_figures(queries, positives, negatives, excluded).items():
        torch.testing.assert_close(figures[name], value)


def test_nearest_keys(monkeypatch):
    monkeypatch.setattr(info_nce, "_BLOCK", 25)
    queries, keys = torch.randn(2, 3, 4), torch.randn(11, 4)
    nearest = nearest_keys(queries, keys)
    for b in range(2):
        for p in range(3):
            assert nearest[b, p] == F.cosine_similarity(queries[b, p, None], keys).argmax()


def test_figures_by_hand():
    """Two queries of cosine .5 and .2 to their keys; the second image has the negative of .6 excluded."""

    def at(cosine):
        return [cosine, math.sqrt(1 - cosine**2)]

    queries = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    positives, negatives = torch.tensor([[at(0.5)], [at(0.2)]]), torch.tensor([at(0.6), at(-0.6), at(0.1)])
    figures = contrast_figures(queries, positives, negatives, torch.tensor([[False] * 3, [True, False, False]]))
    assert figures["contrast_accuracy"].item() == 0.5
    assert figures["positive_similarity"].item() == pytest.approx(0.35)
    assert figures["negative_similarity"].item() == pytest.approx(-0.4 / 5)
