# A segmenter on CamVid that judges pretrained weights in minutes: a light net of timm at stride 16, photos at half size.
# AdamW with a tenth of the rate for the backbone, whose BatchNorm statistics stay as they were pretrained (eight photos a
# batch would spoil them); a head on the last two stages. Any other network: its name, and its channels below.
# From random weights the statistics have to be learned:
#     --cfg-options model.backbone.norm_eval=False optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=1.0
# Layout: images/{train,val,test}/*.jpg and annotations/{train,val,test}/*.png below data_root.
_base_ = ["fcn_r18_camvid.py"]

iterations = 500
model = dict(
    # what timm's published weights of this network expect; the run stops if those it is given want something else
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True,
        type="slotcon_plugin.TimmBackbone",
        name="tf_efficientnet_lite0",
        output_stride=16,
        norm_eval=True,
    ),
    decode_head=dict(
        in_channels=[112, 320],
        in_index=[2, 3],
        input_transform="resize_concat",
        channels=128,
        num_convs=1,
    ),
)
optim_wrapper = dict(
    constructor="slotcon_plugin.PartOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=iterations, by_epoch=False)]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=iterations))
