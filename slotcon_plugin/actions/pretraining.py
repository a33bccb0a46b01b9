"""Pretraining from plain words: photos, a method, weights to start from, epochs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.runner import Runner

from slotcon_plugin import apis
from slotcon_plugin.actions.runs import Pretrained
from slotcon_plugin.checkpoints.runs import find_checkpoint
from slotcon_plugin.config import apply_options, list_configs, read_config, require_model
from slotcon_plugin.convert.network import Network, network_by_name
from slotcon_plugin.convert.read import read_checkpoint
from slotcon_plugin.declaration import PRETRAINING_KEY, whole_title
from slotcon_plugin.engine.checkpoint import open_checkpoint
from slotcon_plugin.engine.last_checkpoint import last_checkpoint
from slotcon_plugin.errors import ConversionError, UserError
from slotcon_plugin.initialization import LIBRARIES
from slotcon_plugin.transfer.openmmlab import is_transfer_config


def pretrain(
    photos: str | Path | None = None,
    out: str | Path | None = None,
    method: str | None = None,
    init: str | Path | None = None,
    epochs: int | None = None,
    *,
    config: str | Path | None = None,
    network: str | None = None,
    init_title: str | None = None,
    data_root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    probe: str | Path | None = None,
    budget: float | None = None,
    resume: bool | str | Path = False,
    overwrite: bool = False,
    batch_mode: str | None = None,
    launcher: str = "none",
) -> Pretrained:
    """Pretrain a network on unlabelled photos.

    Without ``config`` the preset of the method is taken: ``METHOD_continue`` with ``init`` (where there is one), else
    ``METHOD_small``; its backbone becomes the network that ``init`` holds.

    Args:
        photos: a folder, nested or flat, or a text file with a path a line; None = those of ``config``.
        out: the work dir; None = ``work_dirs/CONFIG``.
        method: ``'slotcon'`` (default), ``'slotcon_decoder'``, ``'vader'`` or ``'densecl'``.
        init: weights that student and teacher start from: any file that the converters read, or ``'timm'`` or
            ``'torchvision'`` for that library's published weights, which its loader may download.
        epochs: how often each photo is seen; None = as the config says.
        config: a config's name or file in place of ``method``, see :func:`slotcon_plugin.config.find_config`.
        network: what to train: ``'resnet50'`` or a name of timm's; None = what ``init`` holds, or the config's own.
        init_title: what to call ``init`` in tables.
        data_root: the config's ``data_root``: where its data set lies, in place of ``photos``.
        options: overrides of single keys of the config: ``{"train_dataloader.batch_size": 32}``.
        probe: a labelled set on which the frozen features are probed before training and after each epoch; labels never
            reach the training, see :class:`~slotcon_plugin.evaluation.LinearProbeHook`.
        budget: seconds that the run may take; the number of epochs follows.
        resume: True goes on with the run in ``out``; a path, from that checkpoint.
        overwrite: set a used ``out`` aside.
        batch_mode: ``'accumulate'`` or ``'scale-lr'``, see :func:`slotcon_plugin.engine.batch.fit_batch`.
        launcher: who has started this process, one of several: ``'pytorch'`` (torchrun), ``'slurm'``, ``'mpi'``.

    Raises:
        UserError: something that was asked for does not go together, is not there, or does not fit.
        RunFailedError: the run ended itself, and says why.
    """
    cfg = _pretraining_of(config or _preset(method, init))
    if config and method and cfg.model.type.lower() != method.replace("_", ""):
        raise UserError(f"config {config} is one of {cfg.model.type}, not of {method}: give one of the two")
    if not config and not (photos or data_root or resume):
        raise UserError("photos: expected a folder of photos to learn from (or a config that brings its own)")
    options = _with_epochs(options or {}, epochs)
    if resume and init and not (config or network or str(init) in LIBRARIES or Path(init).exists()):
        folder = out or options.get("work_dir") or _work_dir_of(cfg)
        _use_backbone_of_run(cfg, resume if isinstance(resume, (str, Path)) else folder)
    elif network or (init and not config):
        _use_network(cfg, network_by_name(network) if network else _network_in(init))
    asked = dict(photos=photos, init=init, init_title=init_title, data_root=data_root, options=options)
    cfg = pretraining_config(cfg, **asked)
    budget = settled_budget(budget, options)
    if probe:
        cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), dict(type="LinearProbeHook", data=str(probe))]
    if not cfg.default_hooks.get("checkpoint"):
        raise UserError("default_hooks.checkpoint: without this hook the run would leave nothing behind")
    if out:
        cfg.work_dir = str(out)
    cfg.launcher = launcher
    runner = apis.pretrain(cfg, resume, batch_mode, overwrite, budget)
    barrier()  # the first rank has written the checkpoint that all read
    return finished(runner, last_checkpoint(runner), cfg)


def _with_epochs(options: Mapping[str, Any], epochs: int | None) -> Mapping[str, Any]:
    """Options with the number of epochs among them, by which schedules are fitted."""
    if epochs is None:
        return options
    if epochs < 1:
        raise UserError(f"epochs must be at least 1, got {epochs}")
    if (asked := options.get("train_cfg.max_epochs", epochs)) != epochs:
        raise UserError(f"--epochs {epochs} and train_cfg.max_epochs={asked} contradict each other: leave one out")
    return {**options, "train_cfg.max_epochs": epochs}


def pretraining_config(
    config: str | Path | Config,
    *,
    photos: str | Path | None = None,
    init: str | Path | None = None,
    init_title: str | None = None,
    data_root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Config:
    """A pretraining config with what was asked for on top of it, and a work dir; arguments as of :func:`pretrain`.

    Its schedules are not yet fitted to its length, which a budget may change.

    Args:
        config: name or file, or what :func:`~slotcon_plugin.config.read_config` gave.

    Raises:
        UserError: an option is refused, or what it names is not there.
    """
    cfg = config if isinstance(config, Config) else _pretraining_of(config)
    cfg.work_dir = _work_dir_of(cfg)
    options = {**(options or {}), **({"data_root": str(data_root)} if data_root else {})}
    if "data_root" in options and "data_root" not in cfg:
        raise UserError(
            f"{cfg.filename} has no data_root (in the copy in a work dir all paths are written out); "
            "--photos PATH takes the place of its photos"
        )
    apply_options(cfg, options, fit=False)
    if photos:
        apis.use_photos(cfg, str(photos))
    if init:
        told = cfg.init if isinstance(cfg.get("init"), dict) else {}
        if told.get("file") and Path(told["file"]).resolve() != Path(init).resolve():
            # what the config says of other weights is not true of these
            told = {key: value for key, value in told.items() if {f"init.{key}", f"+init.{key}"} & options.keys()}
        more = {"title": init_title} if init_title else {}
        cfg.init = {**told, "file": str(init), **more}
    elif init_title:
        raise UserError("--init-title names the weights of --init, which is not there")
    return cfg


def _pretraining_of(config: str | Path) -> Config:
    cfg = read_config(config)
    if is_transfer_config(cfg):
        raise UserError(f"{cfg.filename} is a fine-tuning's (slotcon finetune --config): expected a pretraining's")
    require_model(cfg)
    return cfg


def _work_dir_of(cfg: Config) -> str:
    return cfg.get("work_dir") or f"work_dirs/{Path(cfg.filename).stem}"


def settled_budget(budget: float | None, options: Mapping[str, Any]) -> float | None:
    """The budget of a run whose number of epochs may have been asked for: then none, nor that of its checkpoint.

    Raises:
        UserError: both are asked for.
    """
    if "train_cfg.max_epochs" not in options:
        return budget
    if budget:
        raise UserError("--budget sets the number of epochs: leave epochs (train_cfg.max_epochs) out")
    return math.inf


def finished(runner: Runner, checkpoint: Path, cfg: Config) -> Pretrained:
    """What the run of a config has made."""
    told, work_dir = open_checkpoint(checkpoint)[PRETRAINING_KEY], Path(cfg.work_dir)
    file = work_dir / f"{Path(cfg.filename).stem}.py"  # as the runner has written it
    epochs = runner.iter / len(runner.train_dataloader)
    return Pretrained(work_dir, checkpoint, file, told["method"], whole_title(told), told["photos"], epochs)


def _preset(method: str | None, init: str | Path | None) -> str:
    method, known = method or "slotcon", list_configs("pretrain")
    methods = sorted(name.removesuffix("_small") for name in known if name.endswith("_small"))
    if method not in methods:
        raise UserError(f"method: expected one of {', '.join(methods)}, got {method!r}")
    return f"{method}_continue" if init and f"{method}_continue" in known else f"{method}_small"


def _network_in(init: str | Path) -> Network | None:
    """The network of a file of weights; None = not known before they are read into the config's own."""
    if str(init) in LIBRARIES:
        return None
    try:
        return read_checkpoint(init).network
    except ConversionError:  # no ResNet, and it does not say what; or no such file, which is said when it is loaded
        return None


def _use_backbone_of_run(cfg: Config, run: str | Path) -> None:
    """Put the backbone of a run into a config: the weights that it began with have gone, and it goes on without them.

    A run that has left no checkpoint needs the weights, and they are asked for when they are read.
    """
    with contextlib.suppress(ConversionError):
        checkpoint = find_checkpoint(run)
        if checkpoint.is_file():
            cfg.model.backbone = open_checkpoint(checkpoint)[PRETRAINING_KEY]["backbone"]


def _use_network(cfg: Config, network: Network | None) -> None:
    """Put a network into a config, at the stride of the config's own and with its way of BatchNorm."""
    if network is None:
        return
    own = cfg.model.backbone
    stride = own.get("output_stride") or own.get("stride", 32)
    kept = {key: own[key] for key in ("zero_init_residual", "norm_eval") if key in own}
    if network.library == "torchvision":
        cfg.model.backbone = dict(type="TorchvisionResNet", depth=network.depth, stride=stride, **kept)
        return
    kept.pop("zero_init_residual", None)  # not timm's word
    cfg.model.backbone = dict(type="TimmBackbone", name=network.name, **network.options, **kept)
    cfg.model.backbone |= network.accepted(output_stride=stride)  # plain ViTs have one stride and take no other
