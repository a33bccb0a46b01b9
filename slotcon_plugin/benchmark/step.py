"""A step: one command of ``tools/``, with the files it reads and the files it leaves."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from slotcon_plugin.config import shipped_tool

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


def step_name(task: str, pretraining: str, seed: int) -> str:
    """Name of the step that fills a cell of the table."""
    return f"{task}/{pretraining}-seed{seed}"


def layers(steps: list[Step]) -> list[list[Step]]:
    """Steps that can run side by side, layer after layer."""
    depth: dict[str, int] = {}
    for step in steps:
        depth[step.name] = 1 + max((depth[name] for name in step.needs if name in depth), default=-1)
    return [
        [step for step in steps if depth[step.name] == level] for level in range(max(depth.values(), default=-1) + 1)
    ]
