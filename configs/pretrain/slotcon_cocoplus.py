"""SlotCon on COCO+ (train2017 and unlabeled2017): 800 epochs, batch 512, as in the paper."""

_base_ = ["_base_/default_runtime.py", "_base_/coco.py", "_base_/slotcon_r50.py"]

photos = dict(
    _delete_=True,
    type="ConcatSources",
    sources=[
        _base_.photos,
        dict(
            type="CocoImages",
            ann_file="${data_root}/annotations/image_info_unlabeled2017.json",
            root="${data_root}/unlabeled2017",
        ),
    ],
)
train_cfg = dict(max_epochs=800)
