"""Situations that a pretraining should not be in, and when to speak of them: once each, in plain words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Figures = dict[str, Any]


@dataclass(frozen=True)
class Situation:
    """Something worth a warning.

    Attributes:
        name: how it is called in checkpoints and in the JSON lines.
        needs: figures without which it cannot be judged.
        holds: whether figures show it.
        text: what it means and what to do, in words.
        patience: how many judgements in a row must agree before it is spoken of, or counts as over.
        grace_epochs: epochs at the start that are not judged.
        collapse: whether going on is pointless.
    """

    name: str
    needs: tuple[str, ...]
    holds: Callable[[Figures], bool]
    text: Callable[[Figures], str]
    patience: int = 5
    grace_epochs: int = 1
    collapse: bool = False


SITUATIONS = (
    Situation(
        "prototypes_collapsed",
        ("usage_entropy", "used_prototypes", "num_prototypes"),
        # exp(entropy): as if so many prototypes were used equally often
        lambda f: math.exp(f["usage_entropy"]) < max(min(3, f["num_prototypes"] / 2), f["num_prototypes"] / 16),
        lambda f: (
            f"The grouping has collapsed: {f['used_prototypes']} of {f['num_prototypes']} prototypes own nearly every "
            "position of every photo, so photos are no longer divided into parts. The center of the teacher's logits "
            "prevents this: take Sinkhorn's in place of a running one (or check that center.momentum is below 1, 0.9 "
            "in the paper), and teacher_temperature not below 0.04; then lower the learning rate or lengthen the "
            "warm-up. Going on rarely mends it: start again."
        ),
        collapse=True,
    ),
    Situation(
        "features_collapsed",
        ("effective_rank",),
        lambda f: f["effective_rank"] < 2,
        lambda f: (
            f"The features have collapsed: they all point nearly the same way (effective rank "
            f"{f['effective_rank']:.2f}; 1 is a single direction). They cannot tell photos apart. Lower "
            "the learning rate, lengthen the warm-up, and check that the teacher's momentum (teacher_momentum) is not "
            "below the recipe's or what the log settled at the start. Going on rarely mends it: start again."
        ),
        collapse=True,
    ),
    Situation(
        "few_prototypes",
        ("live_prototypes_epoch", "num_prototypes"),
        lambda f: f["live_prototypes_epoch"] < 0.25 * f["num_prototypes"],
        lambda f: (
            f"Only {f['live_prototypes_epoch']} of {f['num_prototypes']} prototypes owned any position in the whole "
            "epoch; the others learn nothing. If the number is still rising, wait. Otherwise the photos show fewer "
            "kinds of things than there are prototypes (lower grouping.num_prototypes), or the batch is too small for "
            "a running center to be a good mean (take Sinkhorn's, raise the batch, or center.momentum)."
        ),
        patience=2,
    ),
    Situation(
        "teacher_uniform",
        ("teacher_entropy", "num_prototypes"),
        lambda f: f["teacher_entropy"] > 0.97 * math.log(f["num_prototypes"]),
        lambda f: (
            f"The teacher cannot decide: its entropy is {f['teacher_entropy']:.2f}, and "
            f"{math.log(f['num_prototypes']):.2f} would be an even spread over all {f['num_prototypes']} prototypes. "
            "The grouping loss then sits near that value and teaches little. Normal in the first epochs; if it lasts, "
            "lower teacher_temperature, raise the learning rate, train longer, or use fewer prototypes."
        ),
        patience=10,
    ),
    Situation(
        "teacher_sharp",
        ("teacher_entropy", "num_prototypes"),
        lambda f: f["teacher_entropy"] < 0.05 * math.log(f["num_prototypes"]),
        lambda f: (
            f"The teacher is certain of every position (entropy {f['teacher_entropy']:.3f} of at most "
            f"{math.log(f['num_prototypes']):.2f}). Its mistakes become targets, and the groupings stop changing: this "
            "comes before a collapse. Raise teacher_temperature (0.07 in the paper)."
        ),
    ),
    Situation(
        "no_queries",
        ("num_queries",),
        lambda f: f["num_queries"] < 2,
        lambda f: (
            "No prototype is found in both views of any photo, so the slot contrast learns nothing. The views overlap "
            "too little or the grouping has fallen apart: check the crops with tools/visualize_views.py and raise the "
            "lower end of the crops' scale, or the batch."
        ),
    ),
    Situation(
        "slow_data",
        ("data_time_share",),
        lambda f: f["data_time_share"] > 0.3,
        lambda f: (
            f"{f['data_time_share']:.0%} of the time is spent waiting for photos. Raise train_dataloader.num_workers "
            "(up to the number of CPU cores), keep the photos on a local disk, or shrink them once to a short side of "
            "about 400 pixels."
        ),
        grace_epochs=0,
    ),
)


class Alarms:
    """Judges figures, report after report, and gives each situation's text once, until it has been over for a while."""

    def __init__(self) -> None:
        self._streaks: dict[str, int] = {}  # judgements in a row: positive where it held, negative where not
        self._told: set[str] = set()

    def judge(self, figures: Figures) -> list[tuple[Situation, str]]:
        """Situations to speak of now. ``figures['epoch']`` counts from 1; None means not known."""
        news = []
        for situation in SITUATIONS:
            if figures["epoch"] <= situation.grace_epochs or any(figures.get(n) is None for n in situation.needs):
                continue
            streak = self._streaks.get(situation.name, 0)
            streak = max(streak, 0) + 1 if situation.holds(figures) else min(streak, 0) - 1
            self._streaks[situation.name] = streak
            if streak >= situation.patience and situation.name not in self._told:
                self._told.add(situation.name)
                news.append((situation, situation.text(figures)))
            elif streak <= -situation.patience:
                self._told.discard(situation.name)
        return news

    @property
    def verdict(self) -> str:
        """``healthy``, or what is wrong in a word or two; empty as long as nothing but the loading can be judged."""
        wrong = [situation.name.replace("_", " ") for situation in SITUATIONS if situation.name in self._told]
        return ", ".join(wrong) or ("healthy" if self._streaks.keys() - {"slow_data"} else "")

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know in order not to repeat itself."""
        return {"streaks": dict(self._streaks), "told": sorted(self._told)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Counterpart of :meth:`state_dict`."""
        self._streaks, self._told = dict(state["streaks"]), set(state["told"])
