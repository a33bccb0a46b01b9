"""What the tools call: from files to figures to result files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from slotcon_plugin.apis import load_pretrainer
from slotcon_plugin.config import load_config, settle
from slotcon_plugin.convert import build_canonical, read_checkpoint
from slotcon_plugin.convert.canonical import CanonicalBackbone, backbone_sha256
from slotcon_plugin.convert.metadata import UNKNOWN, told_by
from slotcon_plugin.convert.network import network_by_name, weights_of
from slotcon_plugin.convert.runs import config_of
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.decoder_map import WithDecoderMap
from slotcon_plugin.evaluation.features import OwnPixels, calibrate_batch_norm, pixels_of
from slotcon_plugin.evaluation.labelled_set import LabelledSet
from slotcon_plugin.evaluation.probe import ProbeResult, probe_backbone
from slotcon_plugin.evaluation.unsupervised import UnsupervisedSegmentation, segment_unsupervised
from slotcon_plugin.photos import collect_photos
from slotcon_plugin.registry import MODELS
from slotcon_plugin.results import write_result


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
) -> UnsupervisedSegmentation:
    """Unsupervised segmentation of a checkpoint, or of the untrained model of a config (`checkpoint` None).

    A work dir stands for the config and the newest checkpoint in it. `head`: whose grouping, of a method with several.

    `pretraining` is the checkpoint's row in tables; by default the method's name, or all of a run's that started from
    weights ("ImageNet, then SlotCon on 2,915 photos").
    """
    start = time.perf_counter()
    config = config_of(config)
    if checkpoint is None:
        model = build_untrained(config, seed).to(device)
    else:
        model = load_pretrainer(config, checkpoint, device)
    model.show_head(head)
    settings = {"branch": branch, "short_side": short_side, "batch_size": batch_size, "seed": seed}
    result = segment_unsupervised(model, data, **settings)
    if result_file is not None:
        told = told_by(checkpoint) if checkpoint else {}
        write_result(
            result_file,
            task=f"unsupervised_seg_{data.name.replace('/', '_').split(' ')[0]}",
            metrics=result.metrics(),
            pretraining=(pretraining or told.get("title") or model.method.name) if checkpoint else "random",
            config=load_config(config),  # its contents: a run's own copy holds its seed and work dir too
            backbone_sha256=_backbone_sha256(model.branch(branch)["backbone"]) if checkpoint else None,
            seed=seed,
            wall_time_s=time.perf_counter() - start,
            data=data.name,
            num_images=len(data),
            settings=settings | ({"head": head} if head else {}),
            **told,
            iou={p: dict(zip(data.classes, _finite(score.iou))) for p, score in result.scores.items()},
        )
    return result


def build_untrained(config: str | Path, seed: int, zero_init_residual: bool = True) -> nn.Module:
    """The pretrainer of a config as it is before its first step, in eval mode.

    Args:
        zero_init_residual: False overrules a backbone's own setting of that name, if it has one.
    """
    torch.manual_seed(seed)
    cfg = load_config(config)
    settle(cfg)
    model = cfg.model
    if not zero_init_residual and "zero_init_residual" in model.backbone:
        model.backbone.zero_init_residual = False
    return MODELS.build(model).eval()


def _backbone_sha256(backbone: nn.Module) -> str:
    return backbone_sha256(weights_of(backbone))


def _finite(values: Sequence[float]) -> list[float | None]:
    return [None if value != value else round(float(value), 3) for value in values]


class Loaded(NamedTuple):
    """A backbone for photos normalised by ImageNet's statistics.

    Attributes:
        backbone: ``(B, 3, H, W)`` -> tuple of stage maps.
        sha256: of its weights.
        untrained: seed -> the same network with random weights. A random ResNet has torchvision's default
            initialisation: with the last BatchNorm of each block at zero, as pretraining starts, its residual branches
            give nothing and it is a weaker baseline than it need be.
    """

    backbone: nn.Module
    sha256: str
    untrained: Callable[[int], nn.Module]


def load_backbone(
    checkpoint: str | Path,
    config: str | Path | None = None,
    *,
    which: str | None = None,
    decoder: bool = False,
    network: str | None = None,
    output_stride: int | None = None,
) -> Loaded:
    """The backbone of a checkpoint.

    Args:
        checkpoint: any file that `convert.read_checkpoint` knows; a run's work dir, which brings its config; with
            `config`, a checkpoint of this project whose backbone may be any (timm, mmdet, ...).
        config: the config that trained it; the backbone then has its strides.
        which: "teacher" or "student"; None takes what the run transfers.
        decoder: append the decoder's map to the stage maps, as the last one (VADeR; needs `config`).
        network: timm's name of the network in a file of somebody else's.
        output_stride: of the last map: 32, 16 or 8; None leaves the network at its own, whatever it was pretrained at.

    Raises:
        UserError: the checkpoint expects BGR, a decoder is asked for and there is none, or `config` and `output_stride`
            are both given.
    """
    if config is not None and output_stride is not None:
        raise UserError("--output-stride: with --config the stride is the config's; leave one of them out")
    if config is None and output_stride is None and Path(checkpoint).is_dir():
        config = config_of(checkpoint)
    if decoder and config is None:
        raise UserError("--decoder needs a work dir or --config: only this project's own checkpoints carry a decoder")
    if config is None:
        canonical = read_checkpoint(checkpoint, which, network=network_by_name(network) if network else None)
        pixels = _pixels(canonical, checkpoint)

        def random_canonical(seed: int) -> nn.Module:
            torch.manual_seed(seed)
            return OwnPixels(canonical.network.build(output_stride), *pixels)

        backbone = OwnPixels(build_canonical(canonical, output_stride), *pixels)
        return Loaded(backbone, canonical.meta["backbone_sha256"], random_canonical)
    part = WithDecoderMap if decoder else itemgetter("backbone")
    model = load_pretrainer(config, checkpoint)
    trained = model.branch(which or model.transfer_branch)
    pixels = pixels_of(model)

    def random_own(seed: int) -> nn.Module:
        untrained = build_untrained(config, seed, zero_init_residual=False)
        return OwnPixels(part(untrained.branch("teacher")), *pixels)

    return Loaded(OwnPixels(part(trained), *pixels), _backbone_sha256(trained["backbone"]), random_own)


def load_probe_arms(
    checkpoint: str | Path,
    config: str | Path | None = None,
    *,
    random_seed: int = 0,
    calibration_photos: Sequence[Path] = (),
    input_size: tuple[int, int] = (240, 320),
    **options,
) -> dict[str, tuple[nn.Module, str | None]]:
    """The backbone to be judged and the random ones it is judged against.

    Args:
        checkpoint, config, options: see `load_backbone`.
        random_seed: of the random backbones.
        calibration_photos: if given, a second random backbone whose BatchNorm statistics are set on them.
        input_size: (height, width) for the calibration.

    Returns:
        name of the arm -> (backbone, hash of its weights, None if random).
    """
    loaded = load_backbone(checkpoint, config, **options)
    arms = {"checkpoint": (loaded.backbone, loaded.sha256), "random": (loaded.untrained(random_seed), None)}
    if calibration_photos:
        calibrated = loaded.untrained(random_seed)
        calibrate_batch_norm(calibrated, calibration_photos, input_size)
        arms["random_bn"] = (calibrated, None)
    return arms


def probe_checkpoint(
    checkpoint: str | Path,
    train: LabelledSet,
    test: LabelledSet,
    *,
    config: str | Path | None = None,
    name: str | None = None,
    which: str | None = None,
    decoder: bool = False,
    network: str | None = None,
    output_stride: int | None = None,
    random_seed: int = 0,
    bn_calibrate: str | Path | None = None,
    bn_photos: int = 480,
    input_size: tuple[int, int] = (240, 320),
    out_dir: str | Path | None = None,
    **settings,
) -> dict[str, dict[str, ProbeResult]]:
    """Probe a checkpoint's backbone and random ones.

    Args:
        checkpoint, config, which, decoder, network, output_stride: see `load_backbone`.
        name: the checkpoint's row in tables; None = "pretrained", or what a run from weights says of itself.
        random_seed: of the random backbones.
        bn_calibrate: folder of photos on which a second random backbone's BatchNorm statistics are set.
        bn_photos: how many of them.
        input_size, settings: see `probe_backbone`.
        out_dir: gets a result file for each arm and probe.

    Returns:
        arm ("checkpoint", "random", "random_bn") -> probe ("linear", "knn") -> result.
    """
    arms = load_probe_arms(
        checkpoint,
        config,
        which=which,
        decoder=decoder,
        network=network,
        output_stride=output_stride,
        random_seed=random_seed,
        calibration_photos=collect_photos([bn_calibrate], bn_photos) if bn_calibrate else (),
        input_size=input_size,
    )
    told = told_by(checkpoint)
    title = name or told.get("title") or "pretrained"
    settings |= {"input_size": input_size, "output_stride": output_stride}
    return probe_arms(arms, train, test, pretraining=title, told=told, out_dir=out_dir, **settings)


def _pixels(canonical: CanonicalBackbone, checkpoint: str | Path) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation in [0, 1] that the weights expect; the network's usual ones if nothing says so."""
    meta = canonical.meta
    if meta["colour_order"] == "BGR":
        raise UserError(f"{checkpoint}: probes feed RGB photos, this backbone was trained on BGR")
    if UNKNOWN in (meta["mean"], meta["std"]):
        usual = canonical.network.usual_pixels
        print_log(f"{checkpoint} does not say which pixels it expects; taken to be mean {usual[0]}, std {usual[1]}")
        return usual
    return [value / 255 for value in meta["mean"]], [value / 255 for value in meta["std"]]


