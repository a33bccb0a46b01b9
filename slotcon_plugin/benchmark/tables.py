"""From result files to a table: rows are pretrainings, columns are metrics of tasks, every cell says where it is from.

A cell is measured (mean and spread over the runs, each with its file), published (with its source) or says what is
needed to fill it. Nothing is rounded before it is shown, and the same files give the same table.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from slotcon_plugin.benchmark.collect import ResultFile
from slotcon_plugin.benchmark.plan import Plan
from slotcon_plugin.benchmark.step import step_name
from slotcon_plugin.benchmark.steps import applies
from slotcon_plugin.errors import UserError
from slotcon_plugin.results import RANDOM, is_random

PUBLISHED = Path("docs/published.json")
NOT_CITED = "n/a"
"""Cell of a published row for which no figure may be cited."""
NOT_PLANNED = "not in the plan"
"""Cell of a pretraining that the plan does not measure on the task."""
_PROBE = "frozen_probe"
"""``config`` of a probe's results."""
_OTHER_BATCH = re.compile(r"otal batch (\d+) = .*, NOT the recipe's (\d+):")
"""In a result's ``batch``, as :func:`slotcon_plugin.engine.batch.plan_batch` says it."""


@dataclass(frozen=True)
class Column:
    """One metric of one task. ``title``: of the task; ``key``: the task in the plan."""

    key: str
    title: str
    metric: str

    def __str__(self) -> str:
        return f"{self.title}: {self.metric}"


@dataclass(frozen=True)
class Cell:
    """``kind``: measured, published or missing.

    Attributes:
        values: of the single runs, in the order of ``sources``.
        sources: (seed, result file) of measured ones.
        text: source of a published figure; what a missing one needs.
    """

    kind: str
    values: tuple[float, ...] = ()
    sources: tuple[tuple[int, Path], ...] = ()
    text: str = ""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the runs (n - 1); None for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def figure(self) -> str:
        """``22.5 ± 0.3``, ``41.0`` or an empty text."""
        if not self.values:
            return ""
        return f"{self.mean:.1f}" + (f" ± {self.spread:.1f}" if self.spread is not None else "")


@dataclass(frozen=True)
class Table:
    """``rows``: (title, cells in the order of the columns)."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    problems: tuple[str, ...]


def build_table(
    plan: Plan, runs: Sequence[ResultFile], published: str | Path | None = PUBLISHED, strict: bool = True
) -> Table:
    """The table of a plan: its pretrainings, others found in the results, then published rows that compare.

    Raises:
        UserError: runs of one cell have different configs: their mean would mean nothing. Without ``strict`` that cell
            is empty, and the table's problems say why.
    """
    columns = tuple(Column(key, t.title or key, metric) for key, t in plan.tasks.items() for metric in t.metrics)
    by_task, problems = _by_task(plan, runs)
    names = list(plan.pretraining)
    names += sorted({run.result["pretraining"] for found in by_task.values() for run in found} - set(names))
    rows = []
    for name in names:
        entry = plan.pretraining.get(name)
        told = {run.result["title"] for run in runs if run.result["pretraining"] == name and "title" in run.result}
        title = (entry.title if entry else None) or (told.pop() if len(told) == 1 else name)
        cells = []
        for column in columns:
            try:
                cells.append(_own_cell(plan, by_task[column.key], name, column))
            except UserError as error:
                if strict:
                    raise
                problems.append(str(error))
                cells.append(Cell("missing", text="its runs differ, see below"))
        rows.append((title, tuple(cells)))
        problems += _without_a_seed(title, columns, cells)
    rows += _published_rows(plan, columns, published)
    return Table(plan.name, columns, tuple(rows), tuple(problems))


def _by_task(plan: Plan, runs: Sequence[ResultFile]) -> tuple[dict[str, list[ResultFile]], list[str]]:
    """Key of each task -> its result files, and a line for each file that is no task's.

    Of tasks whose results have one name, as those with one config on two data sets, the folder says which is meant.
    """
    found: dict[str, list[ResultFile]] = {key: [] for key in plan.tasks}
    problems = []
    for run in sorted(runs, key=lambda run: str(run.path)):
        name = run.result["task"]
        keys = [key for key, task in plan.tasks.items() if fnmatchcase(name, task.result)]
        keys = [run.folder] if run.folder in keys else keys
        if len(keys) == 1:
            found[keys[0]].append(run)
            continue
        why = "is none of the plan's"
        if keys:
            why = f"may be {' or '.join(keys)} of the plan: the first folder below --results has to say, {keys[0]}/..."
        problems.append(f"not in the table: {run.path}: task {name} {why}")
    return found, problems


def _own_cell(plan: Plan, runs: Sequence[ResultFile], name: str, column: Column) -> Cell:
    """``runs``: of the column's task."""
    found: list[ResultFile] = []
    for run in runs:
        result = run.result
        if (
            result["pretraining"] == name
            and column.metric in result["metrics"]
            and not any(_same_run(result, other.result, column.metric) for other in found)
        ):
            found.append(run)
    if not found:
        return Cell("missing", text=_needs(plan, name, column.key))
    chosen = sorted(found, key=lambda run: (run.result["seed"], str(run.path)))
    files = ", ".join(str(run.path) for run in chosen)
    if not all(_compare(one.result, other.result) for one, other in combinations(chosen, 2)):
        raise UserError(
            f"{name}, {column.title}: results of different configs, settings, batches, strides or numbers of photos "
            f"cannot share a cell: {files}"
        )
    for seed, of_seed in groupby(chosen, key=lambda run: run.result["seed"]):
        if len(twice := list(of_seed)) > 1:
            drawn = is_random(name) and all("weights_sha256" in run.result for run in twice)
            what = "random weights of different networks" if drawn else f"runs of one seed ({seed})"
            files = " and ".join(str(run.path) for run in twice)
            raise UserError(f"{name}, {column.title}: {what} cannot share a cell: {files}")
    return Cell(
        "measured",
        tuple(run.result["metrics"][column.metric] for run in chosen),
        tuple((run.result["seed"], run.path) for run in chosen),
    )


