# A detector on photos and boxes of your own, on a light net of timm's: rcnn_r18_fpn_own.py for weights that were published
# or continued from (vader_continue.py). AdamW, the backbone at a fifth of the heads' rate, its BatchNorm statistics kept.
# For another network change its name: channels and colours follow. From random weights: --cfg-options model.backbone.norm_eval=False
#     optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=1.0
_base_ = "rcnn_r18_fpn_own.py"
from slotcon_plugin.models.timm_backbone import look_up

backbone = dict(type="slotcon_plugin.TimmBackbone", name="tf_efficientnet_lite0", norm_eval=True)
channels, mean, std = look_up(backbone)
iterations = 2000

model = dict(
    data_preprocessor=dict(mean=mean, std=std),
    backbone=dict(_delete_=True, **backbone),
    neck=dict(in_channels=channels),
)
optim_wrapper = dict(
    constructor="slotcon_plugin.PartOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, custom_keys={"backbone": dict(lr_mult=0.2)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type="PolyLR", eta_min=0.0, power=0.9, by_epoch=False, begin=100, end=iterations),
]
