"""The step as the papers' code takes it, to compare ours with in the same run."""

from __future__ import annotations

import torch
from mmengine.config import Config
from torch import Tensor

from slotcon_plugin.config import settle
from slotcon_plugin.models import BasePretrainer
from slotcon_plugin.profiling.step import median_time, peak_bytes, random_samples
from slotcon_plugin.registry import MODELS


def plain_step(cfg: Config, batch_size: int, dtype: str, device: str, repeats: int = 10) -> tuple[float, float]:
    """Median seconds of a step and the most memory in use (GiB): torch's default memory format, the optimiser and the
    teacher's average as loops over parameters, every loss read in every step, figures of every step.

    The method itself is computed by the same code, in the same precision.
    """
    settle(cfg)
    torch.manual_seed(0)
    where, precision = torch.device(device), getattr(torch, dtype)
    model: BasePretrainer = MODELS.build({**cfg.model, "channels_last": False}).to(where).train()
    batch = model.data_preprocessor(random_samples(batch_size, cfg.train_dataloader.dataset.view_size), True)
    settings = cfg.optim_wrapper.optimizer
    velocity: dict[str, Tensor] = {}

    def step() -> None:
        model.zero_grad()
        with torch.autocast(where.type, precision, enabled=precision is not torch.float32):
            losses = model(**batch, mode="loss")
        model.parse_losses(losses)[0].backward()
        for value in losses.values():
            value.item()
        with torch.no_grad():
            student = dict(model.student.named_parameters())
            for name, p in student.items():
                update = p.grad
                if p.ndim > 1:
                    update = update + settings.weight_decay * p
                    if settings.type == "LARS":
                        update = update * (1e-3 * p.norm() / update.norm().clamp(min=1e-12))
                velocity[name] = 0.9 * velocity.get(name, torch.zeros_like(p)) + update
                p.sub_(velocity[name], alpha=1e-3)
            for name, p in model.teacher.named_parameters():
                p.copy_(0.99 * p + 0.01 * student[name])

    return median_time(step, repeats, where)[0], peak_bytes(where) / 2**30
