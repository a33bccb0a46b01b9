"""Which network weights are of, apart from the weights: how it is built and what it calls its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from slotcon_plugin.errors import ConversionError, UserError
from slotcon_plugin.normalization import IMAGENET_MEAN, IMAGENET_STD
from slotcon_plugin.resnet import BASIC_BLOCK_DEPTHS, BLOCKS, STAGES, resnet_blocks, stage_maps

# Options of timm's networks that leave the shapes and the meaning of all weights as they are.
_INDIFFERENT = {
    *("output_stride", "drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate", "drop_block_rate"),
    *("pos_drop_rate", "patch_drop_rate", "dynamic_img_size", "dynamic_img_pad", "zero_init_last"),
}
# Those that fit weights to photos of another size; a position embedding is resampled.
_OF_PHOTOS = {"img_size", "strict_img_size"}
_OF_THE_ADAPTER = {"type", "name", "out_indices", "norm_eval", "init_cfg"}
# Options of mmdet's and mmseg's ResNet that leave the meaning of its weights as it is, whatever their value. Among them
# are strides and dilations, which are judged together.
_INDIFFERENT_OF_MM = {
    *("type", "depth", "num_stages", "out_indices", "frozen_stages", "norm_eval", "with_cp", "zero_init_residual"),
    *("pretrained", "init_cfg", "stage_with_dcn", "strides", "dilations", "contract_dilation"),
}
# Others, with the values that leave it so.
_PLAIN_OF_MM = {
    "style": ("pytorch",),
    "in_channels": (3,),
    "stem_channels": (64, None),
    "base_channels": (64,),
    "conv_cfg": (None, {"type": "Conv2d"}, {"type": "Conv"}),
    **dict.fromkeys(("deep_stem", "avg_down", "dcn", "plugins", "multi_grid"), (None, False, [], ())),
}


# Not square, so that swapped axes show; divisible by 32, as detectron2's FPN wants.
_IMAGE_SIZE = (96, 128)


class CanonicalResNet(nn.Module):
    """torchvision's ResNet whose forward returns the four stage maps; the yardstick of every proof."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        from torchvision.models import resnet

        self.net = resnet.ResNet(*resnet_blocks(depth))
        self.net.fc = nn.Identity()
        expansion = 1 if depth in BASIC_BLOCK_DEPTHS else 4
        self.out_channels = tuple(width * expansion for width in (64, 128, 256, 512))
        self.out_indices = (0, 1, 2, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> maps at strides 4, 8, 16, 32."""
        return stage_maps(self.net, images)


@dataclass(frozen=True)
class Network:
    """A backbone's architecture.

    Attributes:
        name: ``resnet50`` (a plain ResNet, torchvision's names) or a name of timm's.
        library: ``torchvision`` or ``timm``.
        options: for timm: what changes its weights' shapes, for example ``img_size``.
    """

    name: str
    library: str = "torchvision"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = "".join(f", {key}={value}" for key, value in self.options.items())
        return f"ResNet-{self.depth}" if self.library == "torchvision" else f"timm's {self.name}{options}"

    @property
    def depth(self) -> int:
        """Of a plain ResNet."""
        return int(self.name.removeprefix("resnet"))

    def build(self, output_stride: int | None = None, any_size: bool = False) -> nn.Module:
        """The network with random weights; its forward gives the stage maps, ``out_channels`` their channels.

        Args:
            output_stride: of the last map: 32, 16 or 8, the stages behind dilated instead of strided; None leaves the
                network as it is.
            any_size: have one that is made for photos of one size (a plain ViT) take others, where timm knows how.

        Raises:
            UserError: timm does not know it, or cannot dilate it.
        """
        if self.library == "torchvision" and output_stride is None:
            return CanonicalResNet(self.depth)
        from slotcon_plugin.models import TimmBackbone, TorchvisionResNet

        if self.library == "torchvision":
            return TorchvisionResNet(self.depth, output_stride, zero_init_residual=False)
        more = {} if output_stride is None else {"output_stride": output_stride}
        return TimmBackbone(self.name, **{**self.options, **more, **(self.options_for_any_size if any_size else {})})

    @cached_property
    def options_for_any_size(self) -> dict[str, bool]:
        """Of a network of timm's; empty where it takes photos of many sizes anyway, or of one alone."""
        return self.accepted(dynamic_img_size=True, dynamic_img_pad=True) if self._built.image_size else {}

    def accepted(self, **options: Any) -> dict[str, Any]:
        """The options, if timm builds this network with them, else nothing: only building it tells."""
        from slotcon_plugin.models import TimmBackbone

        with suppress(UserError):
            TimmBackbone(self.name, **{**self.options, **options})
            return options
        return {}

    @cached_property
    def _built(self) -> nn.Module:
        return self.build()

    @cached_property
    def shapes(self) -> dict[str, Tensor]:
        """Names -> tensors without values of every weight that the stage maps need."""
        return {name: value.to("meta") for name, value in weights_of(self._built).items()}

    @property
    def behind(self) -> dict[str, Tensor]:
        """The same of the weights behind the last map, which a complete model of timm's has besides."""
        names = getattr(self._built, "behind", ())
        own = inside(self._built).state_dict()
        return {name: own[name].to("meta") for name in names}

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stage maps, finest first."""
        if self.library == "torchvision":
            return STAGES
        return tuple(f"stage {i}" for i in self.indices)

    @property
    def indices(self) -> tuple[int, ...]:
        """Which of the library's stages the maps are of."""
        return tuple(self._built.out_indices)

    def indices_of(self, backbone: Mapping[str, Any]) -> tuple[int, ...]:
        """The same of the maps that a pretraining's ``backbone`` config asks this network for."""
        asked = backbone.get("out_indices")
        stages = getattr(inside(self._built), "feature_info", STAGES)
        return self.indices if asked is None else tuple(sorted(i % len(stages) for i in asked))

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the stage maps."""
        return tuple(self._built.out_channels)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of an image that it takes."""
        return getattr(self._built, "image_size", None) or _IMAGE_SIZE

    @cached_property
    def map_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the stage maps of such an image."""
        with torch.no_grad():
            maps = self._built.eval()(torch.zeros(1, 3, *self.image_size))
        return tuple((x.shape[-2], x.shape[-1]) for x in maps)

    @property
    def usual_pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of RGB pixels in [0, 1] that the library's published weights of this name expect."""
        if self.library == "torchvision":
            return IMAGENET_MEAN, IMAGENET_STD
        return self._built.mean, self._built.std

    def computes_like(self, other: Network) -> bool:
        """Whether weights mean the same in both: networks of equal shapes may differ in activations or padding.

        timm's plain ResNets count as torchvision's, and its tags (``convnext_tiny.fb_in22k``) say nothing of a network.
        """
        return self._architecture == other._architecture

    @property
    def _architecture(self) -> tuple[str, dict[str, Any]]:
        options = {key: value for key, value in self.options.items() if key not in _INDIFFERENT | _OF_PHOTOS}
        listed = {key: list(value) if isinstance(value, (list, tuple)) else value for key, value in options.items()}
        return self.name.partition(".")[0], listed

    def described(self) -> dict[str, Any]:
        """For metadata; :class:`Network` takes it back."""
        return {"name": self.name, "library": self.library, "options": dict(self.options)}


def inside(network: nn.Module) -> nn.Module:
    """The library's own module in the canonical network or in a backbone of this project."""
    return getattr(network, "net", getattr(network, "model", network))


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """What a backbone's stage maps need, under the library's names."""
    behind = getattr(network, "behind", frozenset())
    return {name: value for name, value in inside(network).state_dict().items() if name not in behind}


def network_of_backbone(config: Mapping[str, Any]) -> Network | None:
    """The network that a pretraining's ``backbone`` config builds; None if it is of neither library."""
    kind = str(config.get("type", "")).rpartition(".")[2]
    if kind == "TorchvisionResNet":
        return Network(f"resnet{config.get('depth', 50)}")
    if kind != "TimmBackbone":
        return None
    options = {k: v for k, v in config.items() if k not in _OF_THE_ADAPTER | _INDIFFERENT}
    return Network(str(config["name"]), "timm", options)


def is_plain_resnet(config: Mapping[str, Any]) -> bool:
    """Whether a ``backbone`` config builds a ResNet of mmdet's or mmseg's that computes as torchvision's does."""
    return not foreign_options(config)


def foreign_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What in a ``backbone`` config keeps :func:`is_plain_resnet` from being true; empty if nothing does.

    Names and shapes of weights do not tell padding, kinds of convolution or epsilons apart, so whatever is not known to
    leave the computation as it is counts as foreign.
    """
    scope, _, kind = str(config.get("type", "")).rpartition(".")
    if scope not in ("mmdet", "mmseg") or kind != "ResNet":
        return {"type": config.get("type")}
    strides, dilations = config.get("strides", (1, 2, 2, 2)), config.get("dilations", (1, 1, 1, 1))
    # As with TorchvisionResNet, a stage may be dilated in place of strided, and only that.
    if any(math.prod(strides[: i + 1]) * dilation != 2**i for i, dilation in enumerate(dilations)):
        return {"strides": strides, "dilations": dilations}
    return {option: value for option, value in config.items() if not _leaves_resnet_plain(option, value)}


def _leaves_resnet_plain(option: str, value: Any) -> bool:
    if option == "norm_cfg" and isinstance(value, Mapping):
        same_kind = value.get("type") in ("BN", "BN2d", "SyncBN", "MMSyncBN")
        usual = {"eps": 1e-5, "affine": True, "track_running_stats": True}
        return same_kind and all(
            option in ("type", "momentum", "requires_grad") or usual.get(option) == given
            for option, given in value.items()
        )
    return option in _INDIFFERENT_OF_MM or value in _PLAIN_OF_MM.get(option, ())


def network_by_name(name: str) -> Network:
    """A network as the user names it: ``resnet50``, or a name of timm's.

    Raises:
        ConversionError: no such network.
    """
    match = re.fullmatch(r"resnet(\d+)", name)
    if match and int(match[1]) in BLOCKS:
        return Network(name)
    network = Network(name, "timm")
    try:
        network.build()
    except UserError as error:
        raise ConversionError(f"--network {name}: {error}") from error
    return network


def fit_position_embedding(weights: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """A ViT's position embedding at the network's size, resampled by timm's own function; everything else as it is."""
    from timm.layers import resample_abs_pos_embed

    own = inside(network._built)
    weights = dict(weights)
    value, wanted = weights.get("pos_embed"), getattr(own, "pos_embed", None)
    grid = getattr(getattr(own, "patch_embed", None), "grid_size", None)
    if not (grid and isinstance(wanted, Tensor) and isinstance(value, Tensor) and value.ndim == 3):
        return weights
    if value.shape != wanted.shape and value.shape[-1] == wanted.shape[-1]:
        prefix = 0 if getattr(own, "no_embed_class", False) else getattr(own, "num_prefix_tokens", 1)
        patches = max(value.shape[1] - prefix, 0)
        if patches and math.isqrt(patches) ** 2 == patches:  # of another network's nothing can be made
            weights["pos_embed"] = resample_abs_pos_embed(value, list(grid), num_prefix_tokens=prefix)
    return weights
