# FCN on Cityscapes by the recipe of MoCo, DenseCL, PixPro and SlotCon.
# The reference's config normalises 0..255 pixels with a mean of .485 and a std of .229: its network sees inputs 255
# times too large. Here mean and std are those of the pretraining, for 0..255 pixels (from the base).
_base_ = "mmseg::fcn/fcn-d6_r50-d16_4xb2-80k_cityscapes-769x769.py"

crop_size = (769, 769)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2049, 1025), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))

model = dict(
    pretrained=None,
    backbone=dict(type="ResNet"),  # plain 7x7 stem; stride 16 and dilation 6 are the base's
    decode_head=dict(channels=256, concat_input=False, dropout_ratio=0),
    auxiliary_head=None,
)

auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
param_scheduler = [dict(type="MultiStepLR", milestones=[63000, 81000], gamma=0.1, by_epoch=False)]
train_cfg = dict(max_iters=90000, val_interval=9000)
default_hooks = dict(checkpoint=dict(interval=9000, max_keep_ckpts=2))
