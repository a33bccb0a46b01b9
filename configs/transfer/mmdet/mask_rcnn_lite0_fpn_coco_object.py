# Where are objects, whatever they are? A small class-agnostic detector for a few hundred photos in COCO layout, on a light net
# of timm's: what one GPU or a patient CPU can finish, and the figure that tells pretrained weights apart on so few photos.
# For another network change its name. From random weights BatchNorm's statistics have to be learned, and the backbone faster:
#     --cfg-options model.backbone.norm_eval=False optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=1.0
_base_ = "mask_rcnn_r18_fpn_coco_small.py"
from slotcon_plugin.models.timm_backbone import look_up

backbone = dict(type="slotcon_plugin.TimmBackbone", name="tf_efficientnet_lite0", norm_eval=True)
channels, mean, std = look_up(backbone)

custom_imports = dict(imports=["slotcon_plugin", "slotcon_plugin.transfer.mm_objects"])
model = dict(
    data_preprocessor=dict(mean=mean, std=std),
    backbone=dict(_delete_=True, **backbone),
    neck=dict(in_channels=channels),
    roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)),
)
iterations = 300
train_dataloader = dict(dataset=dict(type="CocoObjectDataset"))
val_dataloader = dict(dataset=dict(type="CocoObjectDataset"))
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoObjectMetric")
test_evaluator = val_evaluator
optim_wrapper = dict(
    constructor="slotcon_plugin.PartOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, custom_keys={"backbone": dict(lr_mult=0.1)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type="PolyLR", eta_min=0.0, power=0.9, by_epoch=False, begin=30, end=iterations),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=iterations))
