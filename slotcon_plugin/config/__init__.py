"""Configs as they come from files and from the command line: loaded, checked, and complete before a run starts."""

from slotcon_plugin.config.find import find_config, list_configs, shipped, shipped_file, shipped_tool
from slotcon_plugin.config.load import apply_options, fit_schedules, load_config, read_config, require_model, resolve
from slotcon_plugin.config.rules import RunSize, has_rules, settle
from slotcon_plugin.config.text import text_to_change

__all__ = [
    "RunSize",
    "apply_options",
    "find_config",
    "fit_schedules",
    "has_rules",
    "list_configs",
    "load_config",
    "read_config",
    "require_model",
    "resolve",
    "settle",
    "shipped",
    "shipped_file",
    "shipped_tool",
    "text_to_change",
]
