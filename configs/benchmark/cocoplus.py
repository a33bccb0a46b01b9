"""SlotCon on COCO+ (train2017 and unlabeled2017) for 800 epochs, then the paper's tasks."""

_base_ = ["_base_/paper_tasks.py"]

data = dict(unlabeled=dict(path="data/coco", expects=["unlabeled2017", "annotations/image_info_unlabeled2017.json"]))
pretraining = dict(
    slotcon_cocoplus=dict(
        config="configs/pretrain/slotcon_cocoplus.py",
        options={
            "photos.sources.0.ann_file": "{coco}/annotations/instances_train2017.json",
            "photos.sources.0.root": "{coco}/train2017",
            "photos.sources.1.ann_file": "{unlabeled}/annotations/image_info_unlabeled2017.json",
            "photos.sources.1.root": "{unlabeled}/unlabeled2017",
        },
        reads=["coco", "unlabeled"],
        title="SlotCon, COCO+, 800 epochs (this code)",
        hours=round(241_690 * 800 / 400 / 3600),
    ),
)
