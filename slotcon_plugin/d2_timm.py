"""timm's networks as backbones of detectron2: ``build_timm_backbone``, ``..._fpn_...``, ``..._simple_pyramid_...``."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, ShapeSpec
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from torch import Tensor

from slotcon_plugin.errors import UserError
from slotcon_plugin.models import TimmBackbone


def add_timm_config(cfg: CfgNode) -> None:
    """Add ``MODEL.TIMM`` to a config: what :class:`~slotcon_plugin.models.TimmBackbone` takes.

    ``NAME`` of timm's network, ``NORM_EVAL``, and ``OPTIONS`` for ``timm.create_model``, a list of names and values in
    turn: ``["output_stride", 16]`` (a node would not take new keys from a command line).
    """
    cfg.MODEL.TIMM = CfgNode({"NAME": "", "NORM_EVAL": False, "OPTIONS": []})


class TimmMaps(Backbone):
    """Stage maps under detectron2's contract: ``stage1`` (finest) ... ``stageN``."""

    def __init__(self, net: TimmBackbone) -> None:
        super().__init__()
        self.net = net
        self.names = [f"stage{i}" for i in range(1, len(net.strides) + 1)]

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each map."""
        shapes = zip(self.names, self.net.out_channels, self.net.strides)
        return {name: ShapeSpec(channels=channels, stride=stride) for name, channels, stride in shapes}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``(B, 3, H, W)`` -> name -> map."""
        return dict(zip(self.names, self.net(images)))


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmMaps:
    """The network of ``MODEL.TIMM`` alone.

    Raises:
        UserError: parts of it are to be frozen, or the input has not three channels.
    """
    if cfg.MODEL.BACKBONE.FREEZE_AT:
        raise UserError(
            f"MODEL.BACKBONE.FREEZE_AT is {cfg.MODEL.BACKBONE.FREEZE_AT}: timm's networks are trained whole, set 0 "
            "(MODEL.TIMM.NORM_EVAL True keeps their BatchNorm statistics)"
        )
    if input_shape.channels != 3:
        raise UserError(f"timm's networks take 3 channels here, MODEL.PIXEL_MEAN has {input_shape.channels}")
    timm = cfg.MODEL.TIMM
    options = dict(zip(timm.OPTIONS[::2], timm.OPTIONS[1::2], strict=True))
    return TimmMaps(TimmBackbone(timm.NAME, norm_eval=timm.NORM_EVAL, **options))


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The network under detectron2's FPN, levels p2 to p6."""
    bottom_up = build_timm_backbone(cfg, input_shape)
    return FPN(
        bottom_up,
        bottom_up.names,
        cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class PaddedPyramid(SimpleFeaturePyramid):
    """detectron2's, with photos padded to what it divides by; its own ``padding_constraints`` misspell the key."""

    @property
    def size_divisibility(self) -> int:
        """Of height and width of a batch."""
        return self._size_divisibility


@BACKBONE_REGISTRY.register()
def build_timm_simple_pyramid_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> PaddedPyramid:
    """A plain ViT under ViTDet's pyramid, levels p2 to p6."""
    bottom_up = build_timm_backbone(cfg, input_shape)
    return PaddedPyramid(
        bottom_up,
        bottom_up.names[-1],
        cfg.MODEL.FPN.OUT_CHANNELS,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=LastLevelMaxPool(),
        norm=cfg.MODEL.FPN.NORM or "LN",
    )
