"""The recipe's total batch: kept when the number of GPUs changes, followed when the user asks for another one."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.logging import print_log


def apply_batch_rules(cfg: Config, world_size: int) -> None:
    """Fill in the batch of each process, and let learning rate and teacher momentum follow the total batch.

    ``auto_scale_lr.base_batch_size`` declares the total batch that the config's learning rate and momentum are for.
    Without ``train_dataloader.batch_size`` every process takes its share of it, so that the recipe stays what it is on
    any number of GPUs. With it, the total is ``batch_size * processes * accumulative_counts``; the
    learning rate is scaled by the ratio to the declared batch, and the teacher's momentum raised to that power
    (Busbridge et al., "How to scale your EMA", 2023), so that both move as far in an epoch as before. Warm-up and
    schedules count epochs and follow by themselves.

    Raises:
        ValueError: the declared batch cannot be split evenly.
    """
    rule = cfg.get("auto_scale_lr")
    if not rule or not rule.get("enable"):
        return
    declared, loader = rule["base_batch_size"], cfg.train_dataloader
    accumulated = cfg.optim_wrapper.get("accumulative_counts", 1)
    shares = world_size * accumulated
    if loader.get("batch_size") is None:
        if declared % shares:
            raise ValueError(
                f"the recipe's total batch of {declared} cannot be split over {world_size} processes x {accumulated} "
                "accumulated batches; set train_dataloader.batch_size, and the learning rate will follow"
            )
        loader.batch_size = declared // shares
    total = loader.batch_size * shares
    ratio = total / declared
    cfg.optim_wrapper.optimizer.lr *= ratio
    cfg.model.teacher_momentum = cfg.model.get("teacher_momentum", 0.99) ** ratio
    rule["enable"] = False  # done here, with accumulation; mmengine must not scale again
    print_log(
        f"Total batch {total} = {loader.batch_size} x {world_size} processes x {accumulated} accumulated "
        f"(the recipe's: {declared}); learning rate {cfg.optim_wrapper.optimizer.lr:g}, "
        f"teacher momentum from {cfg.model.teacher_momentum:.6g}",
        "current",
    )
