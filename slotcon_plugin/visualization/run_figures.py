"""The figures that a run has left in its work dir, and what they are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slotcon_plugin.engine.json_lines import HEALTH_FILE, read_json_lines
from slotcon_plugin.errors import UserError
from slotcon_plugin.photos import printable

# In the order in which they are shown: figure -> what it says. Figures not named here come after them.
TITLES = {
    "loss": "loss",
    "loss_group": "grouping loss (weighted)",
    "loss_slot": "slot contrast loss (weighted)",
    "loss_pixel": "pixel contrast loss",
    "pixel_accuracy": "share of pixels nearest to their own key in the batch",
    "loss_image": "image contrast loss (weighted)",
    "loss_dense": "dense contrast loss (weighted)",
    "contrast_accuracy": "share of queries nearer to their own key than to all negatives",
    "positive_similarity": "cosine similarity of queries and their keys",
    "negative_similarity": "mean cosine similarity of queries and negatives",
    "dense_contrast_accuracy": "the same share, of positions",
    "dense_positive_similarity": "cosine similarity of matched positions",
    "dense_negative_similarity": "mean cosine similarity of positions and negatives",
    "matched_share": "share of positions that some position was matched with",
    "teacher_entropy": "teacher entropy (nats); dashed: ln K",
    "live_prototypes": "live prototypes in a batch; dashed: K",
    "live_prototypes_epoch": "live prototypes in an epoch; dashed: K",
    "usage_entropy": "entropy of prototype usage (nats); dashed: ln K",
    "num_queries": "slots in the query set",
    "effective_rank": "effective rank of slots or features",
    "center_norm": "norm of the center",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
    "data_time_share": "share of time waiting for data",
}
LIMITS = {
    "teacher_entropy": math.log,
    "usage_entropy": math.log,
    "live_prototypes": float,
    "live_prototypes_epoch": float,
}
_NOT_SHOWN = {
    *{"iter", "epoch", "step", "iterations_per_epoch", "num_prototypes", "used_prototypes"},
    *{"time", "data_time", "memory"},
}
# What a method with several heads has of each; the head's name stands behind, live_prototypes_p2.
_OF_HEADS = {
    *LIMITS,
    *{"num_queries", "effective_rank", "center_norm", "loss_group", "loss_slot", "num_prototypes", "used_prototypes"},
}


@dataclass
class Run:
    """What one run has left behind.

    Attributes:
        name: how it is called in the legend.
        figures: figure -> {iteration: value}.
        iterations_per_epoch: None where no record says so.
    """

    name: str
    figures: dict[str, dict[int, float]] = field(default_factory=dict)
    iterations_per_epoch: float | None = None

    def curve(self, figure: str, by_epoch: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Positions (iterations, or epochs) and values of a figure, in order; values that are not known are NaN."""
        points = sorted(self.figures.get(figure, {}).items())
        x = np.array([iteration for iteration, _ in points], dtype=float)
        if by_epoch:
            if not self.iterations_per_epoch:
                raise UserError(f"run {self.name} does not say how long an epoch is; plot it by iteration")
            x = x / self.iterations_per_epoch
        return x, np.array([value for _, value in points], dtype=float)

    def num_prototypes(self, figure: str) -> float | None:
        """K of the head that a figure is of; None where no record says it."""
        _, head = split_head(figure)
        sizes = self.figures.get(f"num_prototypes_{head}" if head else "num_prototypes", {})
        return max(sizes.values(), default=None)


def split_head(figure: str) -> tuple[str, str]:
    """``teacher_entropy_p2`` -> ``('teacher_entropy', 'p2')``; the second is empty where no head is named."""
    if figure in TITLES:
        return figure, ""
    base = max((name for name in _OF_HEADS if figure.startswith(f"{name}_")), key=len, default=figure)
    return base, figure[len(base) + 1 :]


def title_of(figure: str) -> str:
    """What a figure says, in words where they are known."""
    base, head = split_head(figure)
    return f"{head}: {TITLES[base]}" if head and base in TITLES else TITLES.get(figure, figure)


