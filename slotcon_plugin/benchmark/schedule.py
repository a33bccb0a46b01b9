"""Steps for a scheduler: a command line each, and a script for Slurm's job arrays."""

from __future__ import annotations

import shlex

from slotcon_plugin.benchmark.plan import Plan
from slotcon_plugin.benchmark.step import Step, layers

_SCRIPT = """\
#!/usr/bin/env bash
# {name}: {count} steps in {depth} layers; the steps of a layer run side by side.
#   bash THIS_FILE --partition gpu --time 2-0     submits one job array a layer, each waiting for the one before
# A step that is done already ends at once, so that the same command goes on after a failure.
{gpus}set -euo pipefail

steps=(
{steps}
)
first_of_layer=({starts})
if [ -z "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
    after=()
    for layer in {layer_numbers}; do
        range="${{first_of_layer[layer]}}-$((first_of_layer[layer + 1] - 1))"
        job=$(sbatch --parsable --job-name={job} --array="$range" ${{after[@]+"${{after[@]}}"}} "$@" "$0")
        after=(--dependency="afterok:${{job%%;*}}")
        echo "layer $layer: job $job, steps $range"
    done
    exit
fi
exec {command} --step "${{steps[SLURM_ARRAY_TASK_ID]}}"
"""


def step_commands(steps: list[Step], base: list[str]) -> list[str]:
    """One line a step, in an order in which they can run; ``base``: the benchmark's own command for this plan."""
    return [shlex.join([*base, "--step", step.name]) for step in steps]


def slurm_script(plan: Plan, steps: list[Step], base: list[str], gpus: int) -> str:
    """A script that submits itself as one job array a layer and, as a job, runs its step."""
    by_layer = layers(steps)
    starts = [sum(map(len, by_layer[:level])) for level in range(len(by_layer) + 1)]
    return _SCRIPT.format(
        name=plan.name,
        job=shlex.quote(plan.name),
        count=len(steps),
        depth=len(by_layer),
        gpus=f"#SBATCH --gres=gpu:{gpus}\n" if gpus else "",
        steps="\n".join(f"    {shlex.quote(step.name)}" for layer in by_layer for step in layer),
        starts=" ".join(map(str, starts)),
        layer_numbers=" ".join(map(str, range(len(by_layer)))),
        command=shlex.join(base),
    )
