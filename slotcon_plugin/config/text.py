"""A config as the text of one file that people change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from slotcon_plugin.config.check import read_at_the_top

_REFERENCE = re.compile(r"\$\{(\w+)\}")
# Read by mmseg.apis.inference_model, and by mmseg's own test.py with --tta.
_READ_BY_MMSEG = {"test_pipeline", "tta_model", "tta_pipeline"}


def text_to_change(cfg: Config) -> str:
    """A config with its bases in it, in which every name at the top does something.

    Names that files compute with (``iterations``, ``scale``) are left out: what was computed stands where it is read.
    Pipelines keep their names, and all data sets that have them refer to these.

    Args:
        cfg: what :func:`~slotcon_plugin.config.read_config` gave.
    """
    content = cfg.to_dict()
    if "model" not in content:  # a benchmark's plan, of which every name is read
        return cfg.pretty_text
    scope = content.get("default_scope")
    read = read_at_the_top() | set(_REFERENCE.findall(cfg.pretty_text))
    if scope == "mmseg":
        read |= _READ_BY_MMSEG
    if "data_preprocessor" in content["model"]:  # mmengine takes the other one for models without
        read.discard("data_preprocessor")
    pipelines = {
        name: _unscoped(value, scope)
        for name, value in content.items()
        if name.endswith("_pipeline") and isinstance(value, list) and value
    }
    kept = {name: _linked(value, pipelines) for name, value in content.items() if name in read - pipelines.keys()}
    text = Config(kept).pretty_text
    named = {name: value for name, value in pipelines.items() if name in read or _mark(name) in text}
    for name in named:
        text = text.replace(f"'{_mark(name)}'", name)
    return (Config(named).pretty_text if named else "") + text


def _mark(name: str) -> str:
    """What stands for a pipeline in the config, until its name does in the text."""
    return f"<{name}>"


def _unscoped(value: Any, scope: str | None) -> Any:
    """A value without the scopes that mmengine notes at another package's files, where they are the config's own."""
    if isinstance(value, dict):
        return {key: _unscoped(child, scope) for key, child in value.items() if (key, child) != ("_scope_", scope)}
    return [_unscoped(child, scope) for child in value] if isinstance(value, list) else value


def _linked(value: Any, pipelines: Mapping[str, Any]) -> Any:
    """A value with marks in the place of pipelines that have names."""
    for name, pipeline in pipelines.items():
        if value == pipeline:
            return _mark(name)
    if isinstance(value, dict):
        return {key: _linked(child, pipelines) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_linked(child, pipelines) for child in value)
    return value
