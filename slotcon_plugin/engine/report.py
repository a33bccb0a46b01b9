"""What a pretraining says of itself before its first step and after its last."""

from __future__ import annotations

import shlex
from pathlib import Path

from mmengine.dist import get_world_size
from mmengine.runner import Runner

from slotcon_plugin.command import own_command
from slotcon_plugin.convert.network import network_of_backbone
from slotcon_plugin.engine.health import SlotHealthHook
from slotcon_plugin.engine.json_lines import read_json_lines
from slotcon_plugin.engine.progress import health_of
from slotcon_plugin.files import from_here
from slotcon_plugin.models.distributed import unwrapped


def pretraining_head(runner: Runner) -> list[tuple[str, str]]:
    """Method, network, first weights, photos, length, work dir."""
    model, loader = unwrapped(runner.model), runner.train_dataloader
    network = network_of_backbone(runner.cfg.model.backbone) or runner.cfg.model.backbone["type"]
    init = model.init["title"] if getattr(model, "init", None) else "random weights"
    dataset = runner.cfg.train_dataloader.dataset  # perhaps one of the user's own
    source = dataset.get("source", dataset)
    views = f", in views of {dataset.view_size} pixels" if "view_size" in dataset else ""
    place = next((source[key] for key in ("root", "path", "ann_file") if key in source), source["type"])
    accumulated = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
    batch = loader.batch_size * get_world_size() * accumulated
    steps, epochs = runner.max_iters // accumulated, runner.cfg.train_cfg.max_epochs
    return [
        ("pretraining", f"{model.method.title}: {network} from {init}"),
        ("photos", f"{len(loader.dataset):,} of {place}{views}"),
        ("length", f"{epochs:g} epoch{'s' if epochs != 1 else ''}, {steps:,} steps of {batch} photos"),
        ("output", from_here(runner.work_dir)),
    ]


def pretraining_made(runner: Runner, next_steps: bool = True) -> list[tuple[str, str]]:
    """Where the checkpoint is, what has become of loss and health; with ``next_steps`` what to do with it."""
    work_dir, model = runner.work_dir, unwrapped(runner.model)
    last = runner.message_hub.get_info("last_ckpt")
    rows = [("checkpoint", from_here(last) if last else "none was written")]
    path = Path(work_dir) / "health.jsonl"
    watched = any(isinstance(hook, SlotHealthHook) for hook in runner.hooks)
    records = read_json_lines(path) if watched and path.is_file() else []  # none in a run too short for a report
    if records:
        last, losses = records[-1], [record["loss"] for record in records if record.get("loss")]
        if losses:  # 0 is that of an empty queue: there was nothing to tell apart
            rows.append(("loss", f"{losses[0]:.4g} at the start, {losses[-1]:.4g} at the end"))
        found = []
        if "live_prototypes_epoch" in last:
            found.append(f"{last['live_prototypes_epoch']} of {last['num_prototypes']} prototypes in use")
        if "effective_rank" in last:
            found.append(f"features of effective rank {last['effective_rank']:.0f}")
        rows.append(("health", ", ".join(filter(None, [health_of(runner), *found]))))
    if next_steps:
        rows.append(("next", "\n".join(_next_steps(from_here(work_dir), model.method.groups))))
    return rows


def _next_steps(work_dir: str, groups: bool) -> list[str]:
    """Commands that go on from a finished pretraining."""
    command, run = own_command(), shlex.quote(work_dir)
    look = [f"{command} look {run}"]
    if groups:
        look.append(f"{command} look {run} PHOTOS")
    return [
        *look,
        f"{command} evaluate {run} LABELLED",
        f"{command} export {run} backbone.pth --target mmseg    # or detectron2, mmdet, timm, torchvision",
    ]
