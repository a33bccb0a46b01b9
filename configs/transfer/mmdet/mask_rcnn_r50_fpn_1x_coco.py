# Mask R-CNN R50-FPN, 1x, by the recipe of MoCo and its successors: SyncBN in backbone, FPN and both heads, nothing
# frozen, 4conv1fc box head, short side 640..800, total batch 16, 90k iterations. The same as
# ../detectron2/mask_rcnn_r50_fpn_1x_coco.yaml, except that mmengine has no precise BN.
_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"

norm = dict(type="SyncBN", requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_eval=False, norm_cfg=norm, init_cfg=None),
    neck=dict(norm_cfg=norm),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm),
        mask_head=dict(norm_cfg=norm),
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomChoiceResize", scales=[(1333, side) for side in range(640, 801, 32)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    batch_size=2, sampler=dict(type="InfiniteSampler"), dataset=dict(pipeline=train_pipeline)
)

auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", by_epoch=False, milestones=[60000, 80000], gamma=0.1),
]
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=90000, val_interval=10000)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
