"""Options that become settings of what ``slotcon evaluate`` measures and ``slotcon look`` draws.

Only those that were given are handed on: their defaults stand where they belong, in the functions. The scripts of
``tools/`` that measure or draw one thing take theirs from here, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slotcon_plugin.arguments import at_least


@dataclass(frozen=True)
class Setting:
    """An option.

    Attributes:
        uses: what takes it, separated by blanks: measures of :data:`EVALUATING`, kinds of pictures of :data:`LOOKING`.
        flag: ``'--lr'``.
        help: what it says, the function's default in brackets.
        options: further ones of argparse.
    """

    uses: str
    flag: str
    help: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The function's parameter."""
        return self.options.get("dest") or self.flag.removeprefix("--").replace("-", "_")


def _point(text: str) -> tuple[float, float]:
    """``0.5,0.25`` -> (0.5, 0.25)."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected x,y such as 0.5,0.25, got {text!r}") from None
    return x, y


_COUNT = dict(type=at_least(1), metavar="N")
_SEED = dict(type=at_least(0), metavar="SEED")
_BRANCH = dict(choices=["teacher", "student"])
_HEAD = "whose grouping, of a method with several heads: encoder, p2, ... (the finest)"

EVALUATING = (
    Setting("probe", "--stages", "stage maps put side by side (-2 -1)", dict(nargs="+", type=int)),
    Setting("probe", "--epochs", "of the linear heads (15)", _COUNT),
    Setting("probe", "--lr", "of the linear heads (.002)", dict(type=float, dest="learning_rate")),
    Setting("probe", "--seeds", "one linear head each (0 1)", dict(nargs="+", type=at_least(0))),
    Setting(
        "probe",
        "--input-size",
        "of the photos (240 320)",
        dict(nargs=2, type=at_least(1), metavar=("HEIGHT", "WIDTH")),
    ),
    Setting("probe", "--neighbours", "k of the k-NN probe; 0 leaves it out (20)", dict(type=at_least(0), metavar="K")),
    Setting("probe", "--network", "timm's name of the network in a file of somebody else's", dict(metavar="NAME")),
    Setting(
        "probe",
        "--output-stride",
        "of the last stage, dilated to it (a work dir or --config: as pretrained; a file: the network's own, 32)",
        dict(type=int, choices=[8, 16, 32]),
    ),
    Setting(
        "probe",
        "--decoder",
        "append the decoder's map (VADeR, SlotCon's; wants a work dir or --config); --stages -1 takes it",
        dict(action="store_true"),
    ),
    Setting(
        "probe",
        "--bn-calibrate",
        "one more random arm: BatchNorm statistics set on photos of this folder",
        dict(metavar="DIR"),
    ),
    Setting("probe", "--bn-photos", "how many of them (480)", _COUNT),
    Setting("probe", "--random-seed", "of the random backbones (0)", _SEED),
    Setting("probe prototypes", "--branch", "(to probe: what the method transfers; else the teacher)", _BRANCH),
    Setting("probe prototypes", "--batch-size", "photos at a time (to probe: 16; else 8)", _COUNT),
    Setting("prototypes", "--short-side", "of the photos in pixels (320)", _COUNT),
    Setting("prototypes", "--head", _HEAD),
    Setting("prototypes retrieval", "--seed", "of k-means and random weights; of views and pixels (0)", _SEED),
    Setting("retrieval", "--num-pairs", "pixels looked up a photo (8)", _COUNT),
)
"""Settings of :func:`slotcon_plugin.evaluate`."""

LOOKING = (
    Setting("groups prototypes", "--limit", "photos at most, evenly spaced (groups: 16; prototypes: 1000)", _COUNT),
    Setting(
        "groups prototypes retrieval",
        "--short-side",
        "of what the model sees, in pixels; larger gives finer segments (320; prototypes: 224)",
        _COUNT,
    ),
    Setting("groups prototypes", "--head", _HEAD),
    Setting("groups retrieval", "--branch", "(teacher)", _BRANCH),
    Setting("prototypes", "--prototypes", "their numbers (the most used ones)", dict(nargs="+", type=int, metavar="K")),
    Setting("prototypes", "--most-used", "how many to show otherwise (12)", _COUNT),
    Setting("prototypes", "--nearest", "segments a prototype (7)", _COUNT),
    Setting(
        "retrieval",
        "--points",
        "of the first photo, as shares of its width and height (nine, spread over it)",
        dict(nargs="+", type=_point, metavar="X,Y"),
    ),
    Setting("curves", "--names", "what to call the runs (as their folders are called)", dict(nargs="+")),
    Setting("curves", "--figures", "what to plot: loss, live_prototypes, ... (all there is)", dict(nargs="+")),
    Setting("curves", "--x", "the axis (iter)", dict(choices=["iter", "epoch"])),
    Setting("curves", "--smooth", "average over so many values (1)", _COUNT),
)
"""Settings of :func:`slotcon_plugin.look`."""


def add_settings(parser: argparse.ArgumentParser, settings: Sequence[Setting], use: str | None = None) -> None:
    """Options of one use; of all of them, in groups by what takes them, if `use` is None."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in settings:
        if use is None and setting.uses not in groups:
            *first, last = setting.uses.split()
            groups[setting.uses] = parser.add_argument_group(f"{', '.join(first)} and {last}" if first else last)
        if use is None or use in setting.uses.split():
            place = groups[setting.uses] if use is None else parser
            place.add_argument(setting.flag, default=argparse.SUPPRESS, help=setting.help, **setting.options)


def settings_of(args: argparse.Namespace, settings: Sequence[Setting]) -> dict[str, Any]:
    """Those that were given, as arguments of the function."""
    given = {setting.name: getattr(args, setting.name) for setting in settings if hasattr(args, setting.name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
