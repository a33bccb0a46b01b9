"""Run mmdet and mmsegmentation configs from a pretrained backbone, on any number of processes."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from slotcon_plugin.convert import check_compatible, read_checkpoint
from slotcon_plugin.convert.canonical import backbone_sha256
from slotcon_plugin.engine import RunStampHook, StopOnSignalHook, allow_checkpoint_classes, claim_work_dir, shared
from slotcon_plugin.engine.batch import accumulated_passes, fit_batch
from slotcon_plugin.engine.console import run_console
from slotcon_plugin.engine.cpu import keep_freed_memory
from slotcon_plugin.engine.failures import failures_told
from slotcon_plugin.engine.lock import put_back_if_refused
from slotcon_plugin.engine.processes import start_processes
from slotcon_plugin.engine.progress import EvaluationProgressHook, ProgressHook, images_per_pass
from slotcon_plugin.engine.runner import TerseRunner
from slotcon_plugin.engine.seed import check_seed
from slotcon_plugin.engine.stop import signals_given_back
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import from_here, write_text
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.transfer.backbone import (
    FROM_RANDOM,
    Origin,
    hashed_weights,
    measured_as,
    prepare_backbone,
    require_checkpoint_to_leave_behind,
    require_start,
    timm_network,
)
from slotcon_plugin.transfer.checkpoint import (
    TransferCheckpoint,
    check_whole,
    length_of,
    read_transfer_checkpoint,
    require_same_steps,
    test_result_path,
)
from slotcon_plugin.transfer.given_weights import refuse_weights_set_aside
from slotcon_plugin.transfer.mm_data import check_data, check_evaluations, read_by_load_photo, relocate
from slotcon_plugin.transfer.mm_hooks import TransferRun
from slotcon_plugin.transfer.mm_labels import follow_labels
from slotcon_plugin.transfer.mm_model import input_convention, replace_sync_bn, take_named_backbone, without_checkpoints

# Scope -> modules that register what configs name: data sets, evaluators, the photos' reader.
_REGISTERING = {"mmdet": ("mm_objects", "mm_photo"), "mmseg": ("mm_labelled", "mm_photo")}


def is_transfer_config(cfg: Config) -> bool:
    """Whether a config is one of mmdet's or mmseg's."""
    return cfg.get("default_scope") in _REGISTERING


def train(
    cfg: Config,
    backbone: str | None = None,
    data_root: str | None = None,
    batch_mode: str | None = None,
    pretraining: str | None = None,
    resume: bool | str = False,
    overwrite: bool = False,
    fpn: bool = True,
) -> Runner:
    """Fine-tune as the config says, evaluate, leave ``result.json`` in the work dir.

    Args:
        cfg: with ``work_dir`` set; with ``load_from`` the run begins with the whole model of an earlier transfer run.
        backbone: checkpoint of any kind that the converters read; None = the one that the config's backbone names, or
            random initialisation.
        data_root: where the data sets lie, if not where the config says.
        batch_mode: takes the place of the config's, see :func:`~slotcon_plugin.engine.batch.fit_batch`.
        pretraining: what to call the backbone in tables; None = the method that made the checkpoint.
        resume: True = from the newest whole checkpoint of the run in the work dir, or a checkpoint's path.
        overwrite: set a used work dir aside.
        fpn: whether the checkpoint's pyramid or FCN head goes along, where it fits.

    Raises:
        UserError: missing data, class counts that disagree, a batch that cannot be made, another run's work dir,
            weights that do not fit the config or lie in a work dir to be set aside, or nothing to resume from and no
            backbone.
        ConversionError: the checkpoint is of another kind, or does not fit the config.
        RunStoppedError: the run was asked to stop and has left a checkpoint.
        RunFailedError: the run ended itself, and says why.
    """
    with run_console() as at_the_end, signals_given_back():
        return _train(cfg, backbone, data_root, batch_mode, pretraining, resume, overwrite, fpn, at_the_end)


def _train(
    cfg: Config,
    backbone: str | None,
    data_root: str | None,
    batch_mode: str | None,
    pretraining: str | None,
    resume: bool | str,
    overwrite: bool,
    fpn: bool,
    at_the_end: ExitStack,
) -> Runner:
    recipe = _prepare(cfg, data_root)
    backbone = backbone or take_named_backbone(cfg.model)
    if backbone and cfg.get("load_from"):
        raise UserError(f"load_from ({cfg.load_from}) brings a backbone of its own: leave out {backbone}")
    require_checkpoint_to_leave_behind(fpn, backbone, resume)
    refuse_weights_set_aside(cfg.work_dir, overwrite, backbone or cfg.get("load_from"))
    task = measured_as(task_name(cfg), fpn)
    identity = {"task": task, **_identity(cfg, backbone, bool(resume))}
    claim = claim_work_dir(cfg.work_dir, identity, resume, overwrite, cfg.get("launcher"))
    with put_back_if_refused(cfg.work_dir, claim and claim.aside), failures_told(cfg.work_dir):
        processes = start_processes(cfg)
        claim = shared(claim)
        cfg.randomness = {**(cfg.get("randomness") or {}), "seed": claim.run["identity"].get("seed") or 0}
        batch = fit_batch(cfg, processes, batch_mode)
        length = length_of(cfg, processes)
        former = None
        if claim.checkpoint:
            former = read_transfer_checkpoint(claim.checkpoint)
            require_same_steps(former, length)
            origin = former.origin(pretraining)
        elif cfg.get("load_from"):
            former = read_transfer_checkpoint(cfg.load_from)
            cfg.load_from = str(former.path)
            origin = former.origin(pretraining)._replace(sha256=_sha256(former, cfg), file=former.path)
        else:
            if resume:
                require_start(cfg.work_dir, backbone, pretraining)
            origin = use_backbone(cfg, backbone, pretraining, fpn)
        runner = _build_runner(cfg, processes)
        if claim.checkpoint:
            runner.go_on_from(claim.checkpoint)
        if former:
            check_whole(unwrapped(runner.model), former, "" if claim.checkpoint else "backbone.")
        seconds = former.facts.get("wall_time_s", 0.0) if claim.checkpoint else 0.0
        seed = cfg.randomness["seed"]
        runner.register_hook(TransferRun(task, recipe, origin, seed, seconds, length=length, batch=batch))
        runner.register_hook(RunStampHook(claim.run))
        progress = ProgressHook(partial(_head, origin), _made)
        at_the_end.callback(progress.close)
        runner.register_hook(progress)
        runner.register_hook(StopOnSignalHook())
        runner.train()
    return runner


def _head(origin: Origin, runner: Runner) -> list[tuple[str, str]]:
    loop, photos, passes = runner.train_loop, len(runner.train_dataloader.dataset), accumulated_passes(runner)
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    length = f"{loop.max_epochs} epochs" if by_epoch else f"{loop.max_iters // passes:,} steps"
    return [
        ("fine-tuning", f"{task_name(runner.cfg)} from {origin}"),
        ("photos", f"{photos:,}, {length} of {passes * images_per_pass(runner.train_dataloader)}"),
        ("output", from_here(runner.work_dir)),
    ]


def _made(runner: Runner) -> list[tuple[str, str]]:
    return [("checkpoint", runner.message_hub.get_info("last_ckpt") or "none was written")]


def evaluate(
    cfg: Config, checkpoint: str, data_root: str | None = None, pretraining: str | None = None
) -> dict[str, float]:
    """Evaluate a checkpoint on the config's test set; leave ``test_result.json`` in the work dir, logs in its ``test``.

    Args:
        cfg: with ``work_dir`` set.
        checkpoint: of a run of this config; every weight of the model must be in it.
        data_root: where the data sets lie, if not where the config says.
        pretraining: what to call the backbone of a checkpoint that does not say; None = ``unknown``.

    Raises:
        UserError: missing data, class counts that disagree, a checkpoint of another model, or the result of another
            checkpoint in the work dir.
    """
    with run_console() as at_the_end:
        return _evaluate(cfg, checkpoint, data_root, pretraining, at_the_end)


def _evaluate(
    cfg: Config, checkpoint: str, data_root: str | None, pretraining: str | None, at_the_end: ExitStack
) -> dict[str, float]:
    recipe = _prepare(cfg, data_root)
    given = read_transfer_checkpoint(checkpoint)
    path, tested = test_result_path(cfg.work_dir, given)
    cfg.work_dir = str(path.parent / "test")  # what the runner writes does not replace the training's
    cfg.load_from = str(given.path)
    take_named_backbone(cfg.model)
    runner = _build_runner(cfg, start_processes(cfg))
    check_whole(unwrapped(runner.model), given)
    seed, origin = given.facts.get("seed", 0), given.origin(pretraining)
    task = measured_as(task_name(cfg), origin.fpn)
    photos = given.facts.get("trained_on")
    runner.register_hook(TransferRun(task, recipe, origin, seed, test_path=path, trained_on=photos, **tested))
    progress = EvaluationProgressHook([("testing", f"{given.path}, {task} from {origin}")])
    at_the_end.callback(progress.close)
    runner.register_hook(progress)
    return runner.test()


def task_name(cfg: Config) -> str:
    """``mmseg_fcn_r50_cityscapes``: the column that a result belongs to."""
    return f"{cfg.default_scope}_{Path(cfg.filename).stem}"


def _prepare(cfg: Config, data_root: str | None) -> Config:
    """Look for the data and move it; returns the recipe as it was given."""
    allow_checkpoint_classes()
    for module in _REGISTERING[cfg.default_scope]:  # known in every run, whatever the config's custom_imports are
        import_module(f"slotcon_plugin.transfer.{module}")
    recipe = copy.deepcopy(cfg)
    check_seed(cfg)
    check_evaluations(cfg)
    init_default_scope(cfg.default_scope)
    if data_root:
        relocate(cfg, data_root)
    follow_labels(cfg)
    check_data(cfg)
    return recipe


def _identity(cfg: Config, backbone: str | None, resume: bool) -> dict[str, Any]:
    """Seed and first weights of a run; None where a resumed run's own are to be taken."""
    seed = (cfg.get("randomness") or {}).get("seed", None if resume else 0)
    if backbone and not (resume and not Path(backbone).exists()):
        network = timm_network(cfg.model.backbone)
        return {"seed": seed, "backbone": read_checkpoint(backbone, network=network).meta["backbone_sha256"]}
    if cfg.get("load_from"):
        return {"seed": seed, "backbone": _sha256(read_transfer_checkpoint(cfg.load_from), cfg)}
    return {"seed": seed, "backbone": None if resume else FROM_RANDOM.pretraining}


