# A small segmenter on CamVid (11 classes, index 11 = ignore): FCN on ResNet-18, stride 16, photos at half size, bfloat16;
# for one GPU or a CPU. Its figures compare backbones with one another, not with the literature.
# Layout: images/{train,val,test}/*.jpg and annotations/{train,val,test}/*.png below data_root.
_base_ = ["mmseg::_base_/models/fcn_r50-d8.py", "mmseg::_base_/default_runtime.py"]

custom_imports = dict(imports=["slotcon_plugin"])
data_root = "data/camvid"
classes = [
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
]  # fmt: skip
palette = [
    [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
    [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
]  # fmt: skip
ignore = 11
crop_size = (192, 256)
scale = (320, 240)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, ignore_index=ignore),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations"),  # after Resize: figures are those of full-size masks
    dict(type="PackSegInputs"),
]
dataset = dict(
    type="BaseSegDataset",
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    ignore_index=ignore,
    reduce_zero_label=False,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/test", seg_map_path="annotations/test"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"], ignore_index=ignore)
test_evaluator = val_evaluator

model = dict(
    pretrained=None,
    data_preprocessor=dict(size=crop_size, seg_pad_val=ignore),
    backbone=dict(type="ResNet", depth=18, dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1)),
    decode_head=dict(
        in_channels=512, channels=128, concat_input=False, dropout_ratio=0, num_classes=len(classes), ignore_index=ignore
    ),
    auxiliary_head=None,
)

auto_scale_lr = dict(base_batch_size=8)
optim_wrapper = dict(
    type="slotcon_plugin.MixedPrecisionOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=1000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=1000, val_interval=1000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1000, max_keep_ckpts=1),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
