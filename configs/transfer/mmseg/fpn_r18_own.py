# A segmenter on photos and masks of your own: Semantic FPN on ResNet-18. From a checkpoint of vader_small.py everything
# but the classifier is pretrained. Layout: images/{train,val}, annotations/{train,val}/*.png with class indices (255 =
# ignored), classes.txt with a name a line; classes follow from it. For one GPU, or a patient CPU.
_base_ = "fpn_r18_camvid.py"

custom_imports = dict(imports=["slotcon_plugin", "slotcon_plugin.transfer.mm_labelled"])
data_root = "data/own"
ignore = 255
scale = (640, 480)
crop_size = (384, 512)
iterations = 2000
load = dict(type="LoadImageFromFile", imdecode_backend="pillow")  # in a run: LoadPhoto, for every kind of photo
train_pipeline = [
    load,
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, ignore_index=ignore),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    load,
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations"),  # after Resize: figures are those of full-size masks
    dict(type="PackSegInputs"),
]
dataset = dict(
    _delete_=True, type="LabelledPhotosDataset", data_root=data_root, metainfo=dict(classes=None)
)
train_dataloader = dict(dataset=dict(**dataset, split="train", pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, split="val", pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ignore_index=ignore)
test_evaluator = val_evaluator
model = dict(
    data_preprocessor=dict(size=crop_size, seg_pad_val=ignore),
    backbone=dict(zero_init_residual=False),  # random weights as pretrainings begin with them
    decode_head=dict(num_classes=None, ignore_index=ignore),
)
param_scheduler = [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=iterations, by_epoch=False)]
train_cfg = dict(max_iters=iterations, val_interval=iterations // 4)
default_hooks = dict(checkpoint=dict(interval=iterations // 4))
