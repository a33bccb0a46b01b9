"""A pretrainer out of a checkpoint of its run."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from slotcon_plugin.checkpoints.runs import config_of, find_checkpoint
from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.config import load_config, require_model, settle
from slotcon_plugin.engine import require_fit
from slotcon_plugin.engine.settings import SETTINGS
from slotcon_plugin.errors import ConversionError, UserError
from slotcon_plugin.models import BasePretrainer
from slotcon_plugin.registry import MODELS


def load_pretrainer(
    config: str | Path | Config | None, checkpoint: str | Path, device: str = "cpu", trained: bool = True
) -> BasePretrainer:
    """A trained pretrainer in evaluation mode.

    Args:
        config: the config that trained it; None = the copy beside the checkpoint.
        checkpoint: a checkpoint of that run, or its work dir: the newest whole one.
        device: where to put it.
        trained: False leaves it as it is built: the same network before it has learned anything.

    Raises:
        UserError: there is no such file, it is no checkpoint, or not one of this config.
    """
    cfg = config if isinstance(config, Config) else load_config(config_of(config or checkpoint))
    require_model(cfg)
    checkpoint = find_checkpoint(checkpoint)
    if not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint}")
    try:
        state = load_file(checkpoint)
    except ConversionError as error:
        raise UserError(f"{checkpoint} is no whole checkpoint of a pretraining: {error}") from error
    settle(cfg, former=state.get("meta", {}).get(SETTINGS))
    model = MODELS.build(cfg.model)
    weights = state.get("state_dict", state)
    require_fit(weights, model, str(checkpoint))
    if trained:
        model.load_state_dict(weights)
    model.recall(state)
    return model.to(device).eval()
