"""Keys of a config that nothing would read: refused with the nearest name that something reads."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

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
    place = f"{group}." if group else ""
    if f"{place}{name}.type" in options and "type" not in node:  # a hook of one's own, for instance
        return
    kind = {"type": options[f"{place}type"]} if f"{place}type" in options else {}
    readable = readable_keys(cfg, group, {**node, **kind})
    if readable.takes(name):
        return
    everywhere = list(_keys(cfg._cfg_dict))
    ends_alike = [k for k in everywhere if k.rpartition(".")[2] == key]
    here = [place + k for k in readable.names]
    nearest = ends_alike or difflib.get_close_matches(key, [*everywhere, *here], n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    raise UserError(
        f"{key}: nothing in {cfg.filename or 'this config'} has or reads this key; {hint}"
        f"A key that is new and meant is written +{key}=..."
    )


def check_names(cfg: Config) -> None:
    """Refuse a name at the top of a config that looks like a mistyped one; others are people's own variables.

    Raises:
        UserError: with the nearest name that is read.
    """
    readable = Readable(read_at_the_top(), complete=False)
    for name in cfg:
        if not readable.takes(name):
            raise UserError(f"{cfg.filename} sets {name}, which nothing reads; {readable.hint(name)}")


def read_at_the_top() -> set[str]:
    """Names at the top of a config that mean something by themselves, and not only where others refer to them."""
    return _read_by_mmengine()[""] | {"init"}


def check_arguments(cfg: Config) -> None:
    """Refuse keys of a config that the class named by their ``type`` does not take, before anything is built.

    Raises:
        UserError: with the key's place in the config, the class, and the nearest argument.
    """
    for where, group in _groups(cfg._cfg_dict):
        readable = readable_keys(cfg, where, group)
        for name in group if where else ():
            if not readable.takes(name):
                reader = group.get("type", "mmengine")
                raise UserError(f"{where}.{name} in the config: {reader} takes no {name!r}; {readable.hint(name)}")


class Readable(NamedTuple):
    """What is read of a group of keys.

    Attributes:
        names: those that are known.
        complete: False where others may be read too (``**kwargs``); of those, only what looks mistyped is refused.
    """

    names: set[str]
    complete: bool = True

    def takes(self, name: str) -> bool:
        """Whether a key may stand there."""
        return name in self.names or not (self.complete or difflib.get_close_matches(name, self.names, cutoff=0.85))

    def hint(self, name: str) -> str:
        """The nearest name, or all."""
        near = difflib.get_close_matches(name, self.names, n=1)
        return f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(self.names))}"


def readable_keys(cfg: Config, where: str, group: Mapping[str, Any]) -> Readable:
    """What is read of a group of keys.

    Args:
        where: dotted place of the group in the config, "" for the whole.
        group: its content. In one without a ``type`` that is not mmengine's (the names of hooks) all names are known.
    """
    if "type" in group:
        return _arguments_of_type(group["type"], cfg.get("default_scope"))
    return Readable(_read_by_mmengine().get(where, set(group)))


@lru_cache
def _read_by_mmengine() -> dict[str, set[str]]:
    """Groups of keys that no ``type`` explains: what mmengine's Runner reads of them."""
    loader = arguments(DataLoader).names | {"num_batch_per_epoch"}
    other = {"activation_checkpointing", "compile", "custom_imports", "efficient_conv_bn_eval", "model_wrapper_cfg"}
    return {
        "": arguments(Runner).names | other | {"find_unused_parameters", "sync_bn"},
        **dict.fromkeys(["train_dataloader", "val_dataloader", "test_dataloader"], loader),
        "randomness": arguments(set_random_seed).names | {"diff_rank_seed"},
        "log_processor": arguments(LogProcessor).names,
        "env_cfg": {"cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"},
        "auto_scale_lr": {"enable", "base_batch_size", "base_accumulative_counts", "mode"},
    }


def _arguments_of_type(kind: Any, scope: str | None) -> Readable:
    builders = list(_registered(kind, scope)) if isinstance(kind, str) else [(kind, "")]
    if not builders:
        return Readable(set(), complete=False)
    taken = [arguments(builder) for builder, _ in builders]
    names = {"type", "_scope_"}.union(*(t.names for t in taken), *(_TAKEN_BY_BUILDERS.get(k, ()) for _, k in builders))
    return Readable(names, complete=all(t.complete for t in taken))


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


def arguments(builder: Any) -> Readable:
    """What a function takes, or a class, along its bases as far as ``**kwargs`` are passed on.

    A class whose ``**kwargs`` go elsewhere than to its bases says so: ``kwargs_for = 'timm'``.
    """
    names: set[str] = set()
    steps = [vars(c)["__init__"] for c in builder.__mro__ if "__init__" in vars(c)] if inspect.isclass(builder) else []
    for step in steps or [builder]:
        parameters = inspect.signature(step).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters) and not hasattr(builder, "kwargs_for"):
            return Readable(names)
    return Readable(names, complete=False)


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
