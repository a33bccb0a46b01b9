# The same on EfficientNet-Lite0, whose BatchNorms keep their statistics: two photos a GPU would spoil them.
_base_ = "mask_rcnn_convnext_tiny_fpn_1x_coco.py"
from slotcon_plugin.models.timm_backbone import look_up

backbone = dict(type="slotcon_plugin.TimmBackbone", name="tf_efficientnet_lite0", norm_eval=True)
channels, mean, std = look_up(backbone)

model = dict(
    data_preprocessor=dict(mean=mean, std=std),
    backbone=dict(_delete_=True, **backbone),
    neck=dict(in_channels=channels),
)
