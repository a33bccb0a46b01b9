"""The four transfer tasks of SlotCon's paper. Set where the data sets lie with --set coco=DIR ..."""

data = dict(
    coco=dict(
        path="data/coco",
        expects=[
            *["train2017", "val2017"],
            *["annotations/instances_train2017.json", "annotations/instances_val2017.json"],
        ],
    ),
    cityscapes=dict(path="data/cityscapes", expects=["leftImg8bit/train", "gtFine/train"]),
    voc=dict(path="data/VOCdevkit/VOC2012", expects=["JPEGImages", "SegmentationClassAug"]),
    ade20k=dict(path="data/ade/ADEChallengeData2016", expects=["images/training", "annotations/training"]),
)
tasks = dict(
    coco_1x=dict(
        tool="detectron2",
        config="configs/transfer/detectron2/mask_rcnn_r50_fpn_1x_coco.yaml",
        data="coco",
        result="detectron2_mask_rcnn_r50_fpn_1x_coco",
        metrics=["AP_box", "AP_mask"],
        published="coco_mask_rcnn_r50_fpn_1x",
        title="COCO Mask R-CNN R50-FPN 1x",
        hours=60,
    ),
    cityscapes=dict(
        tool="mm",
        config="configs/transfer/mmseg/fcn_r50_cityscapes.py",
        data="cityscapes",
        result="mmseg_fcn_r50_cityscapes",
        metrics=["mIoU"],
        published="cityscapes_fcn_r50",
        title="Cityscapes FCN",
        hours=40,
    ),
    voc=dict(
        tool="mm",
        config="configs/transfer/mmseg/fcn_r50_voc12aug.py",
        data="voc",
        result="mmseg_fcn_r50_voc12aug",
        metrics=["mIoU"],
        published="voc12aug_fcn_r50",
        title="VOC12aug FCN",
        hours=10,
    ),
    ade20k=dict(
        tool="mm",
        config="configs/transfer/mmseg/fcn_r50_ade20k.py",
        data="ade20k",
        result="mmseg_fcn_r50_ade20k",
        metrics=["mIoU"],
        published="ade20k_fcn_r50",
        title="ADE20K FCN",
        hours=24,
    ),
)
targets = ["detectron2", "mmseg", "torchvision"]
seeds = [0]
estimate = "GPU-hours of one A100-class GPU, assumed and not measured (pretraining: 400 photos a second)"
