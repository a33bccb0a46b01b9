"""Run what is missing of a plan, one step after the other; what was killed goes on at the next start."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from slotcon_plugin.benchmark.plan import Plan
from slotcon_plugin.benchmark.records import (
    fingerprint,
    log_file,
    mark_done,
    mark_started,
    request,
    seconds_taken,
    why_not_done,
)
from slotcon_plugin.benchmark.step import CHECKPOINT, Step
from slotcon_plugin.command import duration, end_with_parent
from slotcon_plugin.errors import STOPPED, RunFailedError, RunStoppedError, UserError
from slotcon_plugin.files import replacing

REPORT_EVERY_S = 60.0


class StepError(RunFailedError):
    """A step ended with an error; the message names its log."""


def run_plan(plan: Plan, steps: list[Step], work_dir: Path, gpus: int = 0, say: Callable[[str], None] = print) -> None:
    """Run all steps that are not done.

    Raises:
        UserError: a data set is missing; nothing has been started then.
        StepError: a step failed; those before it stay done.
    """
    reasons = reasons_to_run(steps, work_dir, gpus)
    todo = [step for step in steps if step.name in reasons]
    if gone := missing_data(plan, todo):
        raise UserError("missing before anything was started:\n  " + "\n  ".join(gone))
    progress = Progress(steps, {step.name for step in steps} - set(reasons))
    say(f"{plan.name}: {len(steps)} steps, {len(steps) - len(todo)} done. {progress.left()}")
    for step in todo:
        say(f"[{steps.index(step) + 1}/{len(steps)}] {step.name} ({reasons[step.name]}); log: {log_file(step)}")

        def report(seconds: float, step: Step = step) -> None:
            say(f"    {step.name}: {duration(seconds)}. {progress.left(seconds)}")

        start = time.monotonic()
        ran = run_step(step, work_dir, gpus, report)
        progress.finish(step)
        took = duration(time.monotonic() - start) if ran else "was done already"
        say(f"    {took}. {progress.left()}")


def describe(plan: Plan, steps: list[Step], work_dir: Path, gpus: int) -> str:
    """Before anything starts: every step that is to run with its reason, hours and command; what is missing."""
    reasons = reasons_to_run(steps, work_dir, gpus)
    todo = [step for step in steps if step.name in reasons]
    lines = []
    for step in steps:
        if step in todo:
            lines += [f"{step.name}: {reasons[step.name]} ({step.hours:g} h)", f"    {step.shown(gpus)}"]
        else:
            lines.append(f"{step.name}: done")
    lines.append(f"\n{len(todo)} of {len(steps)} steps to run, {sum(step.hours for step in todo):g} hours")
    lines.append(f"hours are an estimate: {plan.estimate}")
    gone = missing_data(plan, todo)
    lines += ["missing:", *(f"  {line}" for line in gone)] if gone else ["data sets and checkpoints: all there"]
    return "\n".join(lines)


def reasons_to_run(steps: list[Step], work_dir: Path, gpus: int = 0) -> dict[str, str]:
    """Name of each step that is not done -> why not; none is done before those that it needs.

    Raises:
        UserError: a config cannot be read.
    """
    reasons: dict[str, str] = {}
    for step in steps:
        fingerprint(step, work_dir)  # before hours have passed
        before = next((name for name in step.needs if name in reasons), None)
        if reason := why_not_done(step, work_dir, gpus) or (before and f"{before} is run again"):
            reasons[step.name] = reason
    return reasons


def run_step(step: Step, work_dir: Path, gpus: int = 0, report: Callable[[float], None] | None = None) -> bool:
    """Run one step to its end and record it. False if another process has done it meanwhile.

    Raises:
        UserError: an input is not there.
        RunFailedError: it failed, or ended without its outputs.
    """
    with _lock(work_dir / ".locks" / step.name.replace("/", "__")) as lock:
        if why_not_done(step, work_dir, gpus) is None and all(path.exists() for path in step.inputs):
            return False
        asked = request(step, work_dir, gpus)
        resume = mark_started(step, asked)
        start = time.monotonic()
        with open(log_file(step), "a", encoding="utf-8") as log:
            log.write(f"$ {step.shown(gpus)}\n")
            log.flush()
            _run(step.command(gpus, resume), gpus, log, lock, step, report)
        if step.outputs[0].name == CHECKPOINT:
            _name_last_checkpoint(step)
        mark_done(step, asked, time.monotonic() - start, resume)
    return True


def missing_data(plan: Plan, steps: list[Step]) -> list[str]:
    """One line for each data set that these steps read and that is not there, and for each missing checkpoint."""
    made = {path for step in steps for path in step.outputs}
    lines = []
    for name, data in plan.data.items():
        if data.missing() and any(name in step.data for step in steps):
            lines.append(f"data set {name}: no {', '.join(data.missing())} (elsewhere: --set {name}=DIR)")
    for path in dict.fromkeys(path for step in steps for path in step.inputs):
        if path not in made and not path.is_file():
            lines.append(f"checkpoint {path}")
    return lines


class Progress:
    """How much of a plan is left, by the plan's estimates, corrected by what finished steps have taken."""

    def __init__(self, steps: list[Step], done: set[str]) -> None:
        self.steps, self.done = steps, set(done)

    def finish(self, step: Step) -> None:
        """Count a step as done."""
        self.done.add(step.name)

    def left(self, running: float = 0.0) -> str:
        """``62 % of the plan, about 80 min left``; ``running``: seconds that the current step has run so far."""
        total = sum(step.hours for step in self.steps)
        finished = [step for step in self.steps if step.name in self.done]
        done_hours = sum(step.hours for step in finished)
        if not total:
            return f"{len(finished)} of {len(self.steps)} steps done"
        share = f"{100 * done_hours / total:.0f} % of the plan"
        if len(finished) == len(self.steps):
            return f"{share} done"
        timed = [(step.hours, seconds) for step in finished if (seconds := seconds_taken(step)) is not None]
        estimated, taken = (sum(values) for values in zip(*timed)) if timed else (0, 0)
        # before the first step has ended: the estimate's
        speed = taken / 3600 / estimated if estimated and taken else 1.0
        seconds = max(3600 * speed * (total - done_hours) - running, 0)
        return f"{share} done, about {duration(seconds)} left"


