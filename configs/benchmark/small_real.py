"""Random init, SlotCon and VADeR at equal budget on photos of your own: what one CPU or one small GPU can finish.

    python tools/benchmark.py configs/benchmark/small_real.py --dry-run \\
        --set photos=my_photos/ coco=/data/coco_small masks=/data/camvid

`photos` is any folder, `coco` has COCO's layout, `masks` is images/SPLIT and annotations/SPLIT with splits train and
test. The FCN knows the eleven classes of CamVid; for other classes leave it out or give it a config of your own.
"""

_base_ = ["_base_/frozen_tasks.py"]

data = dict(
    coco=dict(
        path="data/coco_small", expects=["annotations/instances_train2017.json", "annotations/instances_val2017.json"]
    )
)
pretraining = dict(
    random=dict(title="random init"),
    slotcon=dict(
        config="configs/pretrain/slotcon_small.py",
        options={"train_cfg.max_epochs": 10},
        photos="photos",
        per_seed=True,
        title="SlotCon",
        hours=0.28,
    ),
    vader=dict(
        config="configs/pretrain/vader_demo.py",
        # epochs as SlotCon's; crops as small as its recipe's, since these are photos and no scenes
        options={"train_cfg.max_epochs": 10, "train_dataloader.dataset.scale": (0.08, 1.0)},
        photos="photos",
        per_seed=True,
        title="VADeR",
        hours=0.2,
    ),
)
tasks = dict(
    probe=dict(published="camvid_frozen_r18", title="linear, frozen", hours=0.06),
    unsupervised=dict(only=["slotcon"], title="label-free", hours=0.03),
    segmentation=dict(
        tool="mm",
        config="configs/transfer/mmseg/fcn_r18_camvid.py",
        options={"train_cfg.max_iters": 500, "param_scheduler.0.end": 500},
        data="masks",
        result="mmseg_fcn_r18_camvid",
        metrics=["mIoU"],
        title="FCN, fine-tuned",
        hours=0.1,
    ),
    detection=dict(
        tool="mm",
        config="configs/transfer/mmdet/mask_rcnn_r18_fpn_coco_small.py",
        options={"train_cfg.max_iters": 500, "param_scheduler.1.milestones": [400, 475]},
        data="coco",
        result="mmdet_mask_rcnn_r18_fpn_coco_small",
        metrics=["AP50_box", "AP50_mask", "AR100_box"],
        title="Mask R-CNN, fine-tuned",
        hours=0.3,
    ),
)
estimate = "hours of one core of an AMD EPYC, measured with 2,915 photos, CamVid and 645 photos in COCO layout"