def _sha256(checkpoint: TransferCheckpoint, cfg: Config) -> str:
    prefix = "backbone."
    own = {k.removeprefix(prefix): v for k, v in checkpoint.weights.items() if k.startswith(prefix)}
    return backbone_sha256(hashed_weights(own, timm_network(cfg.model.backbone)))


def use_backbone(cfg: Config, checkpoint: str | None, pretraining: str | None, fpn: bool = True) -> Origin:
    """Convert, prove and put into the config.

    Raises:
        ConversionError: no such file, wrong kind, failed proof, or another input convention than the config's.
    """
    model = cfg.model
    for part in ("neck", "decode_head"):  # in the copy of a config in a work dir: that run's own
        if (model.get(part) or {}).get("init_cfg"):
            model[part].init_cfg = without_checkpoints(model[part].init_cfg)
    work_dir = Path(cfg.work_dir)
    as_run = work_dir / "transfer_config.py"
    write_text(as_run, cfg.pretty_text)
    network = timm_network(model.backbone)
    origin, meta = prepare_backbone(
        checkpoint, work_dir / "backbone.pth", cfg.default_scope, as_run, pretraining, network, fpn
    )
    if origin.file:
        check_compatible(meta, **input_convention(model))
        model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": str(origin.file)}
        if meta["fpn"]:
            model.neck.init_cfg = {"type": "Pretrained", "checkpoint": str(origin.file), "prefix": "neck."}
        if meta["fcn"] or meta["semantic"]:
            convs = {"type": "Pretrained", "checkpoint": str(origin.file), "prefix": "decode_head."}
            classifier = {"type": "Normal", "std": 0.01, "override": {"name": "conv_seg"}}  # mmseg's own start
            model.decode_head.init_cfg = [classifier, convs]
    return origin