@contextmanager
def _lock(path: Path) -> Iterator[int]:
    """Hold a lock that children inherit: a step starts anew when the last process of its former run is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"    waiting: a process of this step is still running (lock {path})", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            print(f"    no lock, so start no second benchmark here: {path}: {error}", file=sys.stderr, flush=True)
        yield file.fileno()


def _run(command: list[str], gpus: int, log, lock: int, step: Step, report: Callable[[float], None] | None) -> None:
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        env={
            **os.environ,
            "PYTHON": sys.executable,  # of the launchers
            **({} if gpus else {"CUDA_VISIBLE_DEVICES": ""}),  # tools take a GPU where they see one
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        preexec_fn=partial(end_with_parent, os.getpid()),
    )
    try:
        while True:
            try:
                status = process.wait(REPORT_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                if report:
                    report(time.monotonic() - start)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status == STOPPED:
        text = f"{step.name} was asked to stop and has left a checkpoint: start the same again"
        print(text, file=sys.stderr, flush=True)
        raise RunStoppedError(text)
    if status:
        tail = log_file(step).read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        raise StepError(f"{step.name} failed with status {status}; {log_file(step)} ends:\n  " + "\n  ".join(tail))


def _name_last_checkpoint(step: Step) -> None:
    """Let ``checkpoint.pth`` be the checkpoint that mmengine wrote last."""
    pointer = step.folder / "last_checkpoint"
    if not pointer.is_file():
        raise StepError(f"{step.name} ended without an error but wrote no checkpoint; its log: {log_file(step)}")
    last = Path(pointer.read_text(encoding="utf-8").strip()).name
    with replacing(step.folder / CHECKPOINT) as partial:
        partial.symlink_to(last)
