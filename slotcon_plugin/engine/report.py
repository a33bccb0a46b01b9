"""What a pretraining says of itself before its first step and after its last."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import Runner

from slotcon_plugin.command import own_command
from slotcon_plugin.convert.network import is_plain_resnet, network_of_backbone
from slotcon_plugin.engine.batch import accumulated_passes
from slotcon_plugin.engine.health import SlotHealthHook
from slotcon_plugin.engine.json_lines import HEALTH_FILE, read_json_lines
from slotcon_plugin.engine.last_checkpoint import last_checkpoint
from slotcon_plugin.engine.progress import health_of
from slotcon_plugin.files import from_here
from slotcon_plugin.models import Method
from slotcon_plugin.models.distributed import unwrapped

_MANY = 1000
_FEW = "fewer than a thousand: see it as a trial (docs/should_i_pretrain.md); published weights may serve you better"


def pretraining_head(runner: Runner) -> list[tuple[str, str]]:
    """Method, network, first weights, photos, length, work dir."""
    model, loader = unwrapped(runner.model), runner.train_dataloader
    network = network_of_backbone(runner.cfg.model.backbone) or runner.cfg.model.backbone["type"]
    init = model.init["title"] if model.init else "random weights"
    dataset = runner.cfg.train_dataloader.dataset  # perhaps one of the user's own
    source = dataset.get("source", dataset)
    views = f", in views of {dataset.view_size} pixels" if "view_size" in dataset else ""
    place = next((source[key] for key in ("root", "path", "ann_file") if key in source), source["type"])
    accumulated = accumulated_passes(runner)
    batch = loader.batch_size * get_world_size() * accumulated
    steps, epochs = runner.max_iters // accumulated, runner.cfg.train_cfg.max_epochs
    photos = len(loader.dataset)
    few = f"\n{_FEW}" if photos < _MANY else ""
    return [
        ("pretraining", f"{model.method.title}: {network} from {init}"),
        ("photos", f"{photos:,} of {place}{views}{few}"),
        ("length", f"{epochs:g} epoch{'s' if epochs != 1 else ''}, {steps:,} steps of {batch} photos"),
        ("output", from_here(runner.work_dir)),
    ]


def pretraining_made(runner: Runner, next_steps: bool = True) -> list[tuple[str, str]]:
    """Where the checkpoint is, what has become of loss and health; with ``next_steps`` what to do with it."""
    work_dir, model = runner.work_dir, unwrapped(runner.model)
    written = runner.message_hub.get_info("last_ckpt")
    rows = [("checkpoint", from_here(last_checkpoint(runner)) if written else "none was written")]
    path = Path(work_dir) / HEALTH_FILE
    watched = any(isinstance(hook, SlotHealthHook) for hook in runner.hooks)
    records = read_json_lines(path) if watched and path.is_file() else []  # none in a run too short for a report
    if records:
        if told := _loss(records):
            rows.append(("loss", told))
        last, found = records[-1], []
        if "live_prototypes_epoch" in last:
            found.append(f"{last['live_prototypes_epoch']} of {last['num_prototypes']} prototypes in use")
        if "effective_rank" in last:
            found.append(f"features of effective rank {last['effective_rank']:.0f}")
        rows.append(("health", ", ".join(filter(None, [health_of(runner), *found]))))
    if probed := runner.message_hub.runtime_info.get("linear_probe"):  # of evaluation.LinearProbeHook, a room above
        rows.append(("probe", probed))
    if next_steps:
        backbone = runner.cfg.model.backbone
        converts = bool(network_of_backbone(backbone)) or is_plain_resnet(backbone)
        rows.append(("next", "\n".join(_next_steps(from_here(work_dir), model.method, converts))))
    return rows


def _loss(records: Sequence[Mapping[str, Any]]) -> str:
    """The first and the last mean of a loss that compare: as long as a queue of negatives fills, its loss rises."""
    has_queue = "queue_fill" in records[0]
    filling = max((number for number, record in enumerate(records, 1) if record.get("queue_fill", 1) < 1), default=0)
    # A report averages the steps before it but gives the fill after its last step, so the report in which the queue
    # became full, perhaps the first of all, is skipped.
    first = filling + has_queue
    # None was not finite: such a step is left out by the scaler of float16 or by `nan_guard.action=skip`
    losses = [record["loss"] for record in records[first:] if record.get("loss") is not None]
    when = "with a full queue" if has_queue else "at the start"
    if len(losses) > 1:
        return f"{losses[0]:.4g} {when}, {losses[-1]:.4g} at the end"
    last = records[-1].get("loss")
    return f"{last:.4g} at the end" if last else ""


def _next_steps(work_dir: str, method: Method, converts: bool) -> list[str]:
    """Commands that go on from a finished pretraining, by what its method and its backbone allow."""
    command, run = own_command(), shlex.quote(work_dir)
    look = [f"{command} look {run}"]
    if method.groups:
        look.append(f"{command} look {run} PHOTOS")
    elif method.embeds_pixels:
        look.append(f"{command} look {run} PHOTO PHOTO")
    train = f"{command} finetune LABELLED --backbone {run}"
    export = f"{command} export {run} backbone.pth --target mmseg    # or detectron2, mmdet, timm, torchvision"
    return [*look, f"{command} evaluate {run} LABELLED", *([train, export] if converts else [])]
