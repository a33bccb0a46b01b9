"""The steps of a plan, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slotcon_plugin.benchmark.measuring import measure
from slotcon_plugin.benchmark.plan import EXPORTS, Plan, Pretraining, Task
from slotcon_plugin.benchmark.plan_data import key_values, makers, scenes, with_paths
from slotcon_plugin.benchmark.pretraining_config import batch_per_gpu, config_as_asked, groups, own_backbone
from slotcon_plugin.benchmark.step import CHECKPOINT, Step
from slotcon_plugin.errors import UserError
from slotcon_plugin.results import is_random


def plan_steps(plan: Plan, work_dir: str | Path) -> list[Step]:
    """All steps of a plan, each after those it needs: row by row, so that figures come early.

    Raises:
        UserError: an option of a pretraining is none of its config's, or a backbone of one's own is to be converted.
    """
    steps: dict[str, Step] = {}
    for step in _steps(plan, Path(work_dir)):
        steps.setdefault(step.name, step)  # a pretraining that serves all seeds is met once a seed
    return list(steps.values())


def applies(task: Task, row: str, entry: Pretraining) -> bool:
    """Whether a task has a step of its own for a pretraining.

    The probe measures random backbones beside every checkpoint, and segmentation without labels needs prototypes.
    """
    if task.only and row not in task.only:
        return False
    if task.tool == "probe":
        return not is_random(row)
    return task.tool != "unsupervised" or (entry.config is not None and groups(entry.config))


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
            given = Path(with_paths(plan, entry.checkpoint)) if entry.checkpoint else None
            checkpoint = origin.outputs[0] if origin else given
            needs = (origin.name,) if origin else ()
            if plan.targets and not entry.network and (own := own_backbone(plan, row)):
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
                    yield measure(plan, work_dir, name, row, seed, checkpoint, needs)


def _pretrain(plan: Plan, work_dir: Path, row: str, seed: int) -> Step:
    entry = plan.pretraining[row]
    seed = seed if entry.per_seed else plan.seeds[0]
    folder = work_dir / "pretrain" / f"{row}-seed{seed}"
    data = (*entry.reads, *((entry.photos,) if entry.photos else ()))
    start = Path(with_paths(plan, entry.checkpoint)) if entry.checkpoint else None
    return Step(
        name=f"pretrain/{row}-seed{seed}",
        folder=folder,
        tool="tools/train.py",
        arguments=(
            *(entry.config, "--work-dir", str(folder)),
            *(("--photos", _photos(plan, entry.photos)) if entry.photos else ()),
            *(("--init", str(start)) if start else ()),
            *(("--init-title", entry.init_title) if entry.init_title else ()),
            *("--cfg-options", *key_values(plan, entry.options), f"randomness.seed={seed}"),
        ),
        outputs=(folder / CHECKPOINT,),
        needs=makers(plan, data),
        inputs=(start,) if start else (),
        configs=(entry.config,),
        data=data,
        scenes=scenes(plan, data),
        can_resume=True,
        batch_per_gpu=batch_per_gpu(config_as_asked(plan, row)),
        hours=entry.hours,
    )


def _photos(plan: Plan, name: str) -> str:
    """Folder to pretrain on: for demo scenes their training photos, and not the masks beside them."""
    data = plan.data[name]
    return str(Path(data.path) / "images/train") if data.demo_scenes else data.path


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