def _without_a_seed(title: str, columns: Sequence[Column], cells: Sequence[Cell]) -> Iterator[str]:
    """A line for each mean that is over fewer seeds than another of the same task."""
    seeds = [{seed for seed, _ in cell.sources} for cell in cells]
    for column, known in zip(columns, seeds):
        of_task = set().union(*(found for other, found in zip(columns, seeds) if other.key == column.key))
        if known and (lacking := sorted(of_task - known)):
            yield f"{title}, {column}: without seed {', '.join(map(str, lacking))}, of which other metrics are known"


def _same_run(one: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> bool:
    """Whether two files are of one run.

    Random arms are measured again beside every checkpoint. The seed of a probe is that of its random arms: weights that
    were probed at several seeds were measured once.
    """
    if not _compare(one, other):
        return False
    same_backbone = one["backbone_sha256"] == other["backbone_sha256"]
    if one["seed"] != other["seed"]:
        return one["config"] == _PROBE and one["backbone_sha256"] is not None and same_backbone
    weights = one.get("weights_sha256"), other.get("weights_sha256")
    if None not in weights:
        return weights[0] == weights[1]
    return same_backbone and one["metrics"][metric] == other["metrics"][metric]


def _compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two figures may share a cell; files written before some of the facts were recorded fit any."""
    told = [(one.get(fact), other.get(fact)) for fact in ("map_sizes", "num_images")] + [(_batch(one), _batch(other))]
    return _measurement(one) == _measurement(other) and all(None in pair or pair[0] == pair[1] for pair in told)


def _batch(result: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Images of a step and the recipe's, where they differ (``scale-lr``); None if the file does not say."""
    if not isinstance(text := result.get("batch"), str):
        return None
    other = _OTHER_BATCH.search(text)
    return other.groups() if other else ()


def _measurement(result: Mapping[str, Any]) -> tuple[str, ...]:
    settings = {name: value for name, value in (result.get("settings") or {}).items() if name != "seed"}
    return result["task"], result["config_sha256"], json.dumps(settings, sort_keys=True)


def _needs(plan: Plan, name: str, key: str) -> str:
    task, entry = plan.tasks[key], plan.pretraining.get(name)
    if entry is None:
        return f"to run: {key} of {plan.file} on {name}"
    if not applies(task, name, entry):
        if task.only and name not in task.only:
            return NOT_PLANNED
        if is_random(name) and name != RANDOM and task.tool == "probe":
            return NOT_PLANNED
        if is_random(name) and task.tool == "probe":
            return "to run: comes with the first checkpoint that is probed"
        return "no prototypes to match"
    seed = plan.seeds[0]
    hours = task.hours + (entry.hours if entry.config else 0)
    wanted = [task.data, *entry.reads, *((entry.photos,) if entry.photos else ())]
    data = ", ".join(dict.fromkeys(wanted))
    return f"to run: {step_name(key, name, seed)}; about {hours:g} h; data: {data}"


def _published_rows(
    plan: Plan, columns: Sequence[Column], path: str | Path | None
) -> list[tuple[str, tuple[Cell, ...]]]:
    comparable = {task.published for task in plan.tasks.values()} - {None}
    if path is None or not comparable:
        return []
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in read_published(path):
        if entry["column"] in comparable:
            rows.setdefault(entry["pretraining"], {})[entry["column"]] = entry
    return [
        (
            name,
            tuple(_published_cell(figures.get(plan.tasks[column.key].published), column.metric) for column in columns),
        )
        for name, figures in rows.items()
    ]


def _published_cell(entry: dict[str, Any] | None, metric: str) -> Cell:
    if entry and metric in entry.get("metrics", {}):
        return Cell("published", (entry["metrics"][metric],), text=entry["source"])
    return Cell("missing", text=NOT_CITED + (f": {entry['needs']}" if entry and "needs" in entry else ""))


def read_published(path: str | Path) -> list[dict[str, Any]]:
    """Entries of the file of published figures.

    Raises:
        UserError: an entry has no pretraining, no column, or figures without a source.
    """
    entries = json.loads(Path(path).read_text(encoding="utf-8"))["figures"]
    for entry in entries:
        if not {"pretraining", "column"} <= set(entry) or ("metrics" in entry and not entry.get("source")):
            raise UserError(f"{path}: every entry has pretraining, column, and a source for its metrics, got {entry}")
    return entries
