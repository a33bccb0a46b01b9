# A segmenter on CamVid that judges pretrained weights in minutes: a light net of timm at stride 16, photos at half size.
# AdamW, 5e-3 for the head on the last two stages and 1e-4 for the backbone, whose BatchNorm statistics stay as they were
# pretrained (eight photos a batch would spoil them). With 1e-3 the head learns the frequent classes alone in this time:
# CamVid val, 300 iterations from ImageNet weights, seed 0: 43.0 mIoU in place of 59.6; a linear head on frozen features 52.3.
# For another network change its name: channels and colours follow. From random weights the statistics have to be learned:
#     --cfg-options model.backbone.norm_eval=False optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.2
# Layout: images/{train,val,test}/*.jpg and annotations/{train,val,test}/*.png below data_root.
_base_ = ["fcn_r18_camvid.py"]
from slotcon_plugin.models.timm_backbone import look_up

backbone = dict(type="slotcon_plugin.TimmBackbone", name="tf_efficientnet_lite0", output_stride=16, norm_eval=True)
channels, mean, std = look_up(backbone)
iterations = 300
model = dict(
    data_preprocessor=dict(mean=mean, std=std),
    backbone=dict(_delete_=True, **backbone),
    decode_head=dict(
        in_channels=channels[-2:],
        in_index=[len(channels) - 2, len(channels) - 1],
        input_transform="resize_concat",
        channels=128,
        num_convs=1,
    ),
)
optim_wrapper = dict(
    constructor="slotcon_plugin.PartOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=5e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.02)}),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=iterations, by_epoch=False)]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=iterations))
