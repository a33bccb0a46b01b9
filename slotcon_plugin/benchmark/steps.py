"""The steps of a plan: each one a command of ``tools/``, with the files it reads and the files it leaves."""

from __future__ import annotations

import copy
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from slotcon_plugin.benchmark.plan import EXPORTS, Plan, Pretraining, Task
from slotcon_plugin.config import apply_options, load_config, read_config, shipped_tool
from slotcon_plugin.convert.network import is_plain_resnet, network_of_backbone
from slotcon_plugin.errors import UserError
from slotcon_plugin.key_values import spelled
from slotcon_plugin.registry import MODELS
from slotcon_plugin.results import is_random

CHECKPOINT = "checkpoint.pth"
"""Name under which the last checkpoint of a pretraining step is found when it has ended."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: ``coco_1x/slotcon-seed0``; also its folder below the work dir.
        folder: its log, its record and what it makes.
        tool: script below ``tools/``.
        arguments: of the script.
        needs: names of the steps that come before.
        inputs: files whose contents decide the result.
        configs: config files whose contents decide the result.
        outputs: files and folders that are there when it is done.
        data: data sets it reads.
        scenes: how those of them are made that the plan makes itself, ``Data.demo_scenes``.
        can_resume: whether ``--resume`` continues it after a stop.
        batch_per_gpu: whether its batch, and with it the result, follows the number of GPUs.
        hours: estimate, see ``Plan.estimate``.
    """

    name: str
    folder: Path
    tool: str
    arguments: tuple[str, ...]
    outputs: tuple[Path, ...]
    needs: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    configs: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    can_resume: bool = False
    batch_per_gpu: bool = False
    hours: float = 0.0

    def command(self, gpus: int = 0, resume: bool = False) -> list[str]:
        """Argument list for this many GPUs of one machine; 0 is the CPU."""
        arguments = list(self.arguments)
        if resume and self.can_resume:
            first_option = next(i for i, text in enumerate(arguments) if text.startswith("--"))
            arguments.insert(first_option, "--resume")
        if self.tool == "tools/train.py" and gpus > 1:
            return ["bash", shipped_tool("tools/dist_train.sh"), arguments[0], str(gpus), *arguments[1:]]
        if self.tool == "tools/train_d2.py":
            arguments[:0] = ["--num-gpus", str(max(gpus, 1))]
        if self.tool.startswith("tools/eval_") and gpus:
            arguments += ["--device", "cuda"]
        return [sys.executable, shipped_tool(self.tool), *arguments]

    def shown(self, gpus: int = 0) -> str:
        """The command for people: ``python`` instead of this interpreter's path."""
        first, *rest = self.command(gpus)
        return shlex.join(["python" if first == sys.executable else first, *rest])


def plan_steps(plan: Plan, work_dir: str | Path) -> list[Step]:
    """All steps of a plan, each after those it needs: row by row, so that figures come early.

    Raises:
        UserError: an option of a pretraining is none of its config's, or a backbone of one's own is to be converted.
    """
    steps: dict[str, Step] = {}
    for step in _steps(plan, Path(work_dir)):
        steps.setdefault(step.name, step)  # a pretraining that serves all seeds is met once a seed
    return list(steps.values())


def step_name(task: str, pretraining: str, seed: int) -> str:
    """Name of the step that fills a cell of the table."""
    return f"{task}/{pretraining}-seed{seed}"


def applies(task: Task, row: str, entry: Pretraining) -> bool:
    """Whether a task has a step of its own for a pretraining.

    The probe measures random backbones beside every checkpoint, and segmentation without labels needs prototypes.
    """
    if task.only and row not in task.only:
        return False
    if task.tool == "probe":
        return not is_random(row)
    return task.tool != "unsupervised" or (entry.config is not None and _groups(entry.config))


@cache
def _groups(config: str) -> bool:
    """Whether the method of a pretraining config declares that it groups."""
    return MODELS.get(load_config(config).model.type).method.groups


def _batch_per_gpu(cfg: Config) -> bool:
    """Whether a pretraining has its batch on each GPU and keeps no total, see :mod:`slotcon_plugin.engine.batch`."""
    rule = cfg.get("auto_scale_lr") or {}
    keeps_total = rule.get("base_batch_size") is not None and rule.get("mode") != "scale-lr"
    return not keeps_total and (cfg.get("train_dataloader") or {}).get("batch_size") is not None


