"""From files to networks: the backbone that is judged, and the same one with random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slotcon_plugin.checkpoints.runs import config_of
from slotcon_plugin.config import load_config, require_model, settle
from slotcon_plugin.convert import build_canonical, read_checkpoint
from slotcon_plugin.convert.canonical import CanonicalBackbone, backbone_sha256
from slotcon_plugin.convert.metadata import UNKNOWN
from slotcon_plugin.convert.network import network_by_name, weights_of
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.decoder_map import WithDecoderMap
from slotcon_plugin.evaluation.features import INPUT_SIZE, OwnPixels, calibrate_batch_norm, pixels_of
from slotcon_plugin.loading import load_pretrainer
from slotcon_plugin.registry import MODELS


def build_untrained(config: str | Path, seed: int, zero_init_residual: bool = True) -> nn.Module:
    """The pretrainer of a config as it is before its first step, in eval mode.

    Args:
        zero_init_residual: False lets residual branches that would start at zero contribute from the start; weights
            that the config itself names (``init_cfg``) are then not loaded.
    """
    torch.manual_seed(seed)
    cfg = load_config(config)
    require_model(cfg)
    settle(cfg)
    model = cfg.model
    if zero_init_residual:
        return MODELS.build(model).eval()
    if (model.backbone.get("init_cfg") or {}).get("type") == "Pretrained":
        model.backbone.init_cfg = None
    model = MODELS.build(model).eval()
    for branch in (model.student, model.teacher):
        _open_residuals(branch["backbone"])
    return model


def _open_residuals(backbone: nn.Module) -> nn.Module:
    """Let residual branches give something from the start: BatchNorms that begin at zero begin at one."""
    for layer in backbone.modules():
        if isinstance(layer, _BatchNorm) and layer.affine and not layer.weight.any():
            nn.init.ones_(layer.weight)
    return backbone


def sha256_of_backbone(backbone: nn.Module) -> str:
    """The hash by which result files and converted files identify a backbone."""
    return backbone_sha256(weights_of(backbone))


class Loaded(NamedTuple):
    """A backbone for photos normalised by ImageNet's statistics.

    Attributes:
        backbone: ``(B, 3, H, W)`` -> tuple of stage maps.
        sha256: of its weights.
        method: name of its pretraining, ``'slotcon'``, ``'moco'``, ...; ``'unknown'`` where nothing tells.
        untrained: seed -> the same network with random weights. A random ResNet has torchvision's default
            initialisation: with the last BatchNorm of each block at zero, as pretraining starts, its residual branches
            give nothing and it is a weaker baseline than it need be.
    """

    backbone: nn.Module
    sha256: str
    method: str
    untrained: Callable[[int], nn.Module]


def load_backbone(
    checkpoint: str | Path,
    config: str | Path | None = None,
    *,
    branch: str | None = None,
    decoder: bool = False,
    network: str | None = None,
    output_stride: int | None = None,
) -> Loaded:
    """The backbone of a checkpoint.

    Args:
        checkpoint: any file that `convert.read_checkpoint` knows; a run's work dir, which brings its config; with
            `config`, a checkpoint of this project whose backbone may be any (timm, mmdet, ...).
        config: the config that trained it; the backbone then has its strides.
        branch: "teacher" or "student"; None takes what the run transfers.
        decoder: append the decoder's map to the stage maps, as the last one (VADeR; needs `config`).
        network: timm's name of the network in a file of somebody else's.
        output_stride: of the last map: 32, 16 or 8; None leaves the network at its own, whatever it was pretrained at.

    Raises:
        UserError: the checkpoint expects BGR, a decoder is asked for and there is none, or options exclude each other:
            `output_stride` with `config` or `decoder`, `network` with a config.
    """
    if decoder and output_stride is not None:
        raise UserError(
            "--decoder and --output-stride exclude each other: a decoder takes the maps at the strides it was trained "
            "on, which the config has; leave one of them out"
        )
    if config is not None and output_stride is not None:
        raise UserError("--output-stride: with --config the stride is the config's; leave one of them out")
    if config is None and output_stride is None and Path(checkpoint).is_dir():
        config = config_of(checkpoint)
    if config is not None and network is not None:
        raise UserError(f"--network {network}: {config} says which network it is; leave --network out")
    if decoder and config is None:
        raise UserError("--decoder needs a work dir or --config: only this project's own checkpoints carry a decoder")
    if config is None:
        canonical = read_checkpoint(checkpoint, branch, network=network_by_name(network) if network else None)
        pixels = _pixels(canonical, checkpoint)

        def random_canonical(seed: int) -> nn.Module:
            torch.manual_seed(seed)
            return OwnPixels(_open_residuals(canonical.network.build(output_stride, any_size=True)), *pixels)

        backbone = OwnPixels(build_canonical(canonical, output_stride, any_size=True), *pixels)
        return Loaded(backbone, canonical.meta["backbone_sha256"], canonical.meta["method"], random_canonical)
    part = WithDecoderMap if decoder else itemgetter("backbone")
    model = load_pretrainer(config, checkpoint)
    trained = model.branch(branch or model.transfer_branch)
    pixels = pixels_of(model)

    def random_own(seed: int) -> nn.Module:
        untrained = build_untrained(config, seed, zero_init_residual=False)
        return OwnPixels(part(untrained.branch("teacher")), *pixels)

    return Loaded(
        OwnPixels(part(trained), *pixels), sha256_of_backbone(trained["backbone"]), model.method.name, random_own
    )


def load_probe_arms(
    checkpoint: str | Path,
    config: str | Path | None = None,
    *,
    random_seed: int = 0,
    calibration_photos: Sequence[Path] = (),
    input_size: tuple[int, int] = INPUT_SIZE,
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
    return arms_of(load_backbone(checkpoint, config, **options), random_seed, calibration_photos, input_size)


def arms_of(
    loaded: Loaded, random_seed: int, calibration_photos: Sequence[Path], input_size: tuple[int, int]
) -> dict[str, tuple[nn.Module, str | None]]:
    """:func:`load_probe_arms` of a backbone that is loaded."""
    arms = {"checkpoint": (loaded.backbone, loaded.sha256), "random": (loaded.untrained(random_seed), None)}
    if calibration_photos:
        calibrated = loaded.untrained(random_seed)
        calibrate_batch_norm(calibrated, calibration_photos, input_size)
        arms["random_bn"] = (calibrated, None)
    return arms


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
