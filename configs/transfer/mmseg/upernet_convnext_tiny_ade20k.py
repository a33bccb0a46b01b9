# UperNet on ADE20K on a network of timm's: mmsegmentation's own 160k recipe with AdamW (lr 1e-4, weight decay .05), warm-up
# and linear decay as its ConvNeXt configs have them; without their layer decay and mixed precision.
# For another network change its name: channels and colours follow.
_base_ = "mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py"
from slotcon_plugin.models.timm_backbone import look_up

backbone = dict(type="slotcon_plugin.TimmBackbone", name="convnext_tiny", drop_path_rate=0.2)
channels, mean, std = look_up(backbone)

custom_imports = dict(imports=["slotcon_plugin"])
model = dict(
    pretrained=None,
    data_preprocessor=dict(mean=mean, std=std),
    backbone=dict(_delete_=True, **backbone),
    decode_head=dict(in_channels=channels),
    auxiliary_head=dict(in_channels=channels[2]),
)
auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, weight_decay=0.05), paramwise_cfg=dict(norm_decay_mult=0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=160000),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
