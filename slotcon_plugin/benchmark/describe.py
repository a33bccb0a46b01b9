"""A plan in words before anything starts: what would run, for how long, and what is missing."""

from __future__ import annotations

from pathlib import Path

from slotcon_plugin.benchmark.plan import Plan
from slotcon_plugin.benchmark.run import missing_data
from slotcon_plugin.benchmark.state import state
from slotcon_plugin.benchmark.steps import Step


def describe(plan: Plan, steps: list[Step], work_dir: Path, gpus: int) -> str:
    """Every step with its state, its estimate and its command; then the sum and what is missing."""
    reasons = state(steps, work_dir)
    todo = [step for step in steps if reasons[step.name]]
    lines = []
    for step in steps:
        lines.append(f"{step.name}: {reasons[step.name] or 'done'}" + (f" ({step.hours:g} h)" if step in todo else ""))
        if step in todo:
            lines.append(f"    {step.shown(gpus)}")
    lines.append("")
    lines.append(f"{len(todo)} of {len(steps)} steps to run, {sum(step.hours for step in todo):g} hours")
    lines.append(f"hours are an estimate: {plan.estimate}")
    gone = missing_data(plan, todo)
    lines += ["missing:", *(f"  {line}" for line in gone)] if gone else ["data sets and checkpoints: all there"]
    return "\n".join(lines)
