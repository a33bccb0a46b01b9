"""A detector or segmenter of one's own labels, from a pretraining."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process

from slotcon_plugin.actions.runs import Run, checkpoint_of
from slotcon_plugin.config import apply_options, read_config
from slotcon_plugin.convert.metadata import UNKNOWN
from slotcon_plugin.convert.network import Network, network_by_name
from slotcon_plugin.convert.read import read_checkpoint
from slotcon_plugin.engine.batch import schedules_of, stretch_iterations
from slotcon_plugin.engine.last_checkpoint import last_checkpoint
from slotcon_plugin.errors import UserError
from slotcon_plugin.models.timm_backbone import look_up
from slotcon_plugin.results import FILE_NAME, read_result
from slotcon_plugin.transfer import openmmlab
from slotcon_plugin.transfer.checkpoint import read_transfer_checkpoint, write_model

# (labels, whether the network is a plain ResNet-18) -> config; the others' network is put into theirs
_RECIPES = {
    ("boxes", True): "rcnn_r18_fpn_own",
    ("boxes", False): "rcnn_lite0_fpn_own",
    ("masks", True): "fpn_r18_own",
    ("masks", False): "fcn_lite0_own",
}
_FRAMEWORK = {"boxes": "mmdet", "masks": "mmseg"}
_FROM_RANDOM = {"boxes": 1.0, "masks": 0.2}  # a random backbone's share of the heads' rate, as those two configs say
_STRIDE = 16  # of a segmenter without a pyramid, where the network can


@dataclass(frozen=True)
class Finetuned:
    """A detector or segmenter that was trained; ``str()`` tells how good it is.

    Attributes:
        work_dir: where all of it lies.
        checkpoint: the last one, to go on from.
        model: the same weights alone, for ``init_model`` of ``mmseg.apis`` or ``init_detector`` of ``mmdet.apis``.
        metrics: of the last evaluation on the ``val`` split, percent; empty if nothing was or could be measured.
        pretraining: what it started from: ``'vader'``, ``'ImageNet, then VADeR on 2,915 photos'``, ``'random'``.
    """

    work_dir: Path
    checkpoint: Path
    model: Path
    metrics: Mapping[str, float]
    pretraining: str

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.1f}" for name, value in self.metrics.items())
        told = f"{figures} (percent, of the val split)" if figures else "no figures of the val split"
        return f"from {self.pretraining}: {told}\nweights alone: {self.model}"


def finetune(
    labels: str | Path,
    backbone: Run | None = None,
    out: str | Path | None = None,
    iterations: int | None = None,
    *,
    config: str | Path | None = None,
    network: str | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool | str = False,
    overwrite: bool = False,
    batch_mode: str | None = None,
    pretraining: str | None = None,
    fpn: bool = True,
    launcher: str = "none",
) -> Finetuned:
    """Train a detector or a segmenter on labels of one's own, with mmdet or mmsegmentation.

    The labels tell which: boxes or outlines in ``annotations/{train,val}.json`` (COCO's form) make a detector, masks
    in ``annotations/{train,val}/`` a segmenter; photos are in ``images/{train,val}/``. Classes follow from them. The
    network is the one that ``backbone`` holds.

    Args:
        labels: the folder.
        backbone: what :func:`slotcon_plugin.pretrain` gave, a work dir, or a checkpoint of any known kind; None =
            random weights, of ``network`` or a ResNet-18: what to compare with.
        out: the work dir; None = ``work_dirs/CONFIG``.
        iterations: of training; None = the config's 2,000. The schedule is stretched to it.
        config: another transfer config, by name or file; its network has to be that of ``backbone``.
        network: name of the network, ``resnet50`` or timm's, of a file that does not say it or of random weights.
        options: overrides of single keys of the config.
        resume, overwrite, batch_mode, launcher: as of :func:`slotcon_plugin.pretrain`.
        pretraining: what to call ``backbone`` in results; None = what it says of itself.
        fpn: whether its pyramid or FCN head goes along, where it fits.

    Raises:
        UserError: labels or a framework are missing, splits disagree, or something asked for does not fit.
        ConversionError: the weights do not fit the network, or cannot be read.
        RunFailedError: the run ended itself, and says why.
    """
    if network and config:
        raise UserError(f"network {network}: config {config} says which network it trains; leave one of the two out")
    labels, checkpoint = Path(labels), None if backbone is None else checkpoint_of(backbone)
    kind = _kind_of(labels)
    if importlib.util.find_spec(_FRAMEWORK[kind]) is None:
        raise UserError(
            f"{kind} need {_FRAMEWORK[kind]}, which is not installed: bash tools/setup_env.sh all, or docs/install.md"
        )
    weights = None
    if checkpoint and not config:
        weights = read_checkpoint(checkpoint, network=network and network_by_name(network))
    net = weights.network if weights else network_by_name(network) if network else None
    plain_r18 = net is None or str(net) == "ResNet-18"
    cfg = read_config(config or _RECIPES[kind, plain_r18])
    work_dir = Path(out or f"work_dirs/{Path(cfg.filename).stem}")
    if not plain_r18:
        _use_network(cfg, net, weights and weights.meta)
        if backbone is None:
            if resume:
                _require_random_start(work_dir if resume is True else Path(resume), net)
            cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult = _FROM_RANDOM[kind]
    if iterations is not None:
        _stretch(cfg, iterations)
    apply_options(cfg, dict(options or {}))
    if (cfg.get("default_hooks") or {}).get("checkpoint", True) is None:
        raise UserError("default_hooks.checkpoint: without this hook the run would leave no model behind")
    cfg.work_dir, cfg.launcher = str(work_dir), launcher
    runner = openmmlab.train(
        cfg, checkpoint and str(checkpoint), str(labels), batch_mode, pretraining, resume, overwrite, fpn
    )
    barrier()  # the first rank writes it
    last = last_checkpoint(runner)
    model = last.with_name("model.pth")
    if is_main_process():
        write_model(last, model)
    figures = work_dir / FILE_NAME
    if cfg.get("val_evaluator") is None or not figures.is_file():  # no figures, or those of an earlier run
        origin = read_transfer_checkpoint(last).origin(pretraining)
        return Finetuned(work_dir, last, model, {}, origin.pretraining)
    result = read_result(figures)
    return Finetuned(work_dir, last, model, result["metrics"], result["pretraining"])


def _kind_of(labels: Path) -> str:
    if not (labels / "annotations").is_dir():
        raise UserError(
            f"{labels}: expected images/{{train,val}}/ and annotations/ with train.json and val.json (boxes, of COCO's "
            "form) or train/*.png and val/*.png (masks of class indices); there is no folder annotations. Other "
            "layouts: docs/transfer.md#your-own-data"
        )
    if (labels / "annotations/train.json").is_file():
        return "boxes"
    if others := sorted(path.name for path in (labels / "annotations").glob("*.json")):
        raise UserError(
            f"{labels}/annotations holds {', '.join(others[:4])}: expected train.json and val.json. Rename them, "
            "or give their names to tools/train.py: docs/transfer.md#your-own-data"
        )
    return "masks"


def _require_random_start(run: Path, network: Network) -> None:
    """The recipe for a network follows from its weights, which a resumed run is to be told again."""
    try:
        facts = read_transfer_checkpoint(run).facts
    except UserError:
        return  # nothing there: openmmlab.train says what then
    if facts.get("backbone_sha256"):
        raise UserError(
            f"{run}: the run began from {facts['pretraining']}, and {network} without a backbone is the recipe for "
            "random weights: give its --backbone again"
        )


def _use_network(cfg: Config, net: Network, meta: Mapping[str, Any] | None) -> None:
    """Put a network into a config for networks of timm's: channels and colours follow.

    ``meta``: of its weights; None = random ones, whose BatchNorm statistics have to be learned.
    """
    model = cfg.model
    net = replace(net, library="timm")  # torchvision's ResNets are among timm's
    backbone = dict(type="slotcon_plugin.TimmBackbone", name=net.name, norm_eval=meta is not None, **net.options)
    if meta is None:
        backbone |= net.accepted(zero_init_last=False)  # a ResNet's residual blocks then start as pretrainings begin
    backbone |= net.options_for_any_size  # crops may have another than the network's
    if len(set(net.build().strides)) == 1 and model.get("neck"):
        raise UserError(
            f"{net}: all of its maps have one stride; a detector needs ViTDet's pyramid in a config of its own "
            "(--config): docs/transfer.md#any-network-of-timms"
        )
    if not model.get("neck"):
        backbone |= net.accepted(output_stride=_STRIDE)  # plain ViTs have one stride and take no other
    channels, mean, std = look_up(backbone)
    known = {key: meta[key] for key in ("mean", "std") if meta[key] != UNKNOWN} if meta else {}
    model.data_preprocessor.update({"mean": mean, "std": std, **known})
    model.backbone = backbone
    if model.get("neck"):
        model.neck.in_channels = channels
    else:
        last = len(channels) - 1
        model.decode_head.update(in_channels=channels[-2:], in_index=[last - 1, last])


def _stretch(cfg: Config, iterations: int) -> None:
    """Another length for a run that counts iterations: warm-up, decay and evaluations keep their shares."""
    if iterations < 1:
        raise UserError(f"iterations must be at least 1, got {iterations}")
    name = Path(cfg.filename).name
    if "max_iters" not in cfg.train_cfg:
        raise UserError(
            f"{name} counts epochs, and --iterations is for configs that count iterations (train_cfg.max_iters): "
            "leave it out and give --cfg-options train_cfg.max_epochs=N"
        )
    if any(schedule.get("convert_to_iter_based") for schedule in schedules_of(cfg)):
        raise UserError(
            f"{name} has a schedule that counts epochs (convert_to_iter_based), and --iterations stretches what counts "
            "iterations: give it by_epoch=False in their place"
        )
    stretch_iterations(cfg, iterations / cfg.train_cfg.max_iters)