def _own_backbone(plan: Plan, row: str) -> str | None:
    """Type of a pretraining's backbone that is of neither library, so that no converter knows it; else None."""
    if not plan.pretraining[row].config:
        return None
    backbone = _config_as_asked(plan, row).model.backbone
    return None if network_of_backbone(backbone) or is_plain_resnet(backbone) else str(backbone.get("type"))


def _config_as_asked(plan: Plan, row: str) -> Config:
    """The config of a pretraining under the plan's options.

    Raises:
        UserError: the run would refuse one, after hours of other runs perhaps.
    """
    entry = plan.pretraining[row]
    cfg = copy.deepcopy(_read(entry.config))
    try:
        apply_options(cfg, entry.options or {}, fit=False)
    except UserError as error:
        raise UserError(f"{plan.file}: pretraining.{row}.options: {error}") from error
    return cfg


_read = cache(read_config)


def layers(steps: list[Step]) -> list[list[Step]]:
    """Steps that can run side by side, layer after layer."""
    depth: dict[str, int] = {}
    for step in steps:
        depth[step.name] = 1 + max((depth[name] for name in step.needs if name in depth), default=-1)
    return [
        [step for step in steps if depth[step.name] == level] for level in range(max(depth.values(), default=-1) + 1)
    ]


def _steps(plan: Plan, work_dir: Path) -> Iterator[Step]:
    for name, data in plan.data.items():
        if data.demo_scenes:
            yield Step(
                name=f"data/{name}",
                folder=work_dir / "data" / name,
                tool="tools/make_demo_scenes.py",
                arguments=(data.path, *data.demo_scenes),
                outputs=tuple(Path(data.path) / part for part in data.expects) or (Path(data.path),),
                hours=0.01,
            )
    for seed in plan.seeds:
        for row, entry in plan.pretraining.items():
            origin = _pretrain(plan, work_dir, row, seed) if entry.config else None
            if origin:
                yield origin
            given = Path(_with_paths(plan, entry.checkpoint)) if entry.checkpoint else None
            checkpoint = origin.outputs[0] if origin else given
            needs = (origin.name,) if origin else ()
            if plan.targets and not entry.network and (own := _own_backbone(plan, row)):
                raise UserError(
                    f"targets: the backbone {own} of pretraining.{row} cannot be converted. If it computes what a "
                    f"ResNet or a network of timm's does, say so, network='resnet50'; if not, leave targets=[]"
                )
            if checkpoint and (entry.per_seed or seed == plan.seeds[0]):
                for target in plan.targets:
                    name = f"convert/{row}-{target}-seed{seed}"
                    yield _convert(work_dir, name, target, checkpoint, needs, entry.network)
            for name, task in plan.tasks.items():
                if applies(task, row, entry):
                    yield _measure(plan, work_dir, name, row, seed, checkpoint, needs)


def _pretrain(plan: Plan, work_dir: Path, row: str, seed: int) -> Step:
    entry = plan.pretraining[row]
    seed = seed if entry.per_seed else plan.seeds[0]
    folder = work_dir / "pretrain" / f"{row}-seed{seed}"
    data = (*entry.reads, *((entry.photos,) if entry.photos else ()))
    start = Path(_with_paths(plan, entry.checkpoint)) if entry.checkpoint else None
    return Step(
        name=f"pretrain/{row}-seed{seed}",
        folder=folder,
        tool="tools/train.py",
        arguments=(
            *(entry.config, "--work-dir", str(folder)),
            *(("--photos", _photos(plan, entry.photos)) if entry.photos else ()),
            *(("--init", str(start)) if start else ()),
            *(("--init-title", entry.init_title) if entry.init_title else ()),
            *("--cfg-options", *_key_values(plan, entry.options), f"randomness.seed={seed}"),
        ),
        outputs=(folder / CHECKPOINT,),
        needs=_makers(plan, data),
        inputs=(start,) if start else (),
        configs=(entry.config,),
        data=data,
        scenes=_scenes(plan, data),
        can_resume=True,
        batch_per_gpu=_batch_per_gpu(_config_as_asked(plan, row)),
        hours=entry.hours,
    )


def _photos(plan: Plan, name: str) -> str:
    """Folder to pretrain on: for demo scenes their training photos, and not the masks beside them."""
    data = plan.data[name]
    return str(Path(data.path) / "images/train") if data.demo_scenes else data.path


