"""Run detectron2 configs from a pretrained backbone, on any number of GPUs or a CPU."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_setup, launch
from detectron2.utils import comm

from slotcon_plugin.convert import check_compatible
from slotcon_plugin.engine import RUN, claim_work_dir
from slotcon_plugin.engine.batch import MODES, BatchPlan, plan_batch
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_text
from slotcon_plugin.results import FILE_NAME
from slotcon_plugin.transfer import d2_heads  # noqa: F401  registers the C4 recipe's head
from slotcon_plugin.transfer.backbone import Origin, prepare_backbone
from slotcon_plugin.transfer.d2_data import check_data, relocate
from slotcon_plugin.transfer.d2_trainer import (
    RunStamp,
    Stopwatch,
    TransferTrainer,
    look_that_it_arrived,
    write,
)

ORIGIN_FILE = "backbone.json"


class Job(NamedTuple):
    """What every process needs to know; pickled when processes are spawned."""

    cfg: CfgNode
    recipe: CfgNode
    config_file: str
    origin: Origin
    plan: BatchPlan
    data_root: str | None
    resume: bool
    eval_only: bool
    run: dict[str, Any] | None = None


def train(
    config_file: str,
    opts: Sequence[str] = (),
    *,
    num_gpus: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    backbone: str | None = None,
    data_root: str | None = None,
    images_per_gpu: int | None = None,
    batch_mode: str | None = None,
    pretraining: str | None = None,
    resume: bool = False,
    eval_only: bool = False,
    overwrite: bool = False,
) -> None:
    """Fine-tune as the config says, evaluate, leave ``result.json`` in OUTPUT_DIR.

    Args:
        config_file: yaml; ``opts``: KEY VALUE pairs that override it.
        num_gpus: on this machine; without CUDA one process runs on the CPU.
        num_machines, machine_rank, dist_url: as in detectron2's own tools.
        backbone: checkpoint of any kind that the converters read; None = MODEL.WEIGHTS, empty = random initialisation.
        data_root: folder of the data set, if not where detectron2 looks.
        images_per_gpu: of one pass; None = the recipe's on 8 GPUs.
        batch_mode: on fewer or more GPUs, see :mod:`slotcon_plugin.engine.batch`; None = accumulate.
        pretraining: what to call the backbone in tables; None = the checkpoint's kind.
        resume: continue from the last checkpoint in OUTPUT_DIR.
        eval_only: evaluate MODEL.WEIGHTS (or, with ``resume``, the last checkpoint) and nothing else.
        overwrite: set a used OUTPUT_DIR aside.

    Raises:
        ValueError: missing data, class counts that disagree, a batch that cannot be split, an unfit checkpoint, an
            OUTPUT_DIR in use.
    """
    if not Path(config_file).is_file():
        raise ValueError(f"config {config_file} does not exist; detectron2's are in configs/transfer/detectron2")
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(opts))
    if cfg.OUTPUT_DIR == get_cfg().OUTPUT_DIR:
        cfg.OUTPUT_DIR = f"work_dirs/{Path(config_file).stem}"
    cfg.SEED = max(cfg.SEED, 0)
    recipe = cfg.clone()
    if data_root:
        relocate(cfg, data_root)
    check_data(cfg)
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        print("No GPU: training on the CPU")
        cfg.MODEL.DEVICE = "cpu"
    processes = num_gpus * num_machines if cfg.MODEL.DEVICE.startswith("cuda") else 1
    plan = _fit_batch(cfg, processes, images_per_gpu, batch_mode)
    run = None
    if not eval_only:
        print(plan.text)
        if machine_rank == 0:
            identity = {"task": f"detectron2_{Path(config_file).stem}", "seed": cfg.SEED}
            run, checkpoint = claim_work_dir(cfg.OUTPUT_DIR, identity, resume, overwrite)
            resume = checkpoint is not None
            if checkpoint:
                write_text(Path(cfg.OUTPUT_DIR) / "last_checkpoint", checkpoint.name)
    origin = _origin(cfg, backbone, pretraining, resume, eval_only)
    job = Job(cfg, recipe, config_file, origin, plan, data_root, resume, eval_only, run)
    launch(_work, processes // num_machines, num_machines, machine_rank, dist_url, args=(job,))


def _fit_batch(cfg: CfgNode, processes: int, images_per_gpu: int | None, mode: str | None) -> BatchPlan:
    total = cfg.SOLVER.IMS_PER_BATCH
    images_per_gpu = images_per_gpu or max(total // max(8, processes), 1)
    plan = plan_batch(total, processes, images_per_gpu, mode or MODES[0])
    if plan.lr_factor != 1:
        if total % images_per_gpu:
            raise UserError(f"--batch-mode scale-lr: SOLVER.IMS_PER_BATCH={total} is no multiple of {images_per_gpu}")
        cfg.SOLVER.REFERENCE_WORLD_SIZE = total // images_per_gpu  # detectron2 then scales lr, steps and periods itself
    return plan


def _origin(cfg: CfgNode, backbone: str | None, pretraining: str | None, resume: bool, eval_only: bool) -> Origin:
    """Convert and prove, once and before processes are started; a run that continues keeps its own origin."""
    output = Path(cfg.OUTPUT_DIR)
    kept = output / ORIGIN_FILE
    if eval_only or (resume and (output / "last_checkpoint").exists()):
        facts = json.loads(kept.read_text()) if kept.exists() else {"pretraining": pretraining or "unknown"}
        return Origin(facts["pretraining"], facts.get("backbone_sha256"), None)
    output.mkdir(parents=True, exist_ok=True)
    as_run = output / "transfer_config.yaml"
    as_run.write_text(cfg.dump(), encoding="utf-8")
    origin, meta = prepare_backbone(
        backbone or cfg.MODEL.WEIGHTS or None, output / "backbone.pkl", "detectron2", as_run, pretraining
    )
    cfg.MODEL.WEIGHTS = str(origin.file or "")
    if origin.file:
        check_compatible(meta, **input_convention(cfg))
    kept.write_text(json.dumps({"pretraining": origin.pretraining, "backbone_sha256": origin.sha256}) + "\n")
    print(f"Backbone: {origin.pretraining}, " + (f"sha256 {origin.sha256[:12]}" if origin.sha256 else "random weights"))
    return origin


def input_convention(cfg: CfgNode) -> dict[str, Any]:
    """What a config's network sees and is built like: arguments of :func:`~slotcon_plugin.convert.check_compatible`."""
    return {
        "colour_order": cfg.INPUT.FORMAT,
        "mean": cfg.MODEL.PIXEL_MEAN,
        "std": cfg.MODEL.PIXEL_STD,
        "stem": "7x7",
        "stride_in_1x1": cfg.MODEL.RESNETS.STRIDE_IN_1X1,
    }


