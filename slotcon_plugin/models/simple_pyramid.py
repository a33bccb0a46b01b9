"""A feature pyramid for networks that keep one stride throughout (plain ViTs)."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import MODELS


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """ViTDet's pyramid (Li et al. 2022, section 3): every level is made from the last map alone.

    Two transposed convolutions, one, none, or a max pooling bring the map of stride 16 to strides 4, 8, 16 and 32; a
    1x1 and a 3x3 convolution, each with LayerNorm over channels, make the level. Serves as ``neck`` in configs of
    mmdet and mmseg.

    Args:
        in_channels: of the stage maps; the last one is used.
        out_channels: of every level.
        num_outs: levels; beyond four, further halvings of the last one (``P6`` of RPNs).

    Raises:
        UserError: fewer than four levels.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        num_outs: int = 5,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_outs < 4:
            raise UserError(f"SimpleFeaturePyramid: num_outs must be at least 4, got {num_outs}")
        width = in_channels if isinstance(in_channels, int) else in_channels[-1]
        self.out_channels, self.num_outs = out_channels, num_outs
        scales = (
            [
                nn.ConvTranspose2d(width, width // 2, 2, stride=2),
                LayerNorm2d(width // 2),
                nn.GELU(),
                nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2),
            ],
            [nn.ConvTranspose2d(width, width // 2, 2, stride=2)],
            [],
            [nn.MaxPool2d(2)],
        )
        widths = (width // 4, width // 2, width, width)
        self.levels = nn.ModuleList(
            nn.Sequential(
                *scale,
                nn.Conv2d(channels, out_channels, 1, bias=False),
                LayerNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                LayerNorm2d(out_channels),
            )
            for scale, channels in zip(scales, widths)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Stage maps, the last one ``(B, C, h, w)`` -> levels ``(B, out_channels, ...)`` of 4h, 2h, h, h/2 rows."""
        levels = [level(maps[-1]) for level in self.levels]
        while len(levels) < self.num_outs:
            levels.append(nn.functional.max_pool2d(levels[-1], 1, stride=2))
        return tuple(levels)
