"""Checkpoints of transfer runs: what they say of themselves, and whether a model is whole in one.

mmengine and detectron2 load what fits and warn about the rest; here a model comes from its file entirely or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from slotcon_plugin.checkpoints.runs import find_checkpoint
from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.convert.metadata import UNKNOWN
from slotcon_plugin.convert.tensors import model_tensors
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import replacing, sha256_of
from slotcon_plugin.results import FILE_NAME, read_result
from slotcon_plugin.transfer.backbone import Origin

FACTS = "slotcon_transfer"
"""Key in a checkpoint's ``meta`` under which a transfer run puts what its result file will say; plain values."""


PASSES, IMAGES = "passes a step", "images a step"
"""Keys of :func:`length_of`: what a step of a run is."""


def facts_of_run(origin: Origin, seed: int, seconds: float) -> dict[str, Any]:
    """What a run puts into its checkpoints under :data:`FACTS`."""
    return {
        "pretraining": origin.pretraining,
        "backbone_sha256": origin.sha256,
        "seed": seed,
        "wall_time_s": seconds,
        "told": dict(origin.told),
        "fpn": origin.fpn,
    }


def length_of(cfg: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """What positions and schedules of a run of mmengine are counted in, once its batch is settled; plain values."""
    loop, passes = cfg["train_cfg"], cfg["optim_wrapper"].get("accumulative_counts", 1)
    length = {key: loop[key] for key in ("max_iters", "max_epochs") if key in loop}
    images = cfg["train_dataloader"].get("batch_size")
    return {**length, PASSES: passes, IMAGES: images and images * processes * passes}


class TransferCheckpoint(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        path: where it lies.
        weights: key -> tensor of the whole model.
        facts: as :func:`facts_of_run` gives them; empty if no run of ours wrote it.
        steps: that a run of detectron2 has made; None = it is another framework's, or does not say.
    """

    path: Path
    weights: dict[str, Tensor]
    facts: Mapping[str, Any]
    steps: int | None = None

    def origin(self, name: str | None = None) -> Origin:
        """Of the backbone that the run began with; ``name`` is what the user calls it where the file does not know."""
        known = self.facts
        pretraining = known.get("pretraining") or name or UNKNOWN
        return Origin(pretraining, known.get("backbone_sha256"), None, known.get("told") or {}, known.get("fpn", True))


def read_transfer_checkpoint(path: str | Path) -> TransferCheckpoint:
    """Read a checkpoint of mmdet, mmseg or detectron2, or the newest whole one of a run's work dir; runs nothing in it.

    Raises:
        UserError: there is no such file, or none with weights.
    """
    path = find_checkpoint(path)
    if not path.is_file():
        raise UserError(f"the checkpoint {path} does not exist")
    content = load_file(path)
    meta = content.get("meta")
    facts = meta.get(FACTS) if isinstance(meta, Mapping) else None
    last = content.get("iteration")  # detectron2's, counted from 0
    return TransferCheckpoint(path, model_tensors(content, str(path)), facts or {}, None if last is None else last + 1)


def require_same_steps(checkpoint: TransferCheckpoint, length: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose position would mean something else; those of old do not say.

    Raises:
        UserError: a step has another number of passes or images, see :func:`length_of`.
    """
    former = checkpoint.facts.get("length", length)
    changed = [f"{key} {former[key]} -> {length[key]}" for key in (PASSES, IMAGES) if former[key] != length[key]]
    if changed:
        raise UserError(
            f"cannot resume {checkpoint.path}: where the run stands is counted in other steps now "
            f"({', '.join(changed)}). Resume with the processes and the batch that it was started with, or begin anew "
            "in a work dir of its own"
        )


def write_model(checkpoint: str | Path, path: Path) -> None:
    """Write the weights of a run's checkpoint, its classes and what it says of its backbone, and nothing else.

    mmdet's and mmseg's own functions read such a file. A whole checkpoint holds objects of mmengine's, which PyTorch
    2.6 and newer load only when they are told to.
    """
    content = load_file(checkpoint)
    kept = {key: content["meta"][key] for key in ("dataset_meta", FACTS)}
    with replacing(path) as partial:
        torch.save({"state_dict": content["state_dict"], "meta": kept}, partial)


def check_whole(model: nn.Module, checkpoint: TransferCheckpoint, prefix: str = "") -> None:
    """Every weight of the model is in the checkpoint.

    Args:
        model: as its config builds it.
        checkpoint: may hold more; BatchNorm's counters, which no figure depends on, may be missing.
        prefix: look at the keys that begin so, and no others.

    Raises:
        UserError: one is missing or has another shape.
    """
    own = {key: value for key, value in model.state_dict().items() if key.startswith(prefix)}
    have = {key: tuple(value.shape) for key, value in checkpoint.weights.items()}
    wrong = [
        key
        for key, value in own.items()
        if have.get(key) != tuple(value.shape) and not (key.endswith("num_batches_tracked") and key not in have)
    ]
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{checkpoint.path} does not hold the {'model' if not prefix else prefix.rstrip('.')} of this config: "
            f"{len(wrong)} of {len(own)} weights are missing or have another shape, the first is {first!r} (checkpoint "
            f"{have.get(first, 'has none')}, model {tuple(own[first].shape)}). Give a checkpoint that a run of this "
            "config has written; a pretraining's or a backbone's goes into --backbone of a training"
        )


def test_result_path(folder: str | Path, checkpoint: TransferCheckpoint) -> tuple[Path, dict[str, str]]:
    """Where the test result of a checkpoint goes, and which facts in it say what was tested.

    Raises:
        UserError: the result of another checkpoint is there.
    """
    path = Path(folder) / f"test_{FILE_NAME}"
    tested = {"evaluated": str(checkpoint.path), "evaluated_sha256": sha256_of(checkpoint.path)}
    if path.exists():
        former = read_result(path)
        if former.get("evaluated_sha256") != tested["evaluated_sha256"]:
            raise UserError(
                f"{path} is the result of {former.get('evaluated') or 'another checkpoint'} and is kept: give this one "
                "another folder (--work-dir; detectron2: OUTPUT_DIR)"
            )
    return path, tested