def _config_as_run(entry: Pretraining, checkpoint: Path) -> Path:
    """The copy that a pretraining leaves beside its checkpoint."""
    return checkpoint.parent / Path(entry.config).name


def _convert(
    work_dir: Path, name: str, target: str, checkpoint: Path, needs: tuple[str, ...], network: str | None
) -> Step:
    tool, file = EXPORTS[target]
    folder = work_dir / name
    return Step(
        name=name,
        folder=folder,
        tool=tool,
        arguments=(
            *(str(checkpoint), str(folder / file), "--overwrite"),
            *(("--network", network) if network else ()),
        ),
        outputs=(folder / file,),
        needs=needs,
        inputs=(checkpoint,),
        hours=0.01,
    )


def _measure(
    plan: Plan, work_dir: Path, name: str, row: str, seed: int, checkpoint: Path | None, needs: tuple[str, ...]
) -> Step:
    task, entry = plan.tasks[name], plan.pretraining[row]
    step = step_name(name, row, seed)
    folder = work_dir / step
    path = plan.data[task.data].path
    extra = [_with_paths(plan, text) for text in task.args]
    own = _own_backbone(plan, row)
    if own and task.tool in ("mm", "detectron2"):
        raise UserError(
            f"tasks.{name} fine-tunes, and the backbone {own} of pretraining.{row} cannot be handed to another "
            f"framework: name the rows that it is for, only=[...]"
        )
    backbone = ("--backbone", str(checkpoint)) if checkpoint else ()
    named = ("--pretraining", row)
    output = "result.json"
    if task.tool == "mm":
        tool = "tools/train.py"
        arguments = (task.config, "--work-dir", str(folder), "--data-root", path, *backbone, *named, *extra)
        options = {**(task.options or {}), **(entry.task_options or {}).get(name, {})}
        arguments += ("--cfg-options", *_key_values(plan, options), f"randomness.seed={seed}")
    elif task.tool == "detectron2":
        tool = "tools/train_d2.py"
        arguments = ("--config-file", task.config, "--data-root", path, *backbone, *named, *extra)
        arguments += ("OUTPUT_DIR", str(folder), "SEED", str(seed))
        arguments += tuple(_with_paths(plan, text) for pair in (task.options or {}).items() for text in pair)
    elif task.tool == "probe":
        tool, output = "tools/eval_probe.py", "linear_checkpoint.json"
        arguments = (str(checkpoint), "--name", row, "--data", path, "--random-seed", str(seed), "--out", str(folder))
        as_run = ("--config", str(_config_as_run(entry, checkpoint))) if own else ()
        arguments += (*(("--network", entry.network) if entry.network else as_run), *extra)
    else:
        tool = "tools/eval_unsupervised_seg.py"
        as_run = _config_as_run(entry, checkpoint)
        arguments = (str(as_run), str(checkpoint), "--name", row, "--data", path, "--seed", str(seed))
        arguments += ("--out", str(folder / output), *extra)
    return Step(
        name=step,
        folder=folder,
        tool=tool,
        arguments=arguments,
        outputs=(folder / output,),
        needs=(*needs, *_makers(plan, (task.data,))),
        inputs=(checkpoint,) if checkpoint else (),
        configs=(task.config,) if task.config else (),
        data=(task.data,),
        scenes=_scenes(plan, (task.data,)),
        can_resume=task.tool in ("mm", "detectron2"),
        hours=task.hours,
    )


def _makers(plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"data/{name}" for name in dict.fromkeys(names) if plan.data[name].demo_scenes)


def _scenes(plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for name in dict.fromkeys(names) for text in plan.data[name].demo_scenes)


def _key_values(plan: Plan, options: Mapping[str, Any] | None) -> list[str]:
    """For ``--cfg-options``."""
    return [f"{key}={spelled(_moved(plan, value))}" for key, value in (options or {}).items()]


def _moved(plan: Plan, value: Any) -> Any:
    """An option with the paths of data sets in all its texts."""
    if isinstance(value, Mapping):
        return {key: _moved(plan, inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(plan, inner) for inner in value)
    return _with_paths(plan, value) if isinstance(value, str) else value


def _with_paths(plan: Plan, value: Any) -> str:
    """``{coco}/train2017`` with the path of the data set ``coco``."""
    text = str(value)
    for name, data in plan.data.items():
        text = text.replace(f"{{{name}}}", data.path)
    return text
