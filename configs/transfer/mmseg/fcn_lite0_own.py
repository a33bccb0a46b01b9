# A segmenter on photos and masks of your own, on a light net of timm's: fpn_r18_own.py's data, fcn_lite0_camvid.py's recipe.
# For weights that were published or continued from (vader_continue.py). For another network change its name: channels and
# colours follow. From random weights: --cfg-options model.backbone.norm_eval=False
#     optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.2
_base_ = ["fpn_r18_own.py"]
from slotcon_plugin.models.timm_backbone import look_up

backbone = dict(type="slotcon_plugin.TimmBackbone", name="tf_efficientnet_lite0", output_stride=16, norm_eval=True)
channels, mean, std = look_up(backbone)
model = dict(
    data_preprocessor=dict(mean=mean, std=std),
    backbone=dict(_delete_=True, **backbone),
    neck=None,
    decode_head=dict(
        _delete_=True,
        type="FCNHead",
        in_channels=channels[-2:],
        in_index=[len(channels) - 2, len(channels) - 1],
        input_transform="resize_concat",
        channels=128,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0,
        num_classes=None,
        ignore_index={{_base_.ignore}},
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
)
optim_wrapper = dict(
    constructor="slotcon_plugin.PartOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=5e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.02)}),
)
# down to 0: the floor of the base's schedule is where the backbone's rate begins
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end={{_base_.iterations}}, by_epoch=False)]
