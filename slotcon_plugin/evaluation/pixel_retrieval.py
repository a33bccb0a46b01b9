"""How well a dense embedding finds the pixel of another view that shows the same place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.data import DataLoader

from slotcon_plugin.checkpoints.runs import config_of
from slotcon_plugin.config import load_config, settle
from slotcon_plugin.data import TwoViewDataset, TwoViewPreprocessor
from slotcon_plugin.data.keys import SampleKey
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.arms import build_untrained
from slotcon_plugin.evaluation.features import OwnPixels, collecting_statistics, pixels_of
from slotcon_plugin.loading import load_pretrainer
from slotcon_plugin.models import BasePretrainer
from slotcon_plugin.models.losses import nearest_keys
from slotcon_plugin.models.pixel_pairs import pixel_centres, sample_pairs, sample_points, take_pixels
from slotcon_plugin.registry import DATASETS

_BATCH_SIZE = 32
_RADIUS = 0.05  # how far off a place may be and still count as found, as a share of the view's side


@torch.no_grad()
def evaluate_pixel_retrieval(
    embed: Callable[[Tensor], Tensor],
    dataset: TwoViewDataset,
    num_pairs: int = 8,
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, float]:
    """Retrieve pixels across two augmented views of each photo of a dataset.

    Pixels of the first views are looked up (cosine similarity) in two places: among the matching places of the second
    views of ALL photos, one of which is right, and among all pixels of the second view of the SAME photo, where what
    counts is how far from the right place the best one lies.

    Args:
        embed: images ``(B, 3, S, S)`` normalised by ImageNet's statistics -> maps ``(B, D, h, w)``; a network must be
            in evaluation mode.
        dataset: held-out photos; crops, flips and colours are drawn from ``seed``, the same for every embedding.
        num_pairs: P, pixels looked up a photo.
        device: where ``embed`` wants its images.
        seed: of the views and of the pixels.

    Returns:
        Shares in [0, 1], and for each what guessing gives:
        ``pixel_accuracy``: the nearest of all photos' matching places is the right one. ``pixel_chance``: 1 / (N P).
        ``photo_accuracy``: it is at least of the right photo. ``photo_chance``: 1 / N.
        ``place_accuracy``: the best pixel of the same photo's second view is a right one: its centre lies within 5 %
            of the view's side of the right place or, as maps below 15 x 15 need, is the nearest to it.
        ``place_chance``: mean share of right pixels.

    Raises:
        UserError: the dataset does not guarantee enough shared pixels.
    """
    preprocess = TwoViewPreprocessor().to(device)
    queries, matches, hits, chances = [], [], [], []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for data in DataLoader(dataset, _BATCH_SIZE, sampler=_keys(dataset, seed)):
            batch = preprocess(data)["inputs"]
            first, second = (embed(view) for view in batch.views)
            pairs = sample_pairs(batch.crop_boxes, batch.flipped, first.shape[-2:], num_pairs)
            query = take_pixels(first, pairs.index)
            queries.append(query.cpu())
            matches.append(sample_points(second, pairs.points).cpu())
            right = _right_pixels(pairs.points, second.shape[-2:], _RADIUS)  # (B, P, h*w)
            similarity = torch.einsum(
                "bpd,bdn->bpn", F.normalize(query.float(), dim=-1), F.normalize(second.flatten(2).float(), dim=1)
            )
            hits.append(right.gather(2, similarity.argmax(dim=2, keepdim=True)).float().cpu())
            chances.append(right.float().mean(dim=2).cpu())

    queries, matches = torch.cat(queries), torch.cat(matches)
    found = nearest_keys(queries, matches.flatten(0, 1))  # (N, P)
    own = torch.arange(found.numel()).view_as(found)
    return {
        "pixel_accuracy": (found == own).float().mean().item(),
        "pixel_chance": 1 / found.numel(),
        "photo_accuracy": (found // num_pairs == own // num_pairs).float().mean().item(),
        "photo_chance": 1 / len(found),
        "place_accuracy": torch.cat(hits).mean().item(),
        "place_chance": torch.cat(chances).mean().item(),
    }


def compare_pixel_retrieval(
    config: str | Path,
    photos: str | Path,
    checkpoints: Sequence[str | Path] = (),
    num_pairs: int = 8,
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """:func:`evaluate_pixel_retrieval` of a config's network with random weights, and of checkpoints of it.

    The random network is given BatchNorm statistics of the same views, without which it would look worse than it is.

    Args:
        config: of the pretraining, or its work dir; its dataset says how views are made, but that they share
            ``num_pairs`` pixels.
        photos: folder of held-out photos.
        checkpoints: of that pretraining, or work dirs; of each the branch that it transfers is judged.
        num_pairs: pixels looked up a photo.
        device: where the networks run.
        seed: of the random weights, the views and the pixels.

    Returns:
        Name of the arm (``'random weights'``, then the checkpoints) -> its figures.

    Raises:
        UserError: the pretrainer has no dense embedding, or its map fewer than ``num_pairs`` positions.
    """
    config = config_of(config)
    cfg = load_config(config)
    settle(cfg)
    views = {**cfg.train_dataloader.dataset, "source": dict(type="ImageFolder", root=str(photos))}
    with torch.random.fork_rng():
        untrained = build_untrained(config, seed, zero_init_residual=False)
    untrained.require("embeds_pixels", "pixel retrieval")
    if views.get("min_overlap_pixels", 0) < num_pairs:  # the method itself does without a place that both views show
        with torch.no_grad():
            grid = untrained.embed(torch.zeros(1, 3, views["view_size"], views["view_size"])).shape[-1]
        if num_pairs > grid**2:
            raise UserError(f"num_pairs: at most {grid**2}, the positions of the {grid} x {grid} map, got {num_pairs}")
        views |= {"min_overlap_pixels": num_pairs, "overlap_grid": grid}
    dataset: TwoViewDataset = DATASETS.build(views)
    untrained.to(device)

    def own_pixels(model: BasePretrainer) -> OwnPixels:
        return OwnPixels(nn.Identity(), *pixels_of(model)).to(device)

    preprocess = TwoViewPreprocessor().to(device)
    batches = DataLoader(dataset, _BATCH_SIZE, sampler=_keys(dataset, seed), drop_last=len(dataset) > _BATCH_SIZE)
    # the random network's are those of the first checkpoint, which knows what the config leaves open
    pixels = own_pixels(load_pretrainer(config, checkpoints[0]) if checkpoints else untrained)
    with collecting_statistics(untrained), torch.no_grad():
        for batch in batches:
            untrained.embed(pixels(torch.cat(preprocess(batch)["inputs"].views)), "teacher")

    def judge(model: BasePretrainer, branch: str, pixels: OwnPixels) -> dict[str, float]:
        def embed(images: Tensor) -> Tensor:
            return model.embed(pixels(images), branch)

        return evaluate_pixel_retrieval(embed, dataset, num_pairs, device=device, seed=seed)

    figures = {"random weights": judge(untrained, "teacher", pixels)}
    for path in checkpoints:
        model = load_pretrainer(config, path, device)
        figures[str(path)] = judge(model, model.transfer_branch, own_pixels(model))
    return figures


def retrieval_table(figures: dict[str, dict[str, float]]) -> str:
    """Figures of :func:`compare_pixel_retrieval` in percent, guessing first."""
    kinds = ("pixel", "photo", "place")
    chance = next(iter(figures.values()))
    rows = [("guessing", *(100 * chance[f"{kind}_chance"] for kind in kinds))]
    rows += [(name, *(100 * arm[f"{kind}_accuracy"] for kind in kinds)) for name, arm in figures.items()]
    return tabulate(rows, ["", *kinds], floatfmt=".2f", disable_numparse=[0])


def _keys(dataset: TwoViewDataset, seed: int) -> list[SampleKey]:
    """The same views of every photo for every network that is judged."""
    return [SampleKey(seed, 0, index) for index in range(len(dataset))]


def _right_pixels(points: Tensor, size: tuple[int, int], radius: float) -> Tensor:
    """Which pixels of a map count as found: centred within ``radius`` of a point, or nearest to it, as on a coarse map.

    Args:
        points: ``(B, P, 2)`` xy in [0, 1].
        size: (height, width) of the map.
        radius: as a share of the view's side.

    Returns:
        ``(B, P, height * width)`` bool; at least one of each row is true.
    """
    distance = torch.cdist(points, pixel_centres(*size, points.device).expand(len(points), -1, -1))
    return (distance <= radius) | (distance == distance.amin(dim=-1, keepdim=True))
