"""Correspondence by similarity, against a loop."""

import torch
import torch.nn.functional as F

from slotcon_plugin.models.correspondence import most_similar_pixels


def test_equals_a_loop_on_maps_of_different_sizes():
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 4, 6)
    matches = most_similar_pixels(first, second)
    assert matches.shape == (2, 12)
    for b in range(2):
        for n in range(12):
            query = first[b, :, n // 4, n % 4]
            similarity = [F.cosine_similarity(query, second[b, :, m // 6, m % 6], dim=0) for m in range(24)]
            assert matches[b, n].item() == max(range(24), key=similarity.__getitem__)


def test_a_shuffled_map_is_unshuffled():
    """Lengths do not matter, places do not matter."""
    torch.manual_seed(0)
    first = torch.randn(1, 16, 4, 4)
    order = torch.randperm(16)
    second = (first.flatten(2)[..., order] * torch.rand(16).add(0.1)).view(1, 16, 4, 4)
    assert order[most_similar_pixels(first, second)[0]].tolist() == list(range(16))


def test_no_gradient_and_the_same_under_autocast():
    torch.manual_seed(0)
    first, second = torch.randn(2, 8, 3, 3, requires_grad=True), torch.randn(2, 8, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        half = most_similar_pixels(first, second)
    assert torch.equal(half, most_similar_pixels(first, second))
    assert not half.requires_grad
