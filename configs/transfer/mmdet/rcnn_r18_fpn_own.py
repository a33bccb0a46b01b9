# A detector on photos and boxes of your own: Mask R-CNN with ResNet-18 and FPN, without the mask head where an annotation
# has no outline. Layout: photos in images/{train,val}, annotations in annotations/{train,val}.json, of COCO's form as CVAT,
# Label Studio and Roboflow export it; classes are its categories. For one GPU, or a patient CPU.
_base_ = "mask_rcnn_r18_fpn_coco_small.py"

custom_imports = dict(imports=["slotcon_plugin", "slotcon_plugin.transfer.mm_objects"])
data_root = "data/own"
long, short = 800, 480
iterations = 2000
load = dict(type="LoadImageFromFile", imdecode_backend="pillow")  # in a run: LoadPhoto, for every kind of photo
train_pipeline = [
    load,
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomChoiceResize", scales=[(long, short - 32 * k) for k in range(4)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    load,
    dict(type="Resize", scale=(long, short), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/train.json",
        data_prefix=dict(img="images/train/"),
        metainfo=dict(classes=None),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/val.json",
        data_prefix=dict(img="images/val/"),
        metainfo=dict(classes=None),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(type="OwnCocoMetric", ann_file=None, metric=["bbox", "segm"])
test_evaluator = val_evaluator
model = dict(
    backbone=dict(zero_init_residual=False),  # random weights as pretrainings begin with them
    roi_head=dict(bbox_head=dict(num_classes=None), mask_head=dict(num_classes=None)),
    test_cfg=dict(rcnn=dict(score_thr=0.05)),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type="MultiStepLR", by_epoch=False, milestones=[int(0.8 * iterations), int(0.95 * iterations)], gamma=0.1),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations // 4)
default_hooks = dict(checkpoint=dict(interval=iterations // 4))
