# FCN on ADE20K on a lite network: the heads of mmsegmentation's FCN recipe, stride 16, AdamW and schedule of the base.
# For another network change its name: channels and colours follow.
_base_ = "upernet_convnext_tiny_ade20k.py"
from slotcon_plugin.models.timm_backbone import look_up

backbone = dict(type="slotcon_plugin.TimmBackbone", name="tf_efficientnet_lite0", output_stride=16)
channels, mean, std = look_up(backbone)

model = dict(
    data_preprocessor=dict(mean=mean, std=std),
    backbone=dict(_delete_=True, **backbone),
    decode_head=dict(
        _delete_=True,
        type="FCNHead",
        in_channels=channels[3],
        in_index=3,
        channels=256,
        num_convs=2,
        concat_input=True,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
    ),
    auxiliary_head=dict(in_channels=channels[2]),
)
