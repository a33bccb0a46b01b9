"""Configs as they come from files and from the command line: loaded, checked, and complete before a run starts."""

from slotcon_plugin.config.load import apply_options, load_config, read_config, resolve

__all__ = ["apply_options", "load_config", "read_config", "resolve"]
