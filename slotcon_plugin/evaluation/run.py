"""From files to figures to result files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from slotcon_plugin.checkpoints.runs import config_of
from slotcon_plugin.config import load_config
from slotcon_plugin.convert.canonical import backbone_sha256
from slotcon_plugin.convert.metadata import UNKNOWN, told_by
from slotcon_plugin.evaluation.arms import arms_of, build_untrained, load_backbone, sha256_of_backbone
from slotcon_plugin.evaluation.features import INPUT_SIZE, map_sizes
from slotcon_plugin.evaluation.labelled_set import LabelledSet
from slotcon_plugin.evaluation.probe import ProbeResult, probe_backbone
from slotcon_plugin.evaluation.result_folder import (
    probe_file,
    probe_task,
    prototypes_task,
    remove_former_probes,
    require_same_row,
)
from slotcon_plugin.evaluation.unsupervised import UnsupervisedSegmentation, segment_unsupervised
from slotcon_plugin.files import require_writable
from slotcon_plugin.loading import load_pretrainer
from slotcon_plugin.photos import collect_photos
from slotcon_plugin.results import FILE_NAME, write_result

_TOLD = {"input_size", "stages", "epochs", "learning_rate", "batch_size", "seeds", "neighbours"}


def evaluate_unsupervised(
    config: str | Path,
    checkpoint: str | Path | None,
    data: LabelledSet,
    *,
    short_side: int = 320,
    batch_size: int = 8,
    branch: str = "teacher",
    head: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    result_file: str | Path | None = None,
    pretraining: str | None = None,
    trained: bool = True,
) -> UnsupervisedSegmentation:
    """Unsupervised segmentation of a checkpoint, or of the untrained model of a config (`checkpoint` None).

    Args:
        config: the config that trained it; a work dir stands for the config in it.
        checkpoint: of that run; a work dir stands for its newest checkpoint.
        data: the labelled set.
        short_side: photos are resized to this short side in pixels; masks keep their size.
        batch_size: photos at a time.
        branch: "teacher" or "student".
        head: whose grouping, of a method with several heads; None = the one that it shows by itself.
        seed: of k-means, and of an untrained model's weights.
        device: where the model runs.
        result_file: JSON file to write, or a folder for it; None writes nothing.
        pretraining: the checkpoint's row in tables; None = the method's name, or all of a run's history if it started
            from weights ("ImageNet, then SlotCon on 2,915 photos").
        trained: False takes from the checkpoint only what the config leaves open (the number of prototypes) and judges
            an untrained model.

    Raises:
        UserError: the result file cannot be written; the method has no prototypes.
    """
    if result_file is not None:
        place = Path(result_file)
        require_writable(place / FILE_NAME if place.is_dir() else place)
    start = time.perf_counter()
    config = config_of(config)
    if checkpoint is None:
        model = build_untrained(config, seed).to(device)
    else:
        if not trained:
            torch.manual_seed(seed)
        model = load_pretrainer(config, checkpoint, device, trained)
    learned = trained and checkpoint is not None
    model.show_head(head)
    settings = {"branch": branch, "short_side": short_side, "batch_size": batch_size, "seed": seed}
    result = segment_unsupervised(model, data, **settings)
    if result_file is not None:
        # as a probe's: random weights are the same beside every checkpoint of a seed and of a number of prototypes
        drawn = {} if learned else {"weights_sha256": backbone_sha256(model.branch(branch).state_dict())}
        told = told_by(checkpoint) if learned else {}
        write_result(
            result_file,
            task=prototypes_task(data.task),
            metrics=result.metrics(),
            pretraining=(pretraining or told.get("title") or model.method.name) if learned else "random",
            # what is measured: a run's own copy holds its seed, its work dir and what follows from its hardware, too
            config=Config({"model": load_config(config).model.to_dict()}),
            config_name=str(config),
            backbone_sha256=sha256_of_backbone(model.branch(branch)["backbone"]) if learned else None,
            seed=seed,
            wall_time_s=time.perf_counter() - start,
            data=data.name,
            num_images=len(data),
            settings=settings | ({"head": head} if head else {}),
            **told,
            **drawn,
            iou={p: dict(zip(data.classes, _finite(score.iou))) for p, score in result.scores.items()},
        )
    return result


def _finite(values: Sequence[float]) -> list[float | None]:
    return [None if value != value else round(float(value), 3) for value in values]


def probe_checkpoint(
    checkpoint: str | Path,
    train: LabelledSet,
    test: LabelledSet,
    *,
    config: str | Path | None = None,
    pretraining: str | None = None,
    branch: str | None = None,
    decoder: bool = False,
    network: str | None = None,
    output_stride: int | None = None,
    random_seed: int = 0,
    bn_calibrate: str | Path | None = None,
    bn_photos: int = 480,
    input_size: tuple[int, int] = INPUT_SIZE,
    out_dir: str | Path | None = None,
    **settings,
) -> dict[str, dict[str, ProbeResult]]:
    """Probe a checkpoint's backbone and random ones.

    Args:
        checkpoint, config, branch, decoder, network, output_stride: see `load_backbone`.
        pretraining: the checkpoint's row in tables; None = the method's name ("pretrained" where that is not known),
            or what a run from weights says of itself.
        random_seed: of the random backbones.
        bn_calibrate: folder of photos on which a second random backbone's BatchNorm statistics are set.
        bn_photos: how many of them.
        input_size, settings: see `probe_backbone`.
        out_dir: gets a result file for each arm and probe, in the place of what former probes have left.

    Returns:
        arm ("checkpoint", "random", "random_bn") -> probe ("linear", "knn") -> result.

    Raises:
        UserError: `out_dir` cannot be written to, or holds results of other weights or data; weights that cannot be
            used, see `load_backbone`.
    """
    if out_dir is not None:
        require_writable(Path(out_dir) / FILE_NAME)
    loaded = load_backbone(
        checkpoint, config, branch=branch, decoder=decoder, network=network, output_stride=output_stride
    )
    if out_dir is not None:
        require_same_row(out_dir, loaded.sha256, test.task)
    calibration_photos = collect_photos([bn_calibrate], bn_photos) if bn_calibrate else ()
    arms = arms_of(loaded, random_seed, calibration_photos, input_size)
    told = told_by(checkpoint)
    title = pretraining or told.get("title") or ("pretrained" if loaded.method == UNKNOWN else loaded.method)
    settings |= {"input_size": input_size, "output_stride": output_stride}
    measured = ({"decoder": True} if decoder else {}) | ({"branch": branch} if branch else {})
    return probe_arms(
        *(arms, train, test),
        pretraining=title,
        told=told,
        out_dir=out_dir,
        measured=measured,
        seed=random_seed,
        **settings,
    )


def probe_recipe(**settings) -> Config:
    """What figures of a probe depend on beside weights and data: all settings, whether they were given or not."""
    parameters = signature(probe_backbone).parameters.items()
    defaults = {name: each.default for name, each in parameters if name in _TOLD}
    return Config(defaults | {name: value for name, value in settings.items() if name != "device"})


def probe_arms(
    arms: dict[str, tuple[nn.Module, str | None]],
    train: LabelledSet,
    test: LabelledSet,
    *,
    pretraining: str,
    told: Mapping[str, Any] = MappingProxyType({}),
    out_dir: str | Path | None = None,
    output_stride: int | None = None,
    measured: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
    **settings,
) -> dict[str, dict[str, ProbeResult]]:
    """Probe every arm with the same settings (see `probe_backbone`) and write a result file for each arm and probe.

    Args:
        arms: of `load_probe_arms`.
        pretraining: name of the checkpoint's row in a table.
        told: further facts for its result files, see `convert.metadata.told_by`.
        out_dir: gets `PROBE_ARM.json`, once all are measured, in the place of what former probes have left; None
            writes nothing.
        output_stride: that the arms were loaded with; figures of different ones do not compare.
        measured: what else was said about the arms' loading, of which the same holds.
        seed: of the random arms, or of the run: the one that result files tell.

    Returns:
        arm -> probe ("linear", "knn") -> result.
    """
    dilated = {} if output_stride is None else {"output_stride": output_stride}
    recipe = probe_recipe(**settings, **dilated, **measured)
    results = {}
    for number, (arm, (backbone, _)) in enumerate(arms.items(), start=1):
        print_log(
            f"probing {arm} ({number} of {len(arms)}): heads learn from {len(train)} photos, {len(test)} judge them"
        )
        results[arm] = probe_backbone(backbone, train, test, **settings)
    if out_dir is None:
        return results
    remove_former_probes(out_dir)
    for arm, (backbone, digest) in arms.items():
        # random weights are the same beside every checkpoint of a seed
        known = dict(told) if arm == "checkpoint" else {"weights_sha256": sha256_of_backbone(backbone)}
        # a work dir brings the stride of its run, a file of the same run does not
        known["map_sizes"] = map_sizes(backbone, settings.get("input_size", INPUT_SIZE))
        for probe, result in results[arm].items():
            (miou, miou_spread), (accuracy, accuracy_spread) = result.miou, result.pixel_accuracy
            figures = {"mIoU": miou, "mIoU_spread": miou_spread}
            figures |= {"pixel_accuracy": accuracy, "pixel_accuracy_spread": accuracy_spread}
            write_result(
                Path(out_dir) / probe_file(probe, arm),
                task=probe_task(probe, test.task),
                metrics=figures,
                pretraining=pretraining if arm == "checkpoint" else arm,
                config=recipe,
                config_name="frozen_probe",
                backbone_sha256=digest,
                seed=seed,
                wall_time_s=result.wall_time_s,
                train=train.name,
                test=test.name,
                num_images=[len(train), len(test)],
                **known,
                iou=[dict(zip(result.classes, _finite(score.iou))) for score in result.scores],
            )
    return results
