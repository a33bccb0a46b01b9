"""A benchmark as a small config file: pretrainings, targets, tasks and seeds.

    data = dict(coco=dict(path="data/coco", expects=["train2017", "annotations/instances_train2017.json"]))
    pretraining = dict(
        random=dict(),                                                            # no backbone is given
        slotcon=dict(config="configs/pretrain/slotcon_coco.py", reads=["coco"], hours=900),
        moco=dict(checkpoint="moco_v2_200ep_pretrain.pth.tar"),                    # any kind that the converters read
    )
    targets = ["detectron2"]                                                      # backbones to export
    tasks = dict(
        coco_1x=dict(tool="detectron2", config="configs/transfer/detectron2/....yaml", data="coco", hours=100,
                     result="detectron2_mask_rcnn_r50_fpn_1x_coco", metrics=["AP_box", "AP_mask"]))
    seeds = [0]
    estimate = "hours of one A100, assumed"

The fields are those of the classes below; ``_base_`` and overrides work as in every config of mmengine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slotcon_plugin.benchmark.fields import entry_of, is_list_of_text
from slotcon_plugin.config import find_config, load_config, shipped_file
from slotcon_plugin.convert.writers import TARGETS
from slotcon_plugin.errors import UserError
from slotcon_plugin.results import RANDOM, is_random

TOOLS = ("mm", "detectron2", "probe", "unsupervised")
EXPORTS = {
    name: (f"tools/convert_to_{'d2' if name == 'detectron2' else name}.py", f"backbone{target.suffixes[0]}")
    for name, target in TARGETS.items()
}
"""Target of an export -> the tool that makes it, and the file's name."""


@dataclass(frozen=True)
class Data:
    """A data set: where it lies, what has to be in it, and how it is made if it can be.

    ``{NAME}`` in ``options``, ``args`` and ``checkpoint`` of a plan stands for the path of the data set NAME.

    Attributes:
        path: folder (or file).
        expects: paths in it, without which it is not there.
        demo_scenes: layout and further arguments of ``tools/make_demo_scenes.py``, which then makes it.
    """

    path: str
    expects: tuple[str, ...] = ()
    demo_scenes: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Paths that are not there; none for a data set that the plan makes itself."""
        if self.demo_scenes:
            return []
        root = Path(self.path)
        wanted = [root / part for part in self.expects] if root.exists() else [root]
        return [str(path) for path in wanted if not path.exists()]


@dataclass(frozen=True)
class Pretraining:
    """A row of the table. With ``config`` it is run here, with ``checkpoint`` taken from a file, with neither random.

    Random ones are ``random``, as each task's own config draws them, and ``random_...``, with ``task_options``.

    Attributes:
        checkpoint: file; with ``config`` the weights that the run starts from (``--init``).
        init_title: how tables call these weights.
        network: timm's name (or ``resnet50``) of the network in a ``checkpoint`` of somebody else's, or of the one that
            a backbone of one's own in ``config`` computes like: it is exported and probed as that.
        options: overrides of the config, as ``KEY: VALUE``.
        task_options: overrides of tasks' mmengine configs for this row (from scratch a network may need other
            learning rates), ``TASK: {KEY: VALUE}``.
        photos: data set whose photos take the place of the config's (``--photos``).
        reads: data sets that the config reads by itself, where it or ``options`` say.
        per_seed: pretrain once for every seed of the plan, not once for all.
        title: how tables call it; the name in the plan otherwise.
        hours: estimate of one run, see ``Plan.estimate``.
    """

    config: str | None = None
    checkpoint: str | None = None
    init_title: str | None = None
    network: str | None = None
    options: Mapping[str, Any] | None = None
    task_options: Mapping[str, Mapping[str, Any]] | None = None
    photos: str | None = None
    reads: tuple[str, ...] = ()
    per_seed: bool = False
    title: str | None = None
    hours: float = 0.0


@dataclass(frozen=True)
class Task:
    """What is measured for every pretraining: columns of the table, one for each of ``metrics``.

    Attributes:
        tool: one of ``TOOLS``.
        data: data set given with ``--data-root`` or ``--data``.
        result: ``task`` of its result files; may hold ``*``.
        metrics: names in the result files.
        config, options: transfer config and overrides (mm: ``KEY: VALUE``; detectron2 likewise).
        args: further arguments of the tool.
        published: column of the file of published figures that is comparable.
        title: how tables call it.
        hours: estimate of one run, see ``Plan.estimate``.
        only: pretrainings that it is run on; all of them if empty.
    """

    tool: str
    data: str
    result: str
    metrics: tuple[str, ...]
    config: str | None = None
    options: Mapping[str, Any] | None = None
    args: tuple[str, ...] = ()
    published: str | None = None
    title: str | None = None
    hours: float = 0.0
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """See the module. ``estimate`` says hours of what, and where the figures are from."""

    name: str
    file: str
    data: Mapping[str, Data]
    pretraining: Mapping[str, Pretraining]
    tasks: Mapping[str, Task]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    estimate: str


def load_plan(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Plan:
    """Read and check a plan.

    Args:
        path: config file, or its name.
        overrides: ``{"coco": "/data/coco"}`` moves a data set; any other key overrides the config as usual
            (``{"seeds": [0, 1]}``, ``{"tasks.probe.args": [...]}``).

    Raises:
        UserError: the file, a key or a value is not what a plan knows.
    """
    path = find_config(path)
    cfg = load_config(path)
    moved = {}
    for key, value in (overrides or {}).items():
        if key in cfg.get("data", {}):
            key, value = f"data.{key}.path", str(value) if type(value) is int else value  # a folder called 2024
        moved[key] = value
    cfg.merge_from_dict(moved)
    given = cfg.to_dict()
    known = {"data", "pretraining", "tasks", "targets", "seeds", "estimate"}
    if foreign := sorted(set(given) - known):
        raise UserError(f"{path}: a plan has no {foreign}; it knows {sorted(known)} (data sets by their name)")
    if not is_list_of_text(targets := given.get("targets", ())):
        raise UserError(f"{path}: targets must be a list of names, got {targets!r}: targets=['detectron2']")
    if not isinstance(given.get("seeds", ()), (list, tuple)):
        raise UserError(f"{path}: seeds must be a list of integers, got {given['seeds']!r}: seeds=[{given['seeds']}]")
    plan = Plan(
        name=Path(path).stem,
        file=str(path),
        data=_entries(Data, path, given, "data"),
        pretraining=_entries(Pretraining, path, given, "pretraining"),
        tasks=_entries(Task, path, given, "tasks"),
        targets=tuple(targets),
        seeds=tuple(given.get("seeds", (0,))),
        estimate=given.get("estimate", "no estimate given"),
    )
    _check(plan)
    return plan


def _entries(kind: type, path: Path, given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Those of ``data``, ``pretraining`` or ``tasks``, by their names."""
    entries = given.get(name, {})
    if not isinstance(entries, Mapping):
        raise UserError(f"{path}: {name}: expected dict(NAME=dict(...)), got {entries!r}")
    found = {key: entry_of(kind, f"{path}: {name}.{key}", entry) for key, entry in entries.items()}
    return {key: _with_its_config(entry) if getattr(entry, "config", None) else entry for key, entry in found.items()}


