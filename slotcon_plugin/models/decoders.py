"""Decoders: a feature pyramid, one that merges its levels into one fine map, and convolutions on the last map."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import MODELS

# Channels a group of GroupNorm: 32 groups of 128 channels, as in detectron2's semantic branch.
_GROUP = 4


class FeaturePyramid(nn.Module):
    """FPN (Lin et al. 2017): 1x1 lateral convolutions, a top-down path of sums, 3x3 output convolutions.

    The same function as the FPNs of detectron2, mmdet and torchvision, so that its weights carry over.

    Args:
        in_channels: of the stage maps, finest first.
        channels: of every level.
        norm: ``'BatchNorm'`` after every convolution, which then has no bias; or None. The detectors' recipes of
            SlotCon, MoCo and others have it (SyncBN), so that only a pyramid with it carries over into them.
        lateral_dropout: probability with which each channel of each lateral but the top one is dropped in training
            (DeCon, arXiv 2503.17526), so that a fine level cannot rest on low-level detail alone.
        levels: indices of the stage maps that get an output; all when None. Those below the finest get no weights.

    Raises:
        UserError: an option that cannot be.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        norm: str | None = None,
        lateral_dropout: float = 0.0,
        levels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if norm not in ("BatchNorm", None):
            raise UserError(f"FeaturePyramid: norm must be 'BatchNorm' or None, got {norm!r}")
        if not 0 <= lateral_dropout < 1:
            raise UserError(f"FeaturePyramid: lateral_dropout must be from 0 to below 1, got {lateral_dropout}")
        self.levels = tuple(range(len(in_channels)) if levels is None else levels)
        finest = min(self.levels)
        self.lateral = nn.ModuleDict(
            {str(i): PyramidConv(c, channels, 1, norm) for i, c in enumerate(in_channels) if i >= finest}
        )
        self.output = nn.ModuleDict({str(i): PyramidConv(channels, channels, 3, norm) for i in self.levels})
        self.drop = nn.Dropout2d(lateral_dropout)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Stage maps ``(B, C_i, h_i, w_i)`` -> levels ``(B, channels, h_i, w_i)``, finest first."""
        top = len(maps) - 1
        merged = {top: self.lateral[str(top)](maps[top])}
        for i in reversed(range(min(self.levels), top)):
            above = F.interpolate(merged[i + 1], size=maps[i].shape[-2:], mode="nearest")
            merged[i] = self.drop(self.lateral[str(i)](maps[i])) + above
        return tuple(self.output[str(i)](merged[i]) for i in self.levels)


class PyramidConv(nn.Conv2d):
    """Convolution with or without a norm behind it, named as in detectron2: ``weight`` and ``bias`` or ``norm.*``."""

    def __init__(self, in_channels: int, out_channels: int, side: int, norm: str | None) -> None:
        super().__init__(in_channels, out_channels, side, padding=side // 2, bias=norm is None)
        nn.init.kaiming_uniform_(self.weight, a=1)
        if norm is None:
            nn.init.zeros_(self.bias)
        self.norm = nn.BatchNorm2d(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self.norm is None else self.norm(x)


class ScaleBranch(nn.Sequential):
    """Blocks of 3x3 convolution, GroupNorm and ReLU that bring one level to the output's stride.

    A coarser level is doubled bilinearly after each block, a finer one halved by each block's convolution.

    Args:
        in_channels: of the level.
        channels: of the output.
        doublings: log2 of level stride / output stride; negative for a level finer than the output.
    """

    def __init__(self, in_channels: int, channels: int, doublings: int) -> None:
        blocks = []
        for i in range(max(1, abs(doublings))):
            conv = nn.Conv2d(
                in_channels if i == 0 else channels, channels, 3, 2 if doublings < 0 else 1, padding=1, bias=False
            )
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            blocks += [conv, nn.GroupNorm(channels // _GROUP, channels), nn.ReLU(inplace=True)]
            if doublings > 0:
                blocks.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        super().__init__(*blocks)


@MODELS.register_module()
class FPNDecoder(nn.Module):
    """FPN with the semantic branch of Panoptic FPN (Kirillov et al. 2019, fig. 3), as VADeR's decoder.

    Every level is brought to the output's stride, the levels are summed, and a 1x1 convolution makes the embedding.
    GroupNorm keeps images apart.

    Args:
        in_channels: of the backbone's stage maps, finest first.
        strides: of these maps, powers of two.
        fpn_channels: width of the pyramid; 256 fits the detectors' pyramids.
        channels: of the merged map and of the embedding, a multiple of 4.
        output_stride: of the embedding; 4 gives 56 x 56 at 224.
        fpn_norm: of the pyramid, see :class:`FeaturePyramid`. With ``'BatchNorm'`` the batch enters there.

    Raises:
        UserError: channels do not fit, or strides are no powers of two.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int] = (4, 8, 16, 32),
        fpn_channels: int = 256,
        channels: int = 128,
        output_stride: int = 4,
        fpn_norm: str | None = None,
    ) -> None:
        super().__init__()
        if len(in_channels) != len(strides):
            raise UserError(f"FPNDecoder: {len(in_channels)} maps but {len(strides)} strides")
        if channels % _GROUP:
            raise UserError(f"FPNDecoder: channels must be a multiple of {_GROUP}, got {channels}")
        doublings = [math.log2(stride / output_stride) for stride in strides]
        if any(d != int(d) for d in doublings):
            raise UserError(f"FPNDecoder: strides {tuple(strides)} and {output_stride} must be powers of two")
        self.out_channels = channels
        self.strides, self.output_stride = tuple(strides), output_stride
        self.fpn = FeaturePyramid(in_channels, fpn_channels, fpn_norm)
        self.scale = nn.ModuleList(ScaleBranch(fpn_channels, channels, int(d)) for d in doublings)
        self.embed = nn.Conv2d(channels, channels, 1)
        nn.init.kaiming_uniform_(self.embed.weight, a=1)
        nn.init.zeros_(self.embed.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Stage maps -> embedding ``(B, channels, h, w)``; h and w are image size / ``output_stride``, rounded up."""
        finest = maps[0].shape[-2:]
        size = [math.ceil(side * self.strides[0] / self.output_stride) for side in finest]
        levels = [scale(level) for scale, level in zip(self.scale, self.fpn(maps))]
        # Sides that no power of two divides leave a level a pixel too large.
        return self.embed(sum(level[..., : size[0], : size[1]] for level in levels))


@MODELS.register_module()
class PyramidDecoder(nn.Module):
    """FPN whose levels are each looked at: the decoder of detectors.

    Args:
        in_channels: of the backbone's stage maps, finest first.
        channels: of every level; 256 fits the detectors' pyramids.
        norm, lateral_dropout: see :class:`FeaturePyramid`.
        levels: which, of ``'p2'`` (the finest stage map), ``'p3'``, ... A single one makes a single-level decoder.

    Attributes:
        level_names: of the maps that ``forward`` returns.

    Raises:
        UserError: an unknown level, or none.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        norm: str | None = "BatchNorm",
        lateral_dropout: float = 0.0,
        levels: Sequence[str] = ("p2", "p3", "p4", "p5"),
    ) -> None:
        super().__init__()
        known = [f"p{i + 2}" for i in range(len(in_channels))]
        if not levels or not set(levels) <= set(known):
            raise UserError(f"PyramidDecoder: levels must be some of {known}, got {tuple(levels)}")
        chosen = sorted({known.index(level) for level in levels})
        self.level_names = tuple(known[i] for i in chosen)
        self.out_channels = channels
        self.fpn = FeaturePyramid(in_channels, channels, norm, lateral_dropout, chosen)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Stage maps -> levels ``(B, channels, h_i, w_i)``, finest first."""
        return self.fpn(maps)


@MODELS.register_module()
class FCNDecoder(nn.Module):
    """Convolutions, BatchNorm and ReLU on the last stage maps: what mmseg's ``FCNHead`` has before its classifier.

    Args:
        in_channels: of the backbone's stage maps.
        channels: of the output; 256 and dilation 6 for VOC and Cityscapes, 512 and dilation 1 for ADE20K.
        num_convs: how many 3x3 convolutions.
        dilation: of theirs.
        stages: how many of the last stage maps they see, side by side at the size of the first of these (mmseg's
            ``input_transform='resize_concat'``).

    Attributes:
        level_names: ``('fcn',)``.
    """

    level_names = ("fcn",)

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        num_convs: int = 2,
        dilation: int = 6,
        stages: int = 1,
    ) -> None:
        super().__init__()
        if num_convs < 1:
            raise UserError(f"FCNDecoder: num_convs must be at least 1, got {num_convs}")
        if not 1 <= stages <= len(in_channels):
            raise UserError(f"FCNDecoder: stages must be from 1 to {len(in_channels)}, got {stages}")
        self.out_channels = channels
        self.stages = stages
        self.convs = nn.ModuleList()
        for i in range(num_convs):
            c_in = sum(in_channels[-stages:]) if i == 0 else channels
            conv = nn.Conv2d(c_in, channels, 3, padding=dilation, dilation=dilation, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            block = {"conv": conv, "bn": nn.BatchNorm2d(channels), "activate": nn.ReLU(inplace=True)}
            self.convs.append(nn.Sequential(OrderedDict(block)))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Stage maps -> one map ``(B, channels, h, w)`` of the size of the finest that is looked at."""
        first, *others = maps[-self.stages :]
        size = first.shape[-2:]
        resized = [
            x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            for x in others
        ]
        x = torch.cat([first, *resized], dim=1) if others else first
        for block in self.convs:
            x = block(x)
        return (x,)
