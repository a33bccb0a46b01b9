"""DenseCL on COCO train2017: 800 epochs, batch 256, as the official config has it.

tools/dist_train.sh configs/pretrain/densecl_coco.py 8
"""

_base_ = ["_base_/default_runtime.py", "_base_/coco.py", "_base_/densecl_r50.py"]

train_cfg = dict(max_epochs=800)
