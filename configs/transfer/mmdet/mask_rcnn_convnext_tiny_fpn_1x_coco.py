# Mask R-CNN with FPN, 1x, on a network of timm's: the recipe beside it, with AdamW (lr 1e-4, weight decay .05, no layer
# decay) as ConvNeXts are trained. For another network change its name: channels and colours follow.
_base_ = "mask_rcnn_r50_fpn_1x_coco.py"
from slotcon_plugin.models.timm_backbone import look_up

backbone = dict(type="slotcon_plugin.TimmBackbone", name="convnext_tiny", drop_path_rate=0.2)
channels, mean, std = look_up(backbone)

custom_imports = dict(imports=["slotcon_plugin"])
model = dict(
    data_preprocessor=dict(mean=mean, std=std),
    backbone=dict(_delete_=True, **backbone),
    neck=dict(in_channels=channels),
)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, weight_decay=0.05))
