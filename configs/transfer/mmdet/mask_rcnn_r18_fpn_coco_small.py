# A small detector for a few hundred photos in COCO layout: ResNet-18, short side 256, BatchNorm of one device.
# What one GPU or a patient CPU can finish; its figures compare backbones with one another, not with the literature.
_base_ = "mask_rcnn_r50_fpn_1x_coco.py"

norm = dict(type="BN", requires_grad=True)
model = dict(
    backbone=dict(depth=18, norm_cfg=norm),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=128, norm_cfg=norm),
    rpn_head=dict(in_channels=128, feat_channels=128),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        mask_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128, conv_out_channels=128, fc_out_channels=512, norm_cfg=norm),
        mask_head=dict(in_channels=128, conv_out_channels=128, num_convs=2, norm_cfg=norm),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))),
    # so little training leaves most scores far below the usual threshold of .05
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(score_thr=0.001)),
)
# AP over eighty classes says little on so few photos: also AR@100, how many objects are found, of whatever class
val_evaluator = dict(metric=["bbox", "segm", "proposal"])
test_evaluator = val_evaluator

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomChoiceResize", scales=[(427, side) for side in (192, 224, 256)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(427, 256), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

auto_scale_lr = dict(base_batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type="MultiStepLR", by_epoch=False, milestones=[800, 950], gamma=0.1),
]
train_cfg = dict(max_iters=1000, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000, max_keep_ckpts=1), logger=dict(interval=50))
