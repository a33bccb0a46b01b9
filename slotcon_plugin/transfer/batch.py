"""A recipe's total batch on other hardware: kept by accumulation, or followed by the learning rate."""

from __future__ import annotations

from typing import NamedTuple

MODES = ("accumulate", "scale-lr")


class BatchPlan(NamedTuple):
    """How a recipe runs on the processes at hand.

    Attributes:
        accumulate: forward and backward passes an optimiser step.
        lr_factor: multiplies the recipe's learning rate.
        steps_factor: multiplies the recipe's number of optimiser steps, so that as many images are seen.
        text: what a user should read about it.
    """

    accumulate: int
    lr_factor: float
    steps_factor: float
    text: str


def plan_batch(recipe_total: int, processes: int, per_process: int, mode: str) -> BatchPlan:
    """Keep the recipe, or change it in the one way that was asked for.

    Args:
        recipe_total: images an optimiser step in the recipe.
        processes: GPUs (or CPU processes) of this run.
        per_process: images a forward pass on each.
        mode: ``accumulate``: gradients of several passes make one step of the recipe's batch;
            ``scale-lr``: the batch becomes what fits, the learning rate follows linearly and the steps inversely
            (Goyal et al. 2017).

    Raises:
        ValueError: unknown mode, counts below 1, or a total that cannot be reached by accumulation.
    """
    if mode not in MODES:
        raise ValueError(f"batch mode must be one of {', '.join(MODES)}, got {mode!r}")
    if min(recipe_total, processes, per_process) < 1:
        raise ValueError(
            f"total batch, processes and images a process must be at least 1, got {recipe_total}, {processes}, "
            f"{per_process}"
        )
    here = processes * per_process
    hardware = f"{processes} process{'es' if processes > 1 else ''} x {per_process} images"
    if here == recipe_total:
        return BatchPlan(1, 1.0, 1.0, f"total batch {recipe_total} = {hardware}: the recipe's")
    if mode == "scale-lr":
        ratio = here / recipe_total
        return BatchPlan(
            1,
            ratio,
            1 / ratio,
            f"total batch {here} = {hardware}, NOT the recipe's {recipe_total}: learning rate x {ratio:g}, "
            f"optimiser steps x {1 / ratio:g} (--batch-mode scale-lr)",
        )
    if recipe_total % here:
        raise ValueError(
            f"the recipe's total batch of {recipe_total} is no multiple of {hardware}; choose images a process so that "
            f"it is (train_dataloader.batch_size, or --images-per-gpu for detectron2), or --batch-mode scale-lr"
        )
    passes = recipe_total // here
    return BatchPlan(
        passes,
        1.0,
        1.0,
        f"total batch {recipe_total} = {hardware} x {passes} accumulated passes: the recipe's, except that BatchNorm "
        f"sees {here} images at a time",
    )
