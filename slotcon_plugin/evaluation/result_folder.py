"""The folder that an evaluation writes to: of one pretraining, since a table makes one row of all results in it."""

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


def require_same_weights(folder: str | Path, backbone_sha256: str) -> None:
    """Refuse a folder with figures of another checkpoint: some would be replaced, others stay beside the new ones.

    Raises:
        UserError: names the first file.
    """
    measured = [probe_file(probe, "checkpoint") for probe in _PROBES]
    for path, result in _results(Path(folder), [*measured, PROTOTYPES[0]]):
        if result["backbone_sha256"] not in (None, backbone_sha256):
            raise UserError(
                f"{path} is of other weights ({result['pretraining']}): give another folder with --out, or take away "
                "what is there; a table would make one row of both"
            )


def remove_former_probes(folder: str | Path, task: str) -> None:
    """Take away what former probes on the same data have left: with other settings it is no part of these figures."""
    names = {probe_file(probe, arm): probe for probe in _PROBES for arm in _ARMS}
    for path, result in _results(Path(folder), names):
        if result["task"] == probe_task(names[path.name], task):
            path.unlink()


def probe_task(probe: str, task: str) -> str:
    """What a probe's result file calls its task."""
    return f"{probe}_probe_{task}"


def _results(folder: Path, names: Iterable[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in (folder / name for name in names):
        try:
            result = read_result(path)
        except (OSError, UserError):  # not there, or no result
            continue
        yield path, result
