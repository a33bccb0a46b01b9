"""Maps of one scale, whatever backbone they come from."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from slotcon_plugin.registry import MODELS


@MODELS.register_module()
class StandardisedMaps(BaseModule):
    """Neck that brings each channel of each stage map to mean 0 and variance 1 over the batch.

    The channels of pretrained networks differ in scale by orders of magnitude, and a head that is trained for some
    hundred iterations learns from the largest alone: rare classes come out last or never. Linear probes standardise
    their features for the same reason.

    Args:
        in_channels: of the maps, in the backbone's order.
        init_cfg: mmengine's.
    """

    def __init__(self, in_channels: Sequence[int], init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for channels in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``(B, C_i, H_i, W_i)`` -> maps of the same shapes.

        Raises:
            ValueError: more or fewer maps than ``in_channels``.
        """
        return tuple(norm(one) for norm, one in zip(self.norms, maps, strict=True))
