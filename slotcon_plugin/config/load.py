"""A config from its file and the options of the command line, with all that follows from other keys filled in."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError
from mmengine.logging import print_log
from yaml import YAMLError

from slotcon_plugin.config.check import check_names, check_options, read_at_the_top
from slotcon_plugin.config.find import find_config
from slotcon_plugin.errors import UserError

_REFERENCE = re.compile(r"\$\{(\w+)\}")
# mmengine registers these itself and takes None for "leave it out"; of other hooks it takes no None.
_HOOKS_OF_MMENGINE = {"runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"}


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """A config file with options on top, complete. Raises as :func:`read_config` and :func:`apply_options` do."""
    cfg = read_config(path)
    apply_options(cfg, options or {})
    return cfg


def require_model(cfg: Config) -> None:
    """Refuse a file that was taken for a config of a network.

    Raises:
        UserError: it has no ``model``; names the file.
    """
    if not isinstance(cfg.get("model"), dict):
        raise UserError(
            f"{cfg.filename or 'the config'} sets no model: expected the config of a pretraining, such as the one that "
            "lies in a run's work dir"
        )


def read_config(path: str | Path) -> Config:
    """A config as it is in its file.

    Args:
        path: the file, or a config's name, see :func:`~slotcon_plugin.config.find.find_config`.

    Raises:
        UserError: there is no such file, it or one of its bases cannot be read, or a name in it is mistyped.
    """
    path = find_config(path)
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except (SyntaxError, ConfigParsingError, OSError, ImportError, NameError, ValueError, YAMLError) as error:
        raise UserError(f"config {path} cannot be read: {error}") from error
    except AssertionError as error:  # by mmengine, of a package that it does not know
        raise UserError(
            f"config {path}: {error} `slotcon configs NAME --out FILE` writes a copy of one of this package's"
        ) from error
    except (KeyError, TypeError) as error:
        if "in child config" in str(error) or "among bases" in str(error):  # how it is put together, not a bug
            raise UserError(f"config {path} does not fit its bases: {error.args[0]}") from error
        raise
    except RecursionError as error:
        raise UserError(f"config {path} is its own base, by way of others perhaps: see its _base_") from error
    if {"MODEL", "SOLVER", "_BASE_"} & cfg.keys():
        raise UserError(f"{path} is a config of detectron2: python tools/train_d2.py --config-file {path}")
    check_names(cfg)
    return cfg


def apply_options(cfg: Config, options: Mapping[str, Any], fit: bool = True) -> None:
    """Put options on top of a config and complete it, in place.

    Args:
        cfg: what :func:`read_config` gave.
        options: ``{"train_cfg.max_epochs": 100}``. A key that the config does not have is refused unless the class
            that it is for takes it, or it is meant: ``{"+key": value}``.
        fit: whether schedules are fitted to the length of the run, see :func:`fit_schedules`; False where that is not
            known yet.

    Raises:
        UserError: an option is refused, or a key refers to one that is not there.
    """
    check_options(cfg, options)
    cfg.merge_from_dict({key.removeprefix("+"): value for key, value in options.items()})
    resolve(cfg)
    if fit:
        fit_schedules(cfg._cfg_dict)


def resolve(cfg: Config) -> None:
    """Fill in what follows from other keys, in place. A config that has been through it is left as it is.

    * ``"${key}"`` becomes the value of the config's own ``key``, ``"${key}/train"`` a text with it inside. The keys
      that are only there to be referred to are gone afterwards: setting them would no longer do anything.
    * Hooks set to None are left out.
    * Without workers none persist.

    What follows from the number of photos and steps (``"${teacher_momentum(0.99)}"``) is left as it is, see
    :mod:`slotcon_plugin.config.rules`.

    Raises:
        UserError: a reference to a key that is not there, or in a circle.
    """
    content = cfg._cfg_dict
    used: set[str] = set()
    for key in list(content):
        content[key] = _resolved(content[key], content, key, (key,), used)
    for key in used - read_at_the_top():
        del content[key]
    if hooks := content.get("default_hooks"):
        for name in [name for name, hook in hooks.items() if hook is None and name not in _HOOKS_OF_MMENGINE]:
            del hooks[name]
    for loader in (content.get(f"{part}_dataloader") for part in ("train", "val", "test")):
        if (
            isinstance(loader, dict) and loader.get("num_workers") == 0
        ):  # torch takes it for an error that none are kept
            loader["persistent_workers"] = False


def _resolved(value: Any, content: Mapping[str, Any], where: str, inside: tuple[str, ...], used: set[str]) -> Any:
    def look_up(name: str) -> Any:
        if name not in content or name in inside:
            why = "which leads back to itself" if name in inside else "but the config has no such key"
            raise UserError(f"{where} refers to ${{{name}}}, {why}")
        used.add(name)
        return _resolved(content[name], content, name, (*inside, name), used)

    if isinstance(value, str):
        whole = _REFERENCE.fullmatch(value)
        return look_up(whole[1]) if whole else _REFERENCE.sub(lambda match: str(look_up(match[1])), value)
    if isinstance(value, dict):
        return type(value)({k: _resolved(v, content, f"{where}.{k}", inside, used) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(v, content, f"{where}.{i}", inside, used) for i, v in enumerate(value))
    return value


def fit_schedules(content: dict[str, Any]) -> None:
    """Fit the schedules of a config to the length of its run, in place.

    Schedules of zero length (a warm-up of 0 epochs, a cosine that would begin after the last epoch) are left out.
    """
    schedules, last = content.get("param_scheduler"), (content.get("train_cfg") or {}).get("max_epochs")
    if not isinstance(schedules, list) or last is None:
        return
    kept = []
    for schedule in schedules:
        begin, end = schedule.get("begin", 0), schedule.get("end", last)
        by_epoch = schedule.get("by_epoch", True)
        if not by_epoch or isinstance(begin, str) or isinstance(end, str) or begin < min(end, last):
            kept.append(schedule)
        elif begin >= last:
            print_log(
                f"{schedule['type']} would begin after epoch {begin}, when the run of {last} is over: it is left out",
                "current",
                logging.WARNING,
            )
    content["param_scheduler"] = kept
