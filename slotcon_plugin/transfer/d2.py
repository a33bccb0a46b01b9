"""Run detectron2 configs from a pretrained backbone, on any number of GPUs or a CPU."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import default_setup, launch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from slotcon_plugin.checkpoints.runs import find_checkpoint
from slotcon_plugin.convert.writers.detectron2 import network_of_config
from slotcon_plugin.engine.batch import BatchPlan
from slotcon_plugin.engine.failures import failures_told
from slotcon_plugin.engine.lock import put_back_if_refused
from slotcon_plugin.engine.work_dir import Claim, claim_work_dir, shared
from slotcon_plugin.errors import UserError
from slotcon_plugin.results import FILE_NAME, LOADED, write_result
from slotcon_plugin.transfer import d2_heads  # noqa: F401  registers the C4 recipe's head
from slotcon_plugin.transfer.backbone import (
    Origin,
    measured_as,
    require_checkpoint_to_leave_behind,
    require_start,
    warn_of_frozen_parts,
)
from slotcon_plugin.transfer.checkpoint import (
    check_whole,
    read_transfer_checkpoint,
    require_same_steps,
    test_result_path,
)
from slotcon_plugin.transfer.d2_batch import ONE_PROCESS, Hardware, fit_batch, processes_of, step_of
from slotcon_plugin.transfer.d2_config import read_config
from slotcon_plugin.transfer.d2_data import relocate
from slotcon_plugin.transfer.d2_evaluation import tidy_metrics
from slotcon_plugin.transfer.d2_start import build_on_cpu, first_weights, identity_of, is_finished, use_weights
from slotcon_plugin.transfer.d2_trainer import (
    RunMeta,
    TransferTrainer,
    bottom_up_of,
    check_backbone_arrived,
    num_photos,
)
from slotcon_plugin.transfer.given_weights import refuse_weights_set_aside

CURE = "MODEL.BACKBONE.FREEZE_AT 0, MODEL.RESNETS.NORM SyncBN"


class Job(NamedTuple):
    """What every process needs to know; pickled when processes are spawned."""

    cfg: CfgNode
    recipe: CfgNode
    config_file: str
    data_root: str | None
    origin: Origin
    result: Path
    facts: dict[str, Any]
    seconds: float = 0.0  # of the run so far
    trained_on: int | None = None  # photos, as the checkpoint says that is evaluated
    plan: BatchPlan | None = None
    claim: Claim | None = None
    finished: bool = False


def train(
    config_file: str,
    opts: Sequence[str] = (),
    hardware: Hardware = ONE_PROCESS,
    *,
    backbone: str | None = None,
    data_root: str | None = None,
    images_per_gpu: int | None = None,
    batch_mode: str | None = None,
    pretraining: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    fpn: bool = True,
) -> None:
    """Fine-tune as the config says, evaluate, leave ``result.json`` in OUTPUT_DIR.

    Args:
        config_file: yaml; ``opts``: KEY VALUE pairs that override it.
        hardware: to run on.
        backbone: checkpoint of any kind that the converters read; None = MODEL.WEIGHTS, which may also be a whole
            detector, empty = random initialisation.
        data_root: folder of the data set, if not where detectron2 looks.
        images_per_gpu: of one pass; None = the recipe's on 8 GPUs.
        batch_mode: on fewer or more GPUs, see :mod:`slotcon_plugin.engine.batch`; None = accumulate.
        pretraining: what to call the backbone in tables; None = the method that made the checkpoint.
        resume: continue from the newest whole checkpoint of the run in OUTPUT_DIR; a finished run's files stay.
        overwrite: set a used OUTPUT_DIR aside.
        fpn: whether the checkpoint's pyramid goes along, where it fits.

    Raises:
        UserError: missing data, class counts that disagree, a batch that cannot be made, an unfit checkpoint, one of
            another batch or beyond MAX_ITER, another run's OUTPUT_DIR, weights that lie in one to be set aside, or
            nothing to resume from and no backbone.
    """
    cfg, recipe = read_config(config_file, opts, data_root)
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty: name a data set to train on, such as ('coco_2017_train',)")
    cfg.OUTPUT_DIR = cfg.OUTPUT_DIR or f"work_dirs/{Path(config_file).stem}"
    processes = processes_of(cfg, hardware)
    plan = fit_batch(cfg, processes, images_per_gpu, batch_mode)
    steps = TransferTrainer.auto_scale_workers(cfg, processes).SOLVER.MAX_ITER
    print(plan.text)
    first = first_weights(cfg, backbone, resume)
    if first.detector:
        recipe.MODEL.WEIGHTS = LOADED
    require_checkpoint_to_leave_behind(fpn, None if first.detector else first.path, resume)
    refuse_weights_set_aside(cfg.OUTPUT_DIR, overwrite, first.path)
    claim, former, finished = None, None, False
    if hardware.machine_rank == 0:
        identity = {"task": measured_as(task_name(config_file), fpn), **identity_of(cfg, first.path, resume)}
        claim = claim_work_dir(cfg.OUTPUT_DIR, identity, resume, overwrite)
        cfg.SEED = claim.run["identity"].get("seed") or 0
    cfg.SEED = max(cfg.SEED, 0)
    with put_back_if_refused(cfg.OUTPUT_DIR, claim and claim.aside), failures_told(cfg.OUTPUT_DIR):
        if claim and claim.checkpoint:
            former = read_transfer_checkpoint(claim.checkpoint)
            require_same_steps(former, step_of(cfg, plan))
            finished = is_finished(former, steps)
            check_whole(build_on_cpu(cfg), former)
            origin = former.origin(pretraining)
        else:
            if resume and claim:
                require_start(cfg.OUTPUT_DIR, first.path, pretraining)
            origin = use_weights(cfg, first, pretraining, fpn)
        facts = {"batch": plan.text}
        result = Path(cfg.OUTPUT_DIR) / FILE_NAME
        known = former.facts if former else {}
        seconds, photos = known.get("wall_time_s", 0.0), known.get("trained_on")
        job = Job(cfg, recipe, config_file, data_root, origin, result, facts, seconds, photos, plan, claim, finished)
        _launch(_train, job, hardware)


def evaluate(
    config_file: str,
    opts: Sequence[str] = (),
    hardware: Hardware = ONE_PROCESS,
    *,
    data_root: str | None = None,
    pretraining: str | None = None,
    resume: bool = False,
) -> None:
    """Evaluate MODEL.WEIGHTS; leave ``test_result.json`` in OUTPUT_DIR (default: its folder), logs in its ``test``.

    Args:
        config_file, opts, hardware, data_root: see :func:`train`.
        pretraining: what to call the backbone of a checkpoint that does not say; None = ``unknown``.
        resume: evaluate the newest whole checkpoint in OUTPUT_DIR.

    Raises:
        UserError: missing data, class counts that disagree, no checkpoint or one of another model, or the result of
            another checkpoint in OUTPUT_DIR.
    """
    cfg, recipe = read_config(config_file, opts, data_root)
    weights = cfg.MODEL.WEIGHTS
    if resume:
        weights = find_checkpoint(cfg.OUTPUT_DIR or f"work_dirs/{Path(config_file).stem}")
    if not weights:
        raise UserError("--eval-only needs the model to evaluate: MODEL.WEIGHTS runs/mine/model_final.pth")
    given = read_transfer_checkpoint(PathManager.get_local_path(str(weights)))
    check_whole(build_on_cpu(cfg), given)
    result, tested = test_result_path(cfg.OUTPUT_DIR or given.path.parent, given)
    cfg.MODEL.WEIGHTS = str(given.path)
    cfg.OUTPUT_DIR = str(result.parent / "test")  # what detectron2 writes does not replace the training's
    cfg.SEED = given.facts.get("seed", max(cfg.SEED, 0))
    processes_of(cfg, hardware)
    origin, photos = given.origin(pretraining), given.facts.get("trained_on")
    job = Job(cfg, recipe, config_file, data_root, origin, result, tested, trained_on=photos)
    _launch(_evaluate, job, hardware)


def task_name(config_file: str) -> str:
    """``detectron2_mask_rcnn_r50_fpn_1x_coco``: the column that a result belongs to."""
    return f"detectron2_{Path(config_file).stem}"


def _launch(work: Callable[[Job], None], job: Job, hardware: Hardware) -> None:
    here = hardware.num_gpus if job.cfg.MODEL.DEVICE.startswith("cuda") else 1
    launch(work, here, hardware.num_machines, hardware.machine_rank, hardware.dist_url, args=(job,))


def _set_up(job: Job) -> None:
    """In every process of a run."""
    if job.data_root and comm.get_world_size() > 1:  # spawned: the parent's registrations are not here
        relocate(job.cfg, job.data_root)
    default_setup(job.cfg, Namespace(config_file=job.config_file, eval_only=job.plan is None))


def _train(job: Job) -> None:
    claim = shared(job.claim)
    if comm.all_gather(job.finished)[0]:  # the first machine alone has looked
        _judge_finished(job, claim.checkpoint)
        return
    _set_up(job)
    trainer = TransferTrainer(job.cfg, job.plan.accumulate)
    photos = num_photos(trainer.data_loader)
    meta = RunMeta(claim.run, job.origin, job.cfg.SEED, step_of(job.cfg, job.plan), photos, job.seconds)
    trainer.checkpointer.add_checkpointable("meta", meta)
    network = network_of_config(job.cfg)
    if network is None:  # timm's are trained whole; NORM_EVAL is not their default
        warn_of_frozen_parts(bottom_up_of(trainer.model), CURE)
    if claim.checkpoint:
        trainer.go_on_from(claim.checkpoint)
    else:
        trainer.resume_or_load(resume=False)
        check_backbone_arrived(trainer.model, job.origin, network)
    logging.getLogger("detectron2").info("Backbone: %s", job.origin)
    trainer.train()
    job.facts["iterations"] = trainer.max_iter  # by its batch perhaps not the recipe's
    _write(job, trainer.results, meta.seconds(), photos)


def _judge_finished(job: Job, checkpoint: Path) -> None:
    """Measure a run that has made all its steps, if that is missing; what it has left stays as it is."""
    folder = job.cfg.OUTPUT_DIR
    if comm.is_main_process():
        print(f"{folder} is finished: nothing is trained. To train on, give a longer SOLVER.MAX_ITER and resume it")
    if comm.all_gather(job.result.exists())[0]:
        return
    cfg = job.cfg.clone()
    job.facts["iterations"] = TransferTrainer.auto_scale_workers(cfg, comm.get_world_size()).SOLVER.MAX_ITER
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(checkpoint), str(Path(folder) / "test")
    _evaluate(job._replace(cfg=cfg, plan=None))


def _evaluate(job: Job) -> None:
    _set_up(job)
    started = time.monotonic()
    model = TransferTrainer.build_model(job.cfg)
    DetectionCheckpointer(model).load(job.cfg.MODEL.WEIGHTS)
    _write(job, TransferTrainer.test(job.cfg, model), job.seconds + time.monotonic() - started, job.trained_on)


def _write(job: Job, results: dict[str, Any], seconds: float, trained_on: int | None) -> None:
    if not (comm.is_main_process() and results):
        return
    if trained_on is not None:
        job.facts["num_images"] = [trained_on, sum(len(DatasetCatalog.get(name)) for name in job.cfg.DATASETS.TEST)]
    path = write_result(
        job.result,
        task=measured_as(task_name(job.config_file), job.origin.fpn),
        metrics=tidy_metrics(results),
        pretraining=job.origin.pretraining,
        config=job.recipe,
        config_name=job.config_file,
        backbone_sha256=job.origin.sha256,
        seed=job.cfg.SEED,
        wall_time_s=seconds,
        **job.origin.told,
        **job.facts,
    )
    logging.getLogger("detectron2").info("Result: %s", path)
