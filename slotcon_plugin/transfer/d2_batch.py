"""How the GPUs of a run of detectron2 share its batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from detectron2.config import CfgNode

from slotcon_plugin.engine.batch import MODES, BatchPlan, plan_batch
from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.checkpoint import IMAGES, PASSES


class Hardware(NamedTuple):
    """GPUs of this machine (without CUDA one process runs on the CPU) and the machines, as in detectron2's tools."""

    num_gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"


ONE_PROCESS = Hardware()


def processes_of(cfg: CfgNode, hardware: Hardware) -> int:
    """How many a run has; where there is no GPU the config says so from here on."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        print("No GPU: the CPU is used")
        cfg.MODEL.DEVICE = "cpu"
    return hardware.num_gpus * hardware.num_machines if cfg.MODEL.DEVICE.startswith("cuda") else 1


def fit_batch(cfg: CfgNode, processes: int, images_per_gpu: int | None, mode: str | None) -> BatchPlan:
    """Share the recipe's batch out, or have detectron2 scale the recipe.

    Args:
        cfg: changed in place, where the recipe is scaled.
        processes: GPUs, or the one process of a CPU.
        images_per_gpu: of one pass; None = the recipe's on 8 GPUs.
        mode: see :mod:`slotcon_plugin.engine.batch`; None = accumulate.

    Raises:
        UserError: it cannot be made so.
    """
    total = cfg.SOLVER.IMS_PER_BATCH
    images_per_gpu = images_per_gpu or max(total // max(8, processes), 1)
    plan = plan_batch(total, processes, images_per_gpu, mode or MODES[0])
    if plan.lr_factor != 1:
        if total % images_per_gpu:
            raise UserError(f"--batch-mode scale-lr: SOLVER.IMS_PER_BATCH={total} is no multiple of {images_per_gpu}")
        cfg.SOLVER.REFERENCE_WORLD_SIZE = total // images_per_gpu  # detectron2 then scales lr, steps and periods itself
    return plan


def step_of(cfg: CfgNode, plan: BatchPlan) -> dict[str, int]:
    """What a position is counted in: detectron2 counts steps of the optimiser, not passes, and scales them itself."""
    return {PASSES: 1, IMAGES: round(cfg.SOLVER.IMS_PER_BATCH * plan.lr_factor)}