def _with_its_config(entry: Any) -> Any:
    """An entry whose config, given by name or file, is a file that is there from every folder."""
    named = not Path(entry.config).suffix
    return replace(entry, config=str(find_config(entry.config)) if named else shipped_file(entry.config))


def _check(plan: Plan) -> None:
    def require(condition: bool, message: str) -> None:
        if not condition:
            raise UserError(f"{plan.file}: {message}")

    require(bool(plan.pretraining), "pretraining is empty: there is nothing to compare")
    require(bool(plan.seeds) and all(type(seed) is int for seed in plan.seeds), "seeds must be a list of integers")
    for target in plan.targets:
        require(target in EXPORTS, f"targets: {target!r} is none of {', '.join(EXPORTS)}")
    for kind, entries in (("pretraining", plan.pretraining), ("tasks", plan.tasks)):
        titles = Counter(entry.title for entry in entries.values() if entry.title)
        twice = [title for title, count in titles.items() if count > 1]
        require(not twice, f"{kind}: title {', '.join(map(repr, twice))} twice: a table could not tell them apart")
    for name, entry in plan.pretraining.items():
        where = f"pretraining.{name}"
        random = not (entry.config or entry.checkpoint)
        require(random == is_random(name), f"{where}: without config and checkpoint it is '{RANDOM}', and only then")
        different = name == RANDOM or not random or entry.task_options
        require(different, f"{where}: task_options say in what it is not '{RANDOM}'")
        require(not entry.config or Path(entry.config).is_file(), f"{where}: {entry.config} does not exist")
        for data in (*entry.reads, *filter(None, [entry.photos])):
            require(data in plan.data, f"{where}: no data set {data!r} in data")
        of_mm = [name for name, task in plan.tasks.items() if task.tool == "mm"]
        for task in entry.task_options or {}:
            require(task in of_mm, f"{where}.task_options: {task!r} is no task of tool mm, {', '.join(of_mm)}")
    for name, task in plan.tasks.items():
        where = f"tasks.{name}"
        require(task.tool in TOOLS, f"{where}: tool {task.tool!r} is none of {', '.join(TOOLS)}")
        require(task.data in plan.data, f"{where}: no data set {task.data!r} in data")
        needs_config = task.tool in ("mm", "detectron2")
        require(
            needs_config == bool(task.config),
            f"{where}: mm and detectron2 need a config, the others have none",
        )
        require(not task.config or Path(task.config).is_file(), f"{where}: {task.config} does not exist")
        require(not task.options or needs_config, f"{where}: options need a config; {task.tool} takes args")
        for row in task.only:
            require(row in plan.pretraining, f"{where}: only: no pretraining {row!r}")