def _work(job: Job) -> None:
    """One process of the run."""
    if job.data_root and comm.get_world_size() > 1:  # spawned: the parent's registrations are not here
        relocate(job.cfg, job.data_root)
    default_setup(job.cfg, Namespace(config_file=job.config_file, eval_only=job.eval_only))
    watch = Stopwatch()
    if job.eval_only:
        model = TransferTrainer.build_model(job.cfg)
        checkpointer = DetectionCheckpointer(model, save_dir=job.cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(job.cfg.MODEL.WEIGHTS, resume=job.resume)
        results = TransferTrainer.test(job.cfg, model)
    else:
        trainer = TransferTrainer(job.cfg, job.plan.accumulate)
        trainer.register_hooks([watch])
        trainer.checkpointer.add_checkpointable(RUN, RunStamp(job.run))
        trainer.resume_or_load(resume=job.resume)
        if trainer.start_iter == 0:
            look_that_it_arrived(trainer.model, job.origin)
        trainer.train()
        results = trainer.results
    if comm.is_main_process() and results:
        name = f"test_{FILE_NAME}" if job.eval_only else FILE_NAME
        path = write(Path(job.cfg.OUTPUT_DIR) / name, job.recipe, job.config_file, job.origin, results, watch.seconds())
        logging.getLogger("detectron2").info("Result: %s", path)
