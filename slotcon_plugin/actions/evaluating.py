"""What a pretraining has learned, in figures, beside what random weights give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tabulate import tabulate

from slotcon_plugin.actions.runs import Run, checkpoint_of, config_of, own_config
from slotcon_plugin.actions.settings import defaults_of, require_settings
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import open_labelled_set
from slotcon_plugin.evaluation.arms import load_backbone
from slotcon_plugin.evaluation.labelled_set import LabelledSet
from slotcon_plugin.evaluation.pixel_retrieval import compare_pixel_retrieval
from slotcon_plugin.evaluation.probe import probe_backbone
from slotcon_plugin.evaluation.result_folder import PROTOTYPES, probe_file, require_same_row
from slotcon_plugin.evaluation.run import evaluate_unsupervised, probe_checkpoint
from slotcon_plugin.files import require_writable
from slotcon_plugin.results import FILE_NAME

MEASURES = {
    "probe": "linear and k-NN segmentation on frozen features; needs photos with masks",
    "prototypes": "segmentation without labels by the prototypes themselves (SlotCon); needs photos with masks",
    "retrieval": "is a place found again in another view? (VADeR, DenseCL); needs photos alone",
}

_SETTINGS = {
    "probe": defaults_of(probe_checkpoint) | defaults_of(probe_backbone),
    "prototypes": defaults_of(evaluate_unsupervised),
    "retrieval": defaults_of(compare_pixel_retrieval),
}
_NOT_SETTINGS = {"config", "device", "out_dir", "result_file", "trained", "checkpoints"}
_LEAST = {"epochs": 1, "neighbours": 0, "batch_size": 1, "short_side": 1, "num_pairs": 1}


@dataclass(frozen=True)
class Evaluation:
    """Figures of a pretraining; ``str()`` makes a table of them.

    Attributes:
        measure: how they were taken, a key of :data:`MEASURES`.
        data: on what.
        figures: arm (``'pretrained'``, ``'random'``, ...) -> figure -> value in percent; ``'spread'`` is that of the
            figure before it, the largest minus the smallest over heads.
        files: result files that were written.
    """

    measure: str
    data: str
    figures: Mapping[str, Mapping[str, float]]
    files: tuple[Path, ...] = ()

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for row in self.figures.values() for name in row))
        rows = [[arm, *(row.get(name) for name in names)] for arm, row in self.figures.items()]
        return f"{self.measure} on {self.data}, percent\n" + tabulate(rows, ["", *names], floatfmt=".1f")


def evaluate(
    run: Run,
    data: str | Path,
    measure: str = "probe",
    *,
    out: str | Path | None = None,
    config: str | Path | None = None,
    train: str = "train",
    test: str = "val",
    layout: str = "auto",
    protocol: str | None = None,
    limit: int | None = None,
    pretraining: str | None = None,
    device: str = "cpu",
    **settings: Any,
) -> Evaluation:
    """Judge a pretraining without fine-tuning.

    Args:
        run: what :func:`slotcon_plugin.pretrain` gave, a work dir, or a checkpoint (for ``'probe'`` of any known kind).
        data: a labelled set, see :mod:`slotcon_plugin.evaluation.readers`; for ``'retrieval'`` a folder of photos.
        measure: ``'probe'``, ``'prototypes'`` or ``'retrieval'``, see :data:`MEASURES`.
        out: folder that gets result files; of other weights it may hold none.
        config: of the run, where it does not lie in its work dir.
        train, test: splits of a labelled set; heads are trained on one (``'probe'``) and all is measured on the other.
        layout, protocol: of the labelled set, see :func:`~slotcon_plugin.evaluation.open_labelled_set`.
        limit: use only so many photos of a split, spread evenly.
        pretraining: what to call the weights in tables.
        device: where the networks run.
        settings: of the measure's own function: :func:`~slotcon_plugin.evaluation.run.probe_checkpoint` and
            :func:`~slotcon_plugin.evaluation.probe.probe_backbone` (``epochs``, ``stages``, ``input_size``, ``seeds``,
            ``neighbours``, ``output_stride``, ...), :func:`~slotcon_plugin.evaluation.run.evaluate_unsupervised`,
            :func:`~slotcon_plugin.evaluation.pixel_retrieval.compare_pixel_retrieval`.

    Raises:
        UserError: no such measure, or it does not go with the method or the data; a setting that it does not have, or
            out of its range; ``out`` holds results of other weights or data.
    """
    if measure not in MEASURES:
        raise UserError(f"measure: expected one of {', '.join(MEASURES)}, got {measure!r}")
    require_settings(measure, settings, _SETTINGS[measure].keys() - _NOT_SETTINGS)
    _check(settings)
    out = Path(out) if out else None
    if measure == "retrieval":
        of_labels = {"train": train != "train", "test": test != "val", "layout": layout != "auto", "protocol": protocol}
        given = {"out": out, "limit": limit, "pretraining": pretraining, **of_labels}
        if foreign := [name for name, value in given.items() if value]:
            raise UserError(f"retrieval looks at all photos of a folder and shows its figures: no {', '.join(foreign)}")
    if measure == "prototypes" and train != "train":
        raise UserError(f"prototypes learn from no labels and are measured on the split test={test!r} alone: no train")
    if out:
        require_writable(out / FILE_NAME)
    checkpoint = checkpoint_of(run)
    if measure == "retrieval":
        return _retrieval(config or config_of(run), checkpoint, data, device, settings)

    def split(which: str) -> LabelledSet:
        return open_labelled_set(str(data), which, layout, protocol).subset(limit)

    if measure == "prototypes":
        return _prototypes(config or config_of(run), checkpoint, split(test), out, pretraining, device, settings)
    sets = split(train), split(test)
    if settings.get("output_stride") is None:
        config = config or own_config(run)
    results = probe_checkpoint(
        checkpoint, *sets, config=config, pretraining=pretraining, out_dir=out, device=device, **settings
    )
    figures = {}
    for arm, probes in results.items():
        row = figures["pretrained" if arm == "checkpoint" else arm] = {}
        for probe, result in probes.items():
            row[f"{probe} mIoU"], spread = result.miou
            if len(result.scores) > 1:
                row["spread"] = spread
            row[f"{probe} accuracy"] = result.pixel_accuracy[0]
    files = [out / probe_file(probe, arm) for arm in results for probe in results[arm]] if out else []
    return Evaluation(measure, f"{sets[0].name} -> {sets[1].name}", figures, tuple(files))


def _check(settings: Mapping[str, Any]) -> None:
    for name, least in _LEAST.items():
        if settings.get(name, least) < least:
            raise UserError(f"{name}: expected at least {least}, got {settings[name]}")
    if not (seeds := settings.get("seeds", (0,))):
        raise UserError("seeds: expected at least one, a linear head each, got none")
    if len({*seeds}) < len(seeds):
        raise UserError(f"seeds: expected different ones, got {seeds}: heads of one seed are one head")
    if "input_size" in settings and (len(size := settings["input_size"]) != 2 or min(size) < 1):
        raise UserError(f"input_size: expected HEIGHT and WIDTH of at least 1, got {size}")


def _prototypes(
    config: Path,
    checkpoint: Path,
    data: LabelledSet,
    out: Path | None,
    pretraining: str | None,
    device: str,
    settings: Mapping[str, Any],
) -> Evaluation:
    if out:
        branch = settings.get("branch", _SETTINGS["prototypes"]["branch"])
        require_same_row(out, load_backbone(checkpoint, config, branch=branch).sha256, data.task)
    files = [out / name for name in PROTOTYPES] if out else []
    figures = {}
    for (arm, trained), file in zip_longest((("pretrained", True), ("untrained", False)), files):
        found = evaluate_unsupervised(
            *(config, checkpoint, data),
            device=device,
            result_file=file,
            pretraining=pretraining,
            trained=trained,
            **settings,
        )
        figures[arm] = {figure: value for figure, value in found.metrics().items() if figure != "live_prototypes"}
    return Evaluation("prototypes", data.name, figures, tuple(files))


def _retrieval(config: Path, checkpoint: Path, photos: str | Path, device: str, settings: Mapping) -> Evaluation:
    arms = compare_pixel_retrieval(config, photos, [checkpoint], device=device, **settings)
    random, trained = arms["random weights"], arms[str(checkpoint)]
    kinds: Sequence[str] = ("pixel", "photo", "place")
    figures = {
        "pretrained": {kind: 100 * trained[f"{kind}_accuracy"] for kind in kinds},
        "random": {kind: 100 * random[f"{kind}_accuracy"] for kind in kinds},
        "guessing": {kind: 100 * random[f"{kind}_chance"] for kind in kinds},
    }
    return Evaluation("retrieval", str(photos), figures)
