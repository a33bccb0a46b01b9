"""Any network of timm that gives feature maps, under timm's own names."""

from __future__ import annotations

import copy
import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from mmengine.model import BaseModule
from timm.layers import HybridEmbed, PatchEmbed
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.backbones import keep_statistics
from slotcon_plugin.models.depthwise import use_quick_gradients
from slotcon_plugin.registry import MODELS

_FINEST_STRIDE = 4  # what detectors and segmenters start from
_USUAL_STRIDE = 32  # of the coarsest map of most networks; the strides of finer ones divide it
_PATCHES = PatchEmbed, HybridEmbed  # of pixels, of what a convolutional stem makes of them
_PLAIN_MAPS = 4  # of a network whose blocks all have one stride: as many as a hierarchical one has stages


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A ResNet, ConvNeXt, EfficientNet, ViT, ... of timm, by name; the network in ``model`` keeps all of timm's names.

    Works as backbone of this project's pretrainers, of mmdet and of mmseg (``type='slotcon_plugin.TimmBackbone'``).
    The part behind the stage maps (a final norm, ``conv_head``) stays in ``model`` as it is, without gradient, so that
    what is trained here is a complete timm model when it leaves. Plain ViTs give their maps after the final norm.

    Args:
        name: a timm model name, for example ``convnext_tiny`` or ``vit_small_patch16_224``.
        out_indices: which stages are given out; None = those of stride 4 and more, and of plain ViTs four blocks
            evenly spaced, the last one included.
        norm_eval: BatchNorm layers normalise by their running statistics and leave them as they are, in training too:
            for fine-tuning with few images a batch.
        init_cfg: mmengine's, for transfer runs.
        kwargs: passed to ``timm.create_model`` (``output_stride=16``, ``img_size=224``, ``drop_path_rate=0.1``...).

    Attributes:
        out_channels, strides: of the maps given out, finest first.
        mean, std: of the RGB pixels in [0, 1] that timm's published weights of this name expect.
        image_size: (height, width) of the photos that the network takes; None = it takes many.
        behind: timm's names of the tensors behind the maps, which nothing here needs.

    Raises:
        UserError: timm does not know the name or an option, or the model gives no feature maps.
    """

    kwargs_for = "timm"  # not for the base class; the check of configs asks

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] | None = None,
        norm_eval: bool = False,
        init_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(init_cfg)
        self.model = _create(name, kwargs)
        self.model.is_init = True  # by timm, with these options; mmengine would draw it again without them
        use_quick_gradients(self.model)
        stages = [(info["num_chs"], info["reduction"]) for info in self.model.feature_info]
        plain = len({stride for _, stride in stages}) == 1 and len(stages) > 1
        if plain:  # the norm behind SAM's blocks is part of a neck that is narrower than they are
            stages = [(self.model.num_features, stride) for _, stride in stages]
        if out_indices is None:
            step = max(len(stages) // _PLAIN_MAPS, 1) if plain else 1
            out_indices = [i for i, (_, stride) in enumerate(stages) if stride >= _FINEST_STRIDE][step - 1 :: step]
        if any(not -len(stages) <= i < len(stages) for i in out_indices):
            raise UserError(f"TimmBackbone: {name} has {len(stages)} stages, out_indices asks for {list(out_indices)}")
        self.out_indices = tuple(sorted(i % len(stages) for i in out_indices))
        self.norm_maps, self.norm_eval = plain, norm_eval
        self.out_channels, self.strides = zip(*(stages[i] for i in self.out_indices))
        self.mean, self.std = (tuple(self.model.pretrained_cfg[key]) for key in ("mean", "std"))
        self.name, self.image_size = name, _fixed_size(self.model, kwargs)
        self.behind = self._find_what_is_behind()
        for key, parameter in self.model.named_parameters():  # DDP waits for every gradient that is asked for
            parameter.requires_grad_(key not in self.behind)

    def _find_what_is_behind(self) -> frozenset[str]:
        used = copy.deepcopy(self.model)
        used.prune_intermediate_layers(list(self.out_indices), prune_norm=not self.norm_maps, prune_head=True)
        kept = (key for key in used.state_dict() if not key.startswith("head."))  # ConvNeXt before 1.0.31: its norm
        return frozenset(self.model.state_dict().keys() - set(kept))

    def train(self, mode: bool = True) -> TimmBackbone:
        """torch's, with ``norm_eval``."""
        super().train(mode)
        if self.norm_eval:
            keep_statistics(self)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> tuple of stage maps ``(B, C_i, H / s_i, W / s_i)``.

        Raises:
            UserError: the network takes photos of one size (or of multiples of one), these have another.
        """
        if images.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            images = images.contiguous(memory_format=torch.channels_last)  # its bfloat16 kernels want it
        try:
            maps = self.model.forward_intermediates(
                images, indices=list(self.out_indices), norm=self.norm_maps, stop_early=True, intermediates_only=True
            )
        except (AssertionError, RuntimeError) as error:
            fixed = self.image_size not in (None, tuple(images.shape[-2:]))
            if isinstance(error, AssertionError) or (fixed and not isinstance(error, torch.OutOfMemoryError)):
                raise UserError(self._unfit(images, error)) from error
            raise
        return tuple(maps)

    def _unfit(self, images: Tensor, error: Exception) -> str:
        """What to say of photos of a size that the network does not take."""
        options = {name for cls in type(self.model).__mro__ for name in inspect.signature(cls.__init__).parameters}
        dynamic = [f"{name}=True" for name in ("dynamic_img_size", "dynamic_img_pad") if name in options]
        settings = ", ".join(dynamic) or ("img_size=(HEIGHT, WIDTH)" if "img_size" in options else "another name")
        takes = "takes photos of {} x {}".format(*self.image_size) if self.image_size else "cannot take these photos"
        height, width = images.shape[-2:]
        return (
            f"TimmBackbone: {self.name} {takes}, got {height} x {width} (timm: {str(error).rstrip('.')}). Set "
            f"{settings} in the backbone's config, or feed photos that fit"
        )


def whole_patches(network: nn.Module) -> int:
    """What the sides of a photo have to be multiples of, so that its patches are whole; 1 without patches.

    timm pads others at the right and at the bottom, or refuses them: the cells of a map then are not where they would
    be if they covered the photo evenly. Networks that take photos of one size alone have no say.
    """
    loose = [part for part in network.modules() if isinstance(part, _PATCHES) and not part.strict_img_size]
    return math.lcm(*(side for part in loose for side in part.feat_ratio(as_scalar=False)))


def even_sides(network: nn.Module) -> int:
    """The same where maps of all usual strides are to cover the photo evenly: 32, or patches that do not divide it."""
    patch = whole_patches(network)
    return patch if _USUAL_STRIDE % patch else _USUAL_STRIDE


def require_whole_patches(network: nn.Module, view_size: int) -> None:
    """Refuse views whose patches would not be whole: the loss takes maps to cover the views evenly.

    Raises:
        UserError: names the sides that fit.
    """
    patch = whole_patches(network)
    if view_size % patch:
        below, above = view_size // patch * patch, -(-view_size // patch) * patch
        fitting = " or ".join(str(side) for side in (below, above) if side)
        raise UserError(
            f"views of {view_size} x {view_size} pixels are no whole number of patches of {patch}: set "
            f"train_dataloader.dataset.view_size={fitting}"
        )


def _fixed_size(model: nn.Module, options: Mapping[str, Any]) -> tuple[int, int] | None:
    if options.get("dynamic_img_size") or not model.pretrained_cfg.get("fixed_input_size"):
        return None
    told = (getattr(part, "img_size", None) for part in (getattr(model, "patch_embed", None), model))
    size = next(filter(None, told), options.get("img_size")) or model.pretrained_cfg["input_size"][1:]
    return (size, size) if isinstance(size, int) else tuple(size)


def look_up(config: Mapping[str, Any]) -> tuple[list[int], list[float], list[float]]:
    """What a transfer config has to know of its backbone, so that its name stands there once.

    Args:
        config: of a :class:`TimmBackbone`.

    Returns:
        Channels of the maps, finest first, and mean and std of RGB pixels in 0..255 that timm's published weights of
        this name expect.
    """
    net = TimmBackbone(**{name: value for name, value in config.items() if name != "type"})
    mean, std = ([round(255 * value, 4) for value in values] for values in (net.mean, net.std))
    return list(net.out_channels), mean, std


def _create(name: str, options: dict) -> nn.Module:
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:  # the last: a stride it cannot have
        close = difflib.get_close_matches(name, timm.list_models(), n=4)
        hint = "" if name in close else f"; close names: {', '.join(close) or 'none'}"
        raise UserError(f"TimmBackbone: timm cannot build {name!r} with {options} ({error}){hint}") from error
    if not (hasattr(model, "forward_intermediates") and hasattr(model, "feature_info")):
        raise UserError(f"TimmBackbone: timm's {name!r} gives no feature maps (it has no forward_intermediates)")
    return model