def probe_arms(
    arms: dict[str, tuple[nn.Module, str | None]],
    train: LabelledSet,
    test: LabelledSet,
    *,
    pretraining: str,
    told: Mapping[str, Any] = MappingProxyType({}),
    out_dir: str | Path | None = None,
    output_stride: int | None = None,
    **settings,
) -> dict[str, dict[str, ProbeResult]]:
    """Probe every arm with the same settings (see `probe_backbone`) and write a result file for each arm and probe.

    Args:
        arms: of `load_probe_arms`.
        pretraining: name of the checkpoint's row in a table.
        told: further facts for its result files, see `convert.metadata.told_by`.
        out_dir: gets `PROBE_ARM.json`; None writes nothing.
        output_stride: that the arms were loaded with; figures of different ones do not compare.

    Returns:
        arm -> probe ("linear", "knn") -> result.
    """
    dilated = {} if output_stride is None else {"output_stride": output_stride}
    told_settings = {name: value for name, value in settings.items() if name != "device"} | dilated
    results = {}
    for number, (arm, (backbone, digest)) in enumerate(arms.items(), start=1):
        print_log(
            f"probing {arm} ({number} of {len(arms)}): heads learn from {len(train)} photos, {len(test)} judge them"
        )
        results[arm] = probe_backbone(backbone, train, test, **settings)
        if out_dir is None:
            continue
        for probe, result in results[arm].items():
            (miou, miou_spread), (accuracy, accuracy_spread) = result.miou, result.pixel_accuracy
            figures = {"mIoU": miou, "mIoU_spread": miou_spread}
            figures |= {"pixel_accuracy": accuracy, "pixel_accuracy_spread": accuracy_spread}
            write_result(
                Path(out_dir) / f"{probe}_{arm}.json",
                task=f"{probe}_probe_{test.name.replace('/', '_').split(' ')[0]}",
                metrics=figures,
                pretraining=pretraining if arm == "checkpoint" else arm,
                config=Config(told_settings),
                config_name="frozen_probe",
                backbone_sha256=digest,
                seed=settings.get("seeds", (0,))[0],
                wall_time_s=result.wall_time_s,
                train=train.name,
                test=test.name,
                num_images=[len(train), len(test)],
                **(told if arm == "checkpoint" else {}),
                iou=[dict(zip(result.classes, _finite(score.iou))) for score in result.scores],
            )
    return results
