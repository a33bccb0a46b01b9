"""Adapters around library backbones.

A backbone, for this project, is a module that maps ``(B, 3, H, W)`` to a tuple of stage maps, finest first, and says
what they are in ``out_channels`` and ``strides`` (one entry a stage). Backbones of mmdet and mmseg already return
such a tuple; see :func:`describe_backbone` for how their channels and strides are found.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.modes import evaluating
from slotcon_plugin.registry import MODELS
from slotcon_plugin.resnet import BLOCKS, resnet_blocks, stage_maps


@MODELS.register_module()
class TorchvisionResNet(resnet.ResNet):
    """torchvision's ResNet without its classifier; parameter names are torchvision's.

    Args:
        depth: 18, 34, 50, 101 or 152.
        stride: stride of the last stage, 32, 16 or 8; below 32 the last stages are dilated instead of strided, which
            leaves the shapes of all weights as they are.
        zero_init_residual: start every residual block as the identity (last BatchNorm weight 0), as SlotCon does.
        norm_eval: BatchNorm layers normalise by their running statistics and leave them as they are, in training too:
            for runs that start from weights whose statistics are good.

    Raises:
        UserError: unknown depth or stride.
    """

    def __init__(
        self, depth: int = 50, stride: int = 32, zero_init_residual: bool = True, norm_eval: bool = False
    ) -> None:
        if depth not in BLOCKS:
            raise UserError(f"TorchvisionResNet: depth must be one of {sorted(BLOCKS)}, got {depth}")
        if stride not in (32, 16, 8):
            raise UserError(f"TorchvisionResNet: stride must be 32, 16 or 8, got {stride}")
        block, layers = resnet_blocks(depth)
        super().__init__(block, layers, zero_init_residual=zero_init_residual)
        if stride < 32:
            _dilate(self.layer4, 32 // stride)
        if stride < 16:
            _dilate(self.layer3, 2)
        del self.fc, self.avgpool
        self.out_channels = tuple(width * block.expansion for width in (64, 128, 256, 512))
        self.strides = (4, 8, min(16, stride), stride)
        self.norm_eval = norm_eval

    def train(self, mode: bool = True) -> TorchvisionResNet:
        """torch's, with ``norm_eval``."""
        super().train(mode)
        if self.norm_eval:
            keep_statistics(self)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> four stage maps, strides 4, 8, 16, 32 unless dilated."""
        return stage_maps(self, images)


def keep_statistics(network: nn.Module) -> None:
    """Put the BatchNorm layers into evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _dilate(stage: nn.Sequential, dilation: int) -> None:
    """Take the stride out of a stage; its first 3x3 keeps half the dilation (Yu et al. 2017, as torchvision does).

    torchvision's own ``replace_stride_with_dilation`` refuses basic blocks.
    """
    spatial = [conv for conv in stage.modules() if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)]
    for conv in stage.modules():
        if isinstance(conv, nn.Conv2d):
            conv.stride = (1, 1)
    for i, conv in enumerate(spatial):
        conv.dilation = conv.padding = (dilation // 2,) * 2 if i == 0 else (dilation,) * 2


def describe_backbone(backbone: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and strides of the stage maps, asked for or else measured on a 64 x 64 image of zeros.

    Raises:
        UserError: the backbone does not return stage maps ``(B, C, h, w)``.
    """
    if hasattr(backbone, "out_channels") and hasattr(backbone, "strides"):
        return tuple(backbone.out_channels), tuple(backbone.strides)
    with evaluating(backbone), torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    if not isinstance(maps, (tuple, list)) or any(m.ndim != 4 for m in maps):
        raise UserError(f"{type(backbone).__name__} must return a tuple of (B, C, h, w) maps to be pretrained")
    return tuple(m.shape[1] for m in maps), tuple(64 // m.shape[-1] for m in maps)


def stage_of_parameters(backbone: nn.Module) -> dict[str, int]:
    """How deep each parameter of a backbone lies: 0 = stem, then a number a stage (plain ViTs: a block).

    timm's networks say so themselves; elsewhere it is in the names of stages as ResNets call them (``layer1.``).
    """
    network = getattr(backbone, "model", backbone)
    if hasattr(network, "group_matcher"):
        from timm.models import group_parameters

        stages = group_parameters(network, network.group_matcher(coarse=True), reverse=True)
        return {f"model.{name}" if network is not backbone else name: stage for name, stage in stages.items()}
    found = {name: re.match(r"layer(\d+)\.", name) for name, _ in backbone.named_parameters()}
    return {name: int(match[1]) if match else 0 for name, match in found.items()}
