"""Command line arguments that several tools share. Light to import: a tool's --help waits for nothing."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, NoReturn

from slotcon_plugin.devices import choose_device
from slotcon_plugin.key_values import KeyValues


class _ToolParser(argparse.ArgumentParser):
    """Settles ``--device auto`` when all the rest is understood."""

    def parse_args(self, *args: Any, **kwargs: Any) -> argparse.Namespace:
        parsed = super().parse_args(*args, **kwargs)
        if getattr(parsed, "device", None) == "auto":
            parsed.device, why = choose_device()
            if parsed.device == "cpu":
                print(f"on the CPU: {why}", file=sys.stderr)
        return parsed

    def error(self, message: str) -> NoReturn:
        """As argparse does, with the nearest option where there is none of that name."""
        if message.startswith("unrecognized arguments: "):
            known = set(_option_strings(self))
            for word in message.partition(": ")[2].split():
                if word.startswith("--") and (near := get_close_matches(word.partition("=")[0], known, 1)):
                    message += f"; did you mean {near[0]}?"
        super().error(message)


def _option_strings(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Of a parser and its commands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _option_strings(command)


def tool_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser that prints a tool's docstring as it is written."""
    return _ToolParser(description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_trained_model(parser: argparse.ArgumentParser, dest: str, text: str, least: int = 1, most: int = 0) -> None:
    """``WORK_DIR`` or ``CONFIG CHECKPOINT`` of a pretraining, and what follows: ``config``, ``checkpoint``, ``dest``.

    Args:
        text: what follows, for the help; at least ``least`` of it, and not more than ``most`` (0 = any number).
    """

    class Words(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None) -> None:
            first, *more = values
            if namespace.config.endswith(".py"):
                namespace.checkpoint, rest = first, more
            else:
                namespace.checkpoint, rest = namespace.config, values
            if len(rest) < least or 0 < most < len(rest):
                parser.error(f"expected {text} after {namespace.checkpoint}, got {' '.join(rest) or 'nothing'}")
            setattr(namespace, self.dest, rest)

    parser.add_argument(
        "config",
        metavar="WORK_DIR",
        help="a run's work dir, for its config and its newest whole checkpoint; or CONFIG.py CHECKPOINT",
    )
    parser.add_argument(dest, nargs="+", action=Words, metavar=dest.upper(), help=text)


def add_out(parser: argparse.ArgumentParser, text: str, **options: Any) -> None:
    """``--out`` of a run; OpenMMLab's ``--work-dir`` is the same."""
    parser.add_argument("--out", "--work-dir", metavar="DIR", help=text, **options)


def add_picture_out(parser: argparse.ArgumentParser, default: str) -> None:
    """``--out`` of what draws."""
    parser.add_argument("--out", default=default, help="picture (.png) or page (.html) to write (%(default)s)")


def add_labelled_set(parser: argparse.ArgumentParser) -> None:
    """How a labelled set is read, and what to call the weights that are measured on it.

    ``--name`` is ``--pretraining``: plans and the commands of all published results say it.
    """
    parser.add_argument("--layout", default="auto", help="folder, voc, cityscapes, ade20k or cocostuff (%(default)s)")
    parser.add_argument("--protocol", choices=["picie"], help="COCO-Stuff-27: short side of 320, centre crop")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="use only N photos of a split, spread evenly")
    parser.add_argument("--pretraining", "--name", metavar="NAME", help="what to call the weights in tables")


def add_device(parser: argparse.ArgumentParser, what: str = "") -> None:
    """``--device``, refused when it is not there."""
    parser.add_argument(
        "--device",
        type=_device,
        default="auto",
        metavar="DEVICE",
        help=f"{what}cpu, cuda, cuda:1, ..., or auto: a GPU if there is one (%(default)s)",
    )


def add_cfg_options(parser: argparse.ArgumentParser, flag: str = "--cfg-options", text: str | None = None) -> None:
    """``--cfg-options KEY=VALUE ...``, or another flag of its kind."""
    parser.add_argument(
        flag,
        nargs="+",
        action=KeyValues,
        default={},
        metavar="KEY=VALUE",
        help=text or "override the config; +KEY=VALUE adds a key that neither it nor its classes know",
    )


def add_init(parser: argparse.ArgumentParser) -> None:
    """``--init`` and ``--init-title`` of a pretraining."""
    parser.add_argument(
        "--init",
        metavar="CKPT",
        help="weights that student and teacher start from: any file that the converters read, or 'timm' or "
        "'torchvision' for that library's published ones, which its loader may download",
    )
    parser.add_argument("--init-title", metavar="TITLE", help="what to call them in tables, for example ImageNet")


def add_resume(parser: argparse.ArgumentParser) -> None:
    """``--resume`` and ``--overwrite``: what becomes of a used work dir."""
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="CKPT",
        help="go on from the newest whole checkpoint in the work dir, or from the one given",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="set a used work dir aside (DIR.old1, ...) and start anew"
    )


def add_budget(parser: argparse.ArgumentParser) -> None:
    """``--budget``."""
    parser.add_argument(
        "--budget",
        type=seconds_of,
        metavar="TIME",
        help="time that the run may take, such as 30m, 90s or 1h30m: some steps are measured, the number of epochs "
        "follows (in place of train_cfg.max_epochs), and the run ends in time with its checkpoint written",
    )


def seconds_of(text: str) -> float:
    """``1h30m`` -> 5400.0; ``90 min``, as messages tell the time, likewise."""
    parts = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?", text.replace(" ", ""))
    seconds = sum(int(n or 0) * unit for n, unit in zip(parts.groups(), (86400, 3600, 60, 1))) if parts else 0
    if not seconds:
        raise argparse.ArgumentTypeError(f"expected a time such as 30m, 90s or 1h30m, got {text!r}")
    return float(seconds)


def at_least(least: int) -> Callable[[str], int]:
    """A type for options: a whole number, none below ``least``."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return int(text)

    return count


def add_batch_mode(parser: argparse.ArgumentParser) -> None:
    """``--batch-mode``."""
    parser.add_argument(
        "--batch-mode",
        choices=["accumulate", "scale-lr"],
        help="when GPUs x images per GPU is not the recipe's total batch: keep that (divide, accumulate) or train with "
        "what the GPUs hold, learning rate and steps scaled (default: as the config says, else accumulate)",
    )


def add_no_fpn(parser: argparse._ActionsContainer) -> None:
    """``--no-fpn``, which is False in ``fpn``."""
    parser.add_argument(
        "--no-fpn",
        dest="fpn",
        action="store_false",
        help="start with a new feature pyramid or FCN head, where the checkpoint's would fit",
    )


def add_gpus(parser: argparse.ArgumentParser) -> None:
    """``--gpus``."""
    parser.add_argument(
        "--gpus", type=at_least(1), default=1, metavar="N", help="processes on this machine, a GPU each (1)"
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """``--launcher`` and what old torch launchers add to it."""
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=_local_rank, help=argparse.SUPPRESS)


def _local_rank(text: str) -> int:
    os.environ.setdefault("LOCAL_RANK", text)
    return int(text)


def _device(name: str) -> str:
    if name == "auto":
        return name
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda or cuda:NUMBER, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda or cuda:NUMBER, got {name!r}")
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        count = torch.cuda.device_count()
        there = f"the GPUs here are cuda:0 to cuda:{count - 1}" if count else "PyTorch finds no GPU or no driver for it"
        raise argparse.ArgumentTypeError(f"there is no {name}: {there}")
    return name
