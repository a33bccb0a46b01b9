"""Configs of detectron2: read, with the user's options in them and their data looked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from yaml import YAMLError

from slotcon_plugin.d2_timm import add_timm_config
from slotcon_plugin.engine.seed import require_seed
from slotcon_plugin.errors import UserError
from slotcon_plugin.transfer.d2_data import check_data, relocate


def base_config() -> CfgNode:
    """detectron2's defaults, ``MODEL.TIMM``, and ``SOLVER.OPTIMIZER``: ``SGD`` or ``AdamW``."""
    cfg = get_cfg()
    add_timm_config(cfg)
    cfg.SOLVER.OPTIMIZER = "SGD"
    return cfg


def read_config(config_file: str, opts: Sequence[str], data_root: str | None) -> tuple[CfgNode, CfgNode]:
    """The config to run, its data found, OUTPUT_DIR empty if the user gave none; and the recipe as it was given.

    Raises:
        UserError: a config that is not there or cannot be read, a wrong key or value, or data that are missing.
    """
    if not Path(config_file).is_file():
        raise UserError(f"config {config_file} does not exist; detectron2's are in configs/transfer/detectron2")
    if Path(config_file).suffix == ".py":
        raise UserError(
            f"{config_file} is no config of detectron2's (YAML); mmdet's and mmseg's are for tools/train.py"
        )
    cfg = base_config()
    cfg.OUTPUT_DIR = ""
    try:
        cfg.merge_from_file(config_file)
        cfg.merge_from_list(list(opts))
    except (YAMLError, OSError, TypeError, AttributeError) as error:  # no YAML, no such _BASE_, YAML that is no mapping
        raise UserError(
            f"{config_file} or its _BASE_ cannot be read: {error}. Expected YAML of sections such as MODEL and SOLVER"
        ) from error
    except (AssertionError, KeyError, ValueError) as error:  # yacs's ways to say that a key or a value is wrong
        raise UserError(f"{config_file} {' '.join(opts)}: {error}") from error
    if cfg.SOLVER.MAX_ITER < 1:
        raise UserError(f"SOLVER.MAX_ITER must be at least 1, got {cfg.SOLVER.MAX_ITER}")
    if cfg.SOLVER.MAX_ITER in cfg.SOLVER.STEPS:
        raise UserError(
            f"SOLVER.STEPS {cfg.SOLVER.STEPS} has SOLVER.MAX_ITER in it: a step of the rate has to come before the end"
        )
    if cfg.SEED >= 0:  # a negative one asks for none
        require_seed("SEED", cfg.SEED)
    recipe = cfg.clone()
    if data_root:
        relocate(cfg, data_root)
    check_data(cfg)
    return cfg, recipe
