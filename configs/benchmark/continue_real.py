"""ImageNet weights alone, then SlotCon or VADeR on photos of your own: is continuing worth its minutes?

    python tools/benchmark.py configs/benchmark/continue_real.py --dry-run \\
        --set weights=tf_efficientnet_lite0.pth photos=my_photos/ masks=/data/camvid domain=camvid_unlabelled.txt \\
        boxes=/data/coco_small

`weights` are timm's of tf_efficientnet_lite0; `photos` any folder; `masks` is images/SPLIT and annotations/SPLIT with splits
train and test; `domain` photos of the masks' own kind, without their labels (a list of files, one a line). The FCN knows
the eleven classes of CamVid; for other classes give it a config of your own. `boxes` are some hundred photos in COCO's layout.
"""

data = dict(
    weights=dict(path="weights/tf_efficientnet_lite0.pth"),
    photos=dict(path="data/photos"),  # any folder of photos, nested or flat
    domain=dict(path="data/domain.txt"),
    boxes=dict(path="data/coco_small", expects=["annotations/instances_val2017.json", "train2017", "val2017"]),
    masks=dict(path="data/camvid", expects=["images/train", "annotations/train", "images/test", "annotations/test"]),
)
# From random weights BatchNorm's statistics have to be learned, and the backbone ten times as quickly.
fcn_from_scratch, detector_from_scratch = (
    {"model.backbone.norm_eval": False, "optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult": rate}
    for rate in (0.2, 1.0)
)
from_scratch = dict(segmentation=fcn_from_scratch, tenth=fcn_from_scratch, objects=detector_from_scratch)
epochs = {"train_cfg.max_epochs": 2}  # 90 steps of 2,915 photos
domain_epochs = {"train_cfg.max_epochs": 13}  # 91 steps of CamVid's 468 photos for training and validation
continued = dict(checkpoint="{weights}", init_title="ImageNet", reads=["weights"], per_seed=True, hours=0.15)
# the same network on random weights, for four epochs of the presets that are made for that: 11,660 photos
scratch = dict(
    options={
        "train_cfg.max_epochs": 4,
        "model.backbone": dict(_delete_=True, type="TimmBackbone", name="tf_efficientnet_lite0", output_stride=16),
        "model.data_preprocessor.mean": [0.5, 0.5, 0.5],
        "model.data_preprocessor.std": [0.5, 0.5, 0.5],
    },
    photos="photos",
    per_seed=True,
    task_options=from_scratch,
    hours=0.15,
)
slotcon = dict(continued, config="configs/pretrain/slotcon_continue.py")
vader = dict(continued, config="configs/pretrain/vader_continue.py")
pretraining = dict(
    random=dict(title="random init", task_options=from_scratch),
    slotcon_scratch=dict(scratch, config="configs/pretrain/slotcon_small.py", title="SlotCon from scratch"),
    vader_scratch=dict(scratch, config="configs/pretrain/vader_small.py", title="VADeR from scratch"),
    imagenet=dict(checkpoint="{weights}", network="tf_efficientnet_lite0", reads=["weights"], title="ImageNet"),
    slotcon=dict(slotcon, options=epochs, photos="photos", title="ImageNet, then SlotCon"),
    vader=dict(vader, options=epochs, photos="photos", title="ImageNet, then VADeR"),
    slotcon_pyramid=dict(
        continued,
        config="configs/pretrain/slotcon_decoder_continue.py",
        options=epochs,
        photos="photos",
        title="ImageNet, then SlotCon with a pyramid",
    ),
    slotcon_domain=dict(slotcon, options=domain_epochs, photos="domain", title="ImageNet, then SlotCon, own photos"),
    vader_domain=dict(vader, options=domain_epochs, photos="domain", title="ImageNet, then VADeR, own photos"),
)
segmentation = dict(tool="mm", data="masks", metrics=["mIoU"], hours=0.1)
objects = dict(
    tool="mm",
    data="boxes",
    config="configs/transfer/mmdet/mask_rcnn_lite0_fpn_coco_object.py",
    metrics=["AP50_box", "AP50_mask"],
    hours=0.25,
)
tasks = dict(
    probe=dict(
        tool="probe",
        data="masks",
        args=["--test", "test", "--neighbours", "0", "--seeds", "0", "--output-stride", "16"],
        result="linear_probe_*",
        metrics=["mIoU", "pixel_accuracy"],
        title="linear, frozen",
        hours=0.05,
    ),
    segmentation=dict(
        segmentation,
        config="configs/transfer/mmseg/fcn_lite0_camvid.py",
        result="mmseg_fcn_lite0_camvid",
        title="FCN, fine-tuned",
    ),
    tenth=dict(
        segmentation,
        config="configs/transfer/mmseg/fcn_lite0_camvid_tenth.py",
        result="mmseg_fcn_lite0_camvid_tenth",
        title="FCN, a tenth of the labels",
    ),
    objects=dict(
        objects,
        # `domain` is of the masks' kind; from scratch too little is learned
        only=["random", "imagenet", "slotcon", "vader", "slotcon_pyramid"],
        result="mmdet_mask_rcnn_lite0_fpn_coco_object",
        title="objects of any class, Mask R-CNN",
    ),
    objects_new_pyramid=dict(
        objects,
        only=["slotcon_pyramid"],
        args=["--no-fpn"],
        result="mmdet_mask_rcnn_lite0_fpn_coco_object_no_fpn",
        title="objects of any class, its pyramid left behind",
    ),
)
seeds = [0, 1, 2]
estimate = "hours of one core of an AMD EPYC (Zen 5)"
del (
    continued,
    detector_from_scratch,
    domain_epochs,
    epochs,
    fcn_from_scratch,
    from_scratch,
    objects,
    scratch,
    segmentation,
)
del slotcon, vader
