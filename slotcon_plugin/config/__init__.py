"""Configs as they come from files and from the command line: loaded, checked, and complete before a run starts."""

from slotcon_plugin.config.load import load_config, resolve

__all__ = ["load_config", "resolve"]
