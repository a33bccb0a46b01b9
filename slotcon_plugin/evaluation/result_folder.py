"""The folder that an evaluation writes to: of one pretraining and data set, as its files are not named after them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from slotcon_plugin.errors import UserError
from slotcon_plugin.results import read_result

PROTOTYPES = ("prototypes.json", "prototypes_random.json")
"""Files of the segmentation by prototypes: the checkpoint's, the untrained model's."""
_PROBES = ("linear", "knn")
_ARMS = ("checkpoint", "random", "random_bn")


def probe_file(probe: str, arm: str) -> str:
    """Name of the result file of a probe (``'linear'``, ``'knn'``) of an arm (``'checkpoint'``, ``'random'``, ...)."""
    return f"{probe}_{arm}.json"


def require_same_row(folder: str | Path, backbone_sha256: str, data: str) -> None:
    """Refuse a folder with figures of another checkpoint or data set: some would be replaced, others stay.

    Args:
        folder: where result files will be written; it need not exist.
        backbone_sha256: of the checkpoint that is to be measured.
        data: name of the labelled set, ``LabelledSet.task``.

    Raises:
        UserError: names the first file.
    """
    tasks = {name: probe_task(probe, data) for name, probe in _probe_files().items()}
    tasks |= dict.fromkeys(PROTOTYPES, prototypes_task(data))
    measured = {PROTOTYPES[0], *(probe_file(probe, _ARMS[0]) for probe in _PROBES)}
    for path, result in _results(Path(folder), tasks):
        other = None
        if path.name in measured and result["backbone_sha256"] not in (None, backbone_sha256):
            other = f"other weights ({result['pretraining']})"
        elif result["task"] != tasks[path.name]:
            other = f"other data ({result['task']}, and now it is {tasks[path.name]})"
        if other:
            raise UserError(f"{path} is of {other}: give another folder with --out, or take away what is there")


def remove_former_probes(folder: str | Path) -> None:
    """Take away what former probes have left: with other settings it is no part of the figures that come now."""
    for path, _ in _results(Path(folder), _probe_files()):
        path.unlink()


def probe_task(probe: str, data: str) -> str:
    """What a probe's result file calls its task."""
    return f"{probe}_probe_{data}"


def prototypes_task(data: str) -> str:
    """What the result file of a segmentation by prototypes calls its task."""
    return f"unsupervised_seg_{data}"


def _probe_files() -> dict[str, str]:
    """Name of a file -> its probe."""
    return {probe_file(probe, arm): probe for probe in _PROBES for arm in _ARMS}


def _results(folder: Path, names: Iterable[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in (folder / name for name in names):
        try:
            result = read_result(path)
        except (OSError, UserError):  # not there, or no result
            continue
        yield path, result
