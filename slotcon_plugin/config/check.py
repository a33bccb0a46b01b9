"""Keys of a config that nothing would read: refused with the nearest name that something reads."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import LogProcessor, Runner, set_random_seed
from torch.utils.data import DataLoader

from slotcon_plugin.errors import UserError

# What mmengine's builders take out of a config before its class sees it, by the kind of thing that is built.
_TAKEN_BY_BUILDERS = {
    "hook": {"priority"},
    "parameter scheduler": {"convert_to_iter_based"},
    "optim_wrapper": {"constructor", "optimizer", "paramwise_cfg"},
}


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse options that would not do what they say.

    Args:
        cfg: the config as it is in its file.
        options: dotted keys with values. ``+key`` is let through: a key that is new and meant.

    Raises:
        UserError: the message has the nearest key that the config or its classes know.
    """
    for key, value in options.items():
        if not key.startswith("+"):
            _check_option(cfg, key, value, options)


def _check_option(cfg: Config, key: str, value: Any, options: Mapping[str, Any]) -> None:
    node: Any = cfg._cfg_dict
    parts = key.split(".")
    for depth, part in enumerate(parts):
        group = ".".join(parts[:depth])
        if isinstance(node, (list, tuple)):
            if not (part.isdigit() and int(part) < len(node)):
                raise UserError(f"{key}: {group} has items 0 to {len(node) - 1}, there is no item {part!r}")
            node = node[int(part)]
        elif isinstance(node, dict):
            if part not in node:
                _check_new_key(cfg, key, group, part, node, options)
                return
            node = node[part]
        elif isinstance(node, str) and node.startswith("${"):
            meant = ".".join([node[2:-1], *parts[depth:]])
            raise UserError(f"{key}: {group} is taken from another key of the config; set {meant} instead")
        else:
            raise UserError(f"{key}: {group} is a value ({node!r}), not a group of keys")
    if isinstance(node, dict) and not isinstance(value, dict) and value is not None:
        raise UserError(f"{key} is a group of keys ({', '.join(node)}), not a value; got {value!r}")
    if _is_number(node) and isinstance(value, str) and not value.startswith("${"):
        raise UserError(f"{key}: expected a number such as {node!r}, got {value!r}")


def _check_new_key(
    cfg: Config, key: str, group: str, name: str, node: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    new_group = f"{group}.{name}" if group else name
    if f"{new_group}.type" in options and "type" not in node:  # a hook of one's own, for instance
        return
    known = readable_keys(cfg, group, node)
    if known is None or name in known:
        return
    everywhere = list(_keys(cfg._cfg_dict))
    ends_alike = [k for k in everywhere if k.rpartition(".")[2] == key]
    here = [f"{group}.{k}" if group else k for k in known]
    nearest = ends_alike or difflib.get_close_matches(key, [*everywhere, *here], n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    raise UserError(
        f"{key}: nothing in {cfg.filename or 'this config'} has or reads this key; {hint}"
        f"A key that is new and meant is written +{key}=..."
    )


def check_arguments(cfg: Config) -> None:
    """Refuse keys of a config that the class named by their ``type`` does not take, before anything is built.

    At the top of a config, where people keep variables of their own, only what looks like a mistyped name is refused.

    Raises:
        UserError: with the key's place in the config, the class, and the nearest argument.
    """
    for where, group in _groups(cfg._cfg_dict):
        known = readable_keys(cfg, where, group)
        for name in sorted(group.keys() - known) if known is not None else ():
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6 if where else 0.85)
            if where or near:
                place, reader = f"{where}.{name}".lstrip("."), group.get("type", "mmengine")
                hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(known))}"
                raise UserError(f"{place} in the config: {reader} takes no {name!r}; {hint}")


def readable_keys(cfg: Config, where: str, group: Mapping[str, Any]) -> set[str] | None:
    """What is read of a group of keys; None when that cannot be told.

    Args:
        where: dotted place of the group in the config, "" for the whole.
        group: its content. In one without a ``type`` that is not mmengine's (the names of hooks) all names are known.
    """
    if "type" in group:
        return _arguments_of_type(group["type"], cfg.get("default_scope"))
    return _read_by_mmengine().get(where, set(group))


@lru_cache
def _read_by_mmengine() -> dict[str, set[str]]:
    """Groups of keys that no ``type`` explains: what mmengine's Runner reads of them."""
    loader = arguments(DataLoader) | {"num_batch_per_epoch"}
    other = {"activation_checkpointing", "compile", "custom_imports", "efficient_conv_bn_eval", "model_wrapper_cfg"}
    return {
        "": arguments(Runner) | other | {"find_unused_parameters", "sync_bn"},
        **dict.fromkeys(["train_dataloader", "val_dataloader", "test_dataloader"], loader),
        "randomness": arguments(set_random_seed) | {"diff_rank_seed"},
        "log_processor": arguments(LogProcessor),
        "env_cfg": {"cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"},
        "auto_scale_lr": {"enable", "base_batch_size", "mode"},
    }


def _arguments_of_type(kind: Any, scope: str | None) -> set[str] | None:
    found: set[str] = set()
    builders = [(kind, "")] if not isinstance(kind, str) else list(_registered(kind, scope))
    for builder, what in builders:
        taken = arguments(builder)
        if taken is None:
            return None
        found |= taken | _TAKEN_BY_BUILDERS.get(what, set())
    return found | {"type", "_scope_"} if builders else None


def _registered(name: str, scope: str | None) -> Iterator[tuple[Any, str]]:
    """Everything that is registered under a name, with the kind of its registry."""
    if "." in name:
        scope, _, name = name.rpartition(".")
    try:
        importlib.import_module(f"{scope}.registry")
    except ImportError:
        return
    for root in vars(mmengine.registry).values():
        registry = root.children.get(scope, root) if isinstance(root, Registry) else None
        while registry is not None:
            registry.import_from_location()
            if name in registry.module_dict:
                yield registry.module_dict[name], registry.name
                break
            registry = registry.parent


def arguments(builder: Any) -> set[str] | None:
    """Names that a class (along its bases, as far as ``**kwargs`` are passed on) or a function takes; None: any."""
    names: set[str] = set()
    steps = [vars(c)["__init__"] for c in builder.__mro__ if "__init__" in vars(c)] if inspect.isclass(builder) else []
    for step in steps or [builder]:
        parameters = inspect.signature(step).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names
    return None


def _groups(node: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dict of a config with its place."""
    if isinstance(node, dict):
        yield where, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for name, child in children:
        yield from _groups(child, f"{where}.{name}" if where else str(name))


def _keys(node: Any) -> Iterator[str]:
    for where, group in _groups(node):
        yield from (f"{where}.{name}" if where else name for name in group)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
