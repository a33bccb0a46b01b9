"""What a config leaves to the run is settled before it starts, and travels with its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from slotcon_plugin.config import RunSize, has_rules, settle
from slotcon_plugin.registry import DATASETS

SETTINGS = "settings"
"""Key of a checkpoint's ``meta``: what :func:`settle_for_run` gave for the run that wrote it."""


def settle_for_run(
    cfg: Config,
    processes: int,
    recipe_batch: int | None = None,
    from_weights: bool = False,
    former: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Settle what a config leaves to its run, in place; its batch is that of :func:`fit_batch` already.

    Args:
        cfg: a pretraining config.
        processes: of this run.
        recipe_batch: total batch of the recipe, before it was fitted; None = it states none.
        from_weights: it does not start from random weights.
        former: :data:`SETTINGS` of the checkpoint that it goes on from.

    Returns:
        For :data:`SETTINGS`.
    """
    if not has_rules(cfg):
        return dict(former or {})  # a copy in a work dir: what the rules gave is written out in it
    return settle(cfg, _run_size(cfg, processes, recipe_batch, from_weights), former)


def _run_size(cfg: Config, processes: int, recipe_batch: int | None, from_weights: bool) -> RunSize:
    loader, epochs = cfg.train_dataloader, cfg.train_cfg.max_epochs
    photos = len(DATASETS.build(loader.dataset))
    if most := loader.get("num_batch_per_epoch"):
        photos = min(photos, most * loader.batch_size * processes)
    passes = cfg.optim_wrapper.get("accumulative_counts", 1)
    batch = loader.batch_size * processes * passes
    share = photos // processes
    per_epoch = share // loader.batch_size if loader.get("drop_last") else -(-share // loader.batch_size)
    iterations = int(epochs * per_epoch)
    return RunSize(
        photos=photos,
        batch=batch,
        recipe_batch=recipe_batch or batch,
        epochs=epochs,
        steps=max(-(-iterations // passes), 1),
        from_weights=from_weights,
    )
