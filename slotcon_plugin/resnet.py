"""The ResNets that this project pretrains and converts: their blocks and their stage maps, on torchvision's names."""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth -> residual blocks of each stage."""
BASIC_BLOCK_DEPTHS = (18, 34)
STAGES = ("layer1", "layer2", "layer3", "layer4")


def resnet_blocks(depth: int) -> tuple[type[nn.Module], list[int]]:
    """Class of the blocks and their number in each stage: the first arguments of torchvision's ``ResNet``."""
    from torchvision.models import resnet  # converters need torch alone until they build a network

    return resnet.BasicBlock if depth in BASIC_BLOCK_DEPTHS else resnet.Bottleneck, list(BLOCKS[depth])


def stage_maps(net: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """The outputs of ``layer1`` ... ``layer4`` of a torchvision ResNet for ``(B, 3, H, W)`` images."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    maps = []
    for stage in STAGES:
        x = getattr(net, stage)(x)
        maps.append(x)
    return tuple(maps)
