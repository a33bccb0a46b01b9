"""SlotCon on COCO+ (train2017 and unlabeled2017): 800 epochs, batch 512, as in the paper."""

_base_ = ["_base_/default_runtime.py", "_base_/slotcon_r50.py"]

data_root = "data/coco"
train_dataloader = dict(
    dataset=dict(
        source=dict(
            type="ConcatSources",
            sources=[
                dict(
                    type="CocoImages",
                    ann_file=f"{data_root}/annotations/instances_train2017.json",
                    root=f"{data_root}/train2017",
                ),
                dict(
                    type="CocoImages",
                    ann_file=f"{data_root}/annotations/image_info_unlabeled2017.json",
                    root=f"{data_root}/unlabeled2017",
                ),
            ],
        )
    )
)
train_cfg = dict(max_epochs=800)