class _TransferRunner(TerseRunner):
    """Reads photos of one's own by this package's reader; the copy of the config stays as the inferencers want it."""

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict[str, Any], *args: Any, **kwargs: Any) -> DataLoader:
        """mmengine's, see :func:`~slotcon_plugin.transfer.mm_data.read_by_load_photo`."""
        if isinstance(dataloader, dict):
            dataloader = copy.deepcopy(dataloader)
            read_by_load_photo(dataloader)
        return TerseRunner.build_dataloader(dataloader, *args, **kwargs)


def _build_runner(cfg: Config, processes: int) -> TerseRunner:
    if not torch.cuda.is_available():
        keep_freed_memory()
        if processes > 1:
            print_log("No GPU: SyncBN works on GPUs alone, each process normalises its own images", "current")
            replace_sync_bn(cfg.model)
    cfg.default_hooks = {"checkpoint": {"type": "CheckpointHook", "interval": 1}, **(cfg.get("default_hooks") or {})}
    checkpoint = cfg.default_hooks.checkpoint  # mmengine's own, where the config leaves it out; None = none is written
    if checkpoint and checkpoint.type == "CheckpointHook":  # whole or not at all; written before an older one goes
        checkpoint.update(type="slotcon_plugin.SafeCheckpointHook", backend_args={"backend": "atomic"})
    loop = cfg.get("train_cfg") or {}
    if loop.get("type") == "EpochBasedTrainLoop" or loop.get("by_epoch"):
        loop.pop("by_epoch", None)
        loop.type = "slotcon_plugin.ResumableEpochLoop"
    return _TransferRunner.from_cfg(cfg)


__all__ = ["evaluate", "is_transfer_config", "task_name", "train", "use_backbone"]
