"""SlotCon on COCO train2017: 800 epochs, batch 512, as in the paper.

tools/dist_train.sh configs/pretrain/slotcon_coco.py 8
"""

_base_ = ["_base_/default_runtime.py", "_base_/coco.py", "_base_/slotcon_r50.py"]

train_cfg = dict(max_epochs=800)
