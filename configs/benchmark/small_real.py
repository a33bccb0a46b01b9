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
        config="configs/pretrain/slotcon_small.py", photos="photos", per_seed=True, title="SlotCon", hours=0.45
    ),
    vader=dict(
        config="configs/pretrain/vader_demo.py",
        # 20 epochs as SlotCon's; crops as small as its recipe's, since these are photos and no scenes
        options={"train_cfg.max_epochs": 20, "train_dataloader.dataset.scale": (0.08, 1.0)},
        photos="photos",
        per_seed=True,
        title="VADeR",
        hours=0.45,
    ),
)
tasks = dict(
    unsupervised=dict(only=["slotcon"]),
    segmentation=dict(
        tool="mm",
        config="configs/transfer/mmseg/fcn_r18_camvid.py",
        data="masks",
        result="mmseg_fcn_r18_camvid",
        metrics=["mIoU"],
        title="CamVid FCN, fine-tuned",
        hours=0.3,
    ),
    detection=dict(
        tool="mm",
        config="configs/transfer/mmdet/mask_rcnn_r18_fpn_coco_small.py",
        data="coco",
        result="mmdet_mask_rcnn_r18_fpn_coco_small",
        metrics=["AP_box", "AP_mask"],
        title="Mask R-CNN on few photos, fine-tuned",
        hours=0.5,
    ),
)
