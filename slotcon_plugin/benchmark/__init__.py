"""Whole benchmarks: plan -> steps -> result files -> tables."""

from slotcon_plugin.benchmark.plan import Plan, load_plan
from slotcon_plugin.benchmark.step import Step
from slotcon_plugin.benchmark.steps import plan_steps

__all__ = ["Plan", "Step", "load_plan", "plan_steps"]
