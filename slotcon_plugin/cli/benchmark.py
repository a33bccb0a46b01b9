"""Run a whole benchmark: pretrain, convert, transfer, table. What is done stays done; after a stop just start again.

    slotcon benchmark demo
    slotcon benchmark small_real --dry-run --set photos=my_photos/ masks=/data/camvid
    slotcon benchmark coco_main --gpus 8 --slurm run.sh && bash run.sh --partition gpu

`slotcon configs benchmark` lists the plans that come with the package. Leaves table.md, table.csv and table.html in the
work dir. Its steps run the tools of the checkout or of the installed package; fine-tuning needs mmdet, mmseg
or detectron2. docs/benchmark_plans.md
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from slotcon_plugin.arguments import add_cfg_options, add_out, at_least
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import require_writable, write_text
from slotcon_plugin.key_values import spelled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PLAN and what to do with it."""
    parser.add_argument("plan", help="a plan's name, or its config file")
    add_out(parser, "where everything goes (default: work_dirs/benchmark/PLAN)", type=Path)
    add_cfg_options(
        parser,
        "--set",
        "where a data set of the plan lies (coco=/data/coco), or any other override of the plan (seeds=[0,1])",
    )
    parser.add_argument(
        "--gpus", type=at_least(0), metavar="N", help="GPUs of this machine a step (default: all; 0: the CPU)"
    )
    parser.add_argument("--step", metavar="NAME", help="run this one step and no other")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--dry-run", action="store_true", help="say what would run, for how long, and what is missing; start nothing"
    )
    what.add_argument("--print-commands", action="store_true", help="print a command line a step, for a scheduler")
    what.add_argument("--slurm", type=Path, metavar="FILE", help="write a script that submits the steps to Slurm")


def run(args: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        UserError: the plan or its data are not as they must be.
        RunFailedError: a step has failed.
    """
    from slotcon_plugin.benchmark import load_plan, plan_steps
    from slotcon_plugin.benchmark.render import write_tables
    from slotcon_plugin.benchmark.run import describe, run_plan, run_step
    from slotcon_plugin.benchmark.schedule import slurm_script, step_commands
    from slotcon_plugin.config import shipped_tool

    plan = load_plan(args.plan, args.set)
    work_dir = args.out or Path("work_dirs/benchmark") / plan.name
    steps = plan_steps(plan, work_dir)
    if args.step and (args.dry_run or args.print_commands or args.slurm):
        raise UserError("--step runs one step; --dry-run, --print-commands and --slurm are about all of them")
    if args.slurm and args.gpus is None:
        raise UserError("--slurm: give --gpus, too: how many a job gets (0: the CPU); this machine's are not theirs")
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    base = [python, shipped_tool("tools/benchmark.py"), args.plan, "--work-dir", str(work_dir)]
    if args.gpus is not None:
        base += ["--gpus", str(args.gpus)]
    gpus = _gpus() if args.gpus is None else args.gpus
    if args.set:
        base += ["--set", *(f"{key}={spelled(value)}" for key, value in args.set.items())]
    if args.dry_run:
        print(describe(plan, steps, work_dir, gpus))
    elif args.print_commands:
        print("\n".join(step_commands(steps, base)))
    elif args.slurm:
        require_writable(args.slurm, "--slurm")
        write_text(args.slurm, slurm_script(plan, steps, base, gpus))
        print(f"{args.slurm}: submit it with   bash {shlex.quote(str(args.slurm))} --partition NAME")
    elif args.step:
        chosen = {step.name: step for step in steps}.get(args.step)
        if chosen is None:
            raise UserError(f"no step {args.step!r}; the plan has: {', '.join(step.name for step in steps)}")
        done = run_step(chosen, work_dir, gpus)
        print(f"{chosen.name}: {'done' if done else 'was done already'}")
    else:
        run_plan(plan, steps, work_dir, gpus, say=lambda text: print(text, flush=True))
        for path in write_tables(plan, [work_dir], work_dir, {step.folder for step in steps}):
            print(path)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
