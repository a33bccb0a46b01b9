"""What a plan has to know of the config of a pretraining before it runs."""

from __future__ import annotations

import copy
from functools import cache

from mmengine.config import Config

from slotcon_plugin.benchmark.plan import Plan
from slotcon_plugin.config import apply_options, load_config, read_config
from slotcon_plugin.convert.network import is_plain_resnet, network_of_backbone
from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import MODELS


def config_as_asked(plan: Plan, row: str) -> Config:
    """The config of a pretraining under the plan's options.

    Raises:
        UserError: the run would refuse one, after hours of other runs perhaps.
    """
    entry = plan.pretraining[row]
    cfg = copy.deepcopy(_read(entry.config))
    try:
        apply_options(cfg, entry.options or {}, fit=False)
    except UserError as error:
        raise UserError(f"{plan.file}: pretraining.{row}.options: {error}") from error
    return cfg


def own_backbone(plan: Plan, row: str) -> str | None:
    """Type of a pretraining's backbone that is of neither library, so that no converter knows it; else None."""
    if not plan.pretraining[row].config:
        return None
    backbone = config_as_asked(plan, row).model.backbone
    return None if network_of_backbone(backbone) or is_plain_resnet(backbone) else str(backbone.get("type"))


@cache
def groups(config: str) -> bool:
    """Whether the method of a pretraining config declares that it groups."""
    return MODELS.get(load_config(config).model.type).method.groups


def batch_per_gpu(cfg: Config) -> bool:
    """Whether a pretraining has its batch on each GPU and keeps no total, see :mod:`slotcon_plugin.engine.batch`."""
    rule = cfg.get("auto_scale_lr") or {}
    keeps_total = rule.get("base_batch_size") is not None and rule.get("mode") != "scale-lr"
    return not keeps_total and (cfg.get("train_dataloader") or {}).get("batch_size") is not None


_read = cache(read_config)
