"""SlotCon on COCO train2017: 800 epochs, batch 512, as in the paper.

tools/dist_train.sh configs/pretrain/slotcon_coco.py 8
"""

_base_ = ["_base_/default_runtime.py", "_base_/slotcon_r50.py"]

data_root = "data/coco"
train_dataloader = dict(
    dataset=dict(
        source=dict(
            type="CocoImages",
            ann_file=f"{data_root}/annotations/instances_train2017.json",  # labels are not looked at
            root=f"{data_root}/train2017",
        )
    )
)
train_cfg = dict(max_epochs=800)
