# FCN on PASCAL VOC 2012 (train + aug -> val) by the recipe of MoCo, DenseCL, PixPro and SlotCon.
# The reference's config normalises 0..255 pixels with a mean of .485 and a std of .229: its network sees inputs 255
# times too large. Here mean and std are those of the pretraining, for 0..255 pixels (from the base).
_base_ = "mmseg::fcn/fcn_r50-d8_4xb4-40k_voc12aug-512x512.py"

crop_size = (513, 513)
scale = (2049, 513)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        datasets=[
            dict(**{**_base_.dataset_train, "pipeline": train_pipeline}),
            dict(**{**_base_.dataset_aug, "pipeline": train_pipeline}),
        ]
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(
    pretrained=None,
    data_preprocessor=dict(size=crop_size),
    backbone=dict(type="ResNet", dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1)),  # plain 7x7 stem, stride 16
    decode_head=dict(channels=256, concat_input=False, dropout_ratio=0, align_corners=True, dilation=6),
    auxiliary_head=None,
)

auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=0.003, weight_decay=1e-4))
param_scheduler = [dict(type="MultiStepLR", milestones=[21000, 27000], gamma=0.1, by_epoch=False)]
train_cfg = dict(max_iters=30000, val_interval=3000)
default_hooks = dict(checkpoint=dict(interval=3000, max_keep_ckpts=2))