def read_run(work_dir: str | Path, name: str | None = None) -> Run:
    """Read the ``health.jsonl`` and mmengine's ``*/vis_data/scalars.json`` of a work dir.

    A figure that is in both is taken from the former. Of mmengine's files, one a start of the run, a later one
    replaces an earlier one from its first iteration on. Iterations are counted as in the last start, whatever the
    batch of the earlier ones.

    Raises:
        UserError: there is neither, or one cannot be read.
    """
    work_dir = Path(work_dir)
    health = work_dir / HEALTH_FILE
    scalars = sorted(work_dir.glob("*/vis_data/scalars.json"))
    if not health.is_file() and not scalars:
        raise UserError(
            f"{work_dir}: expected the work dir of a run, with {HEALTH_FILE} or */vis_data/scalars.json in it"
        )
    run = Run(printable(name or work_dir.name))
    records = read_json_lines(health) if health.is_file() else []
    run.iterations_per_epoch = _iterations_per_epoch(records)
    for path in scalars:
        _merge(run, _recounted(read_json_lines(path), run.iterations_per_epoch))
    watched = Run(run.name, iterations_per_epoch=run.iterations_per_epoch)
    _merge(watched, records)
    run.figures |= watched.figures
    return run


def _iterations_per_epoch(records: Sequence[dict[str, Any]]) -> float | None:
    """As ``health.jsonl`` says; of old files, by the last record of an epoch that was ended, which every epoch has."""
    if told := [record["iterations_per_epoch"] for record in records if "iterations_per_epoch" in record]:
        return told[-1]
    last = max((record["epoch"] for record in records if "epoch" in record), default=0)
    ended = [r for r in records if r.get("epoch", last) < last or any("live_prototypes_epoch" in key for key in r)]
    return max((record["iter"] / record["epoch"] for record in ended), default=None)


def _recounted(records: Sequence[dict[str, Any]], length: float | None) -> list[dict[str, Any]]:
    """Records of one start, which says how many iterations an epoch has there, as if an epoch had ``length``."""
    told = [record["iterations_per_epoch"] for record in records if "iterations_per_epoch" in record]
    others = [record for record in records if "iterations_per_epoch" not in record]
    if not told or not length:
        return others
    return [r | {"iter": math.ceil(r["iter"] * length / told[0])} if "iter" in r else r for r in others]


def _merge(run: Run, records: Sequence[dict[str, Any]]) -> None:
    """Add records, dropping what earlier ones say about the time from the first of them on."""
    placed = [(position, record) for record in records if (position := _iteration(run, record)) is not None]
    if not placed:
        return
    first = min(position for position, _ in placed)
    for points in run.figures.values():
        for iteration in [i for i in points if i >= first]:
            del points[iteration]
    for position, record in placed:
        for name, value in record.items():
            if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
                run.figures.setdefault(name, {})[position] = math.nan if value is None else value


def _iteration(run: Run, record: dict[str, Any]) -> int | None:
    """Where a record belongs; mmengine's results of an evaluation say only which epoch they are of."""
    if "iter" in record:
        return record["iter"]
    if "step" in record and run.iterations_per_epoch:
        return round(record["step"] * run.iterations_per_epoch)
    return None


def figures_of(runs: Sequence[Run], wanted: Sequence[str] | None = None) -> list[str]:
    """What to plot: the wanted figures, or all that any run has, known ones first.

    Raises:
        UserError: no run has a wanted figure.
    """
    have = {name for run in runs for name in run.figures if split_head(name)[0] not in _NOT_SHOWN}
    if wanted:
        missing = [name for name in wanted if name not in have]
        if missing:
            raise UserError(f"no run has {', '.join(missing)}; there are {', '.join(sorted(have))}")
        return list(wanted)
    if not have:
        raise UserError(f"{', '.join(run.name for run in runs)}: no figures yet; the first come with the first report")
    places = {name: place for place, name in enumerate(TITLES)}

    def place(name: str) -> tuple[int, str]:
        return places.get(split_head(name)[0], len(places)), name

    return sorted(have, key=place)
