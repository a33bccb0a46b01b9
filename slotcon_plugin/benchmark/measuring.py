"""The steps that judge: fine-tuning, probes and segmentation without labels."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from slotcon_plugin.benchmark.plan import Plan, Pretraining, Task
from slotcon_plugin.benchmark.plan_data import key_values, makers, scenes, with_paths
from slotcon_plugin.benchmark.pretraining_config import own_backbone
from slotcon_plugin.benchmark.step import Step, step_name
from slotcon_plugin.errors import UserError
from slotcon_plugin.results import FILE_NAME


def measure(
    plan: Plan, work_dir: Path, name: str, row: str, seed: int, checkpoint: Path | None, needs: tuple[str, ...]
) -> Step:
    """The step of the task `name` for a row and seed; `needs` are the steps that make its `checkpoint`.

    Raises:
        UserError: a backbone that no converter knows would have to be handed to another framework.
    """
    task = plan.tasks[name]
    case = _Case(plan, name, row, seed, checkpoint, work_dir / step_name(name, row, seed))
    tool, arguments, output = _COMMANDS[task.tool](case)
    return Step(
        name=step_name(name, row, seed),
        folder=case.folder,
        tool=tool,
        arguments=arguments,
        outputs=(case.folder / output,),
        needs=(*needs, *makers(plan, (task.data,))),
        inputs=(checkpoint,) if checkpoint else (),
        configs=(task.config,) if task.config else (),
        data=(task.data,),
        scenes=scenes(plan, (task.data,)),
        can_resume=task.tool in ("mm", "detectron2"),
        hours=task.hours,
    )


class _Case(NamedTuple):
    """One cell of the table: a task for a row and a seed."""

    plan: Plan
    name: str
    row: str
    seed: int
    checkpoint: Path | None
    folder: Path

    @property
    def task(self) -> Task:
        return self.plan.tasks[self.name]

    @property
    def entry(self) -> Pretraining:
        return self.plan.pretraining[self.row]

    @property
    def data(self) -> str:
        return self.plan.data[self.task.data].path

    @property
    def extra(self) -> list[str]:
        """Further arguments as the plan states them."""
        return [with_paths(self.plan, text) for text in self.task.args]

    @property
    def start(self) -> tuple[str, ...]:
        """What fine-tuning starts from, and its name in the table."""
        backbone = ("--backbone", str(self.checkpoint)) if self.checkpoint else ()
        return (*backbone, "--pretraining", self.row)

    def require_convertible(self) -> None:
        """Fine-tuning happens in another framework."""
        if own := own_backbone(self.plan, self.row):
            raise UserError(
                f"tasks.{self.name} fine-tunes, and the backbone {own} of pretraining.{self.row} cannot be handed to "
                f"another framework: name the rows that it is for, only=[...]"
            )


# tool, its arguments and the result file that it leaves in the step's folder
_Command = tuple[str, tuple[str, ...], str]


def _mm(case: _Case) -> _Command:
    case.require_convertible()
    options = {**(case.task.options or {}), **(case.entry.task_options or {}).get(case.name, {})}
    arguments = (
        *(case.task.config, "--work-dir", str(case.folder), "--data-root", case.data, *case.start, *case.extra),
        *("--cfg-options", *key_values(case.plan, options), f"randomness.seed={case.seed}"),
    )
    return "tools/train.py", arguments, FILE_NAME


def _detectron2(case: _Case) -> _Command:
    case.require_convertible()
    options = [with_paths(case.plan, text) for pair in (case.task.options or {}).items() for text in pair]
    arguments = (
        *("--config-file", case.task.config, "--data-root", case.data, *case.start, *case.extra),
        *("OUTPUT_DIR", str(case.folder), "SEED", str(case.seed), *options),
    )
    return "tools/train_d2.py", arguments, FILE_NAME


def _probe(case: _Case) -> _Command:
    if case.entry.network:
        network = ("--network", case.entry.network)
    elif own_backbone(case.plan, case.row):
        network = ("--config", str(_config_as_run(case)))
    else:
        network = ()
    arguments = (
        *(str(case.checkpoint), "--name", case.row, "--data", case.data, "--random-seed", str(case.seed)),
        *("--out", str(case.folder), *network, *case.extra),
    )
    return "tools/eval_probe.py", arguments, "linear_checkpoint.json"


def _unsupervised(case: _Case) -> _Command:
    arguments = (
        *(str(_config_as_run(case)), str(case.checkpoint), "--name", case.row, "--data", case.data),
        *("--seed", str(case.seed), "--out", str(case.folder / FILE_NAME), *case.extra),
    )
    return "tools/eval_unsupervised_seg.py", arguments, FILE_NAME


def _config_as_run(case: _Case) -> Path:
    """The copy that a pretraining leaves beside its checkpoint."""
    return case.checkpoint.parent / Path(case.entry.config).name


_COMMANDS = {"mm": _mm, "detectron2": _detectron2, "probe": _probe, "unsupervised": _unsupervised}
