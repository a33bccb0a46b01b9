# UperNet on ADE20K on a plain ViT, whose last map alone makes the pyramid, as in ViTDet. Photos of any size: the position
# embedding is resampled to each, sides are padded to whole patches.
# For another ViT change its name: width and colours follow.
_base_ = "upernet_convnext_tiny_ade20k.py"
from slotcon_plugin.models.timm_backbone import look_up

backbone = dict(
    type="slotcon_plugin.TimmBackbone",
    name="vit_small_patch16_224",
    drop_path_rate=0.1,
    dynamic_img_size=True,
    dynamic_img_pad=True,
)
channels, mean, std = look_up(backbone)

model = dict(
    data_preprocessor=dict(mean=mean, std=std),
    backbone=dict(_delete_=True, **backbone),
    neck=dict(type="slotcon_plugin.SimpleFeaturePyramid", in_channels=channels, out_channels=256, num_outs=4),
    decode_head=dict(in_channels=[256] * 4),
    auxiliary_head=dict(in_channels=256),
    test_cfg=dict(_delete_=True, mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
