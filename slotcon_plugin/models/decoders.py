"""A feature pyramid, and the decoder that merges its levels into one fine map."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for conv in (*self.lateral, *self.output):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Stage maps ``(B, C_i, h_i, w_i)`` -> levels ``(B, channels, h_i, w_i)``, finest first."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps)]
        for i in reversed(range(len(merged) - 1)):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
        return tuple(output(x) for output, x in zip(self.output, merged))


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
    GroupNorm keeps images apart: nothing of the batch enters here.

    Args:
        in_channels: of the backbone's stage maps, finest first.
        strides: of these maps, powers of two.
        fpn_channels: width of the pyramid; 256 fits the detectors' pyramids.
        channels: of the merged map and of the embedding, a multiple of 4.
        output_stride: of the embedding; 4 gives 56 x 56 at 224.

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
        self.fpn = FeaturePyramid(in_channels, fpn_channels)
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
