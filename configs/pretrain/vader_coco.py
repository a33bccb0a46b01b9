"""VADeR on COCO train2017, 800 epochs: as many as SlotCon's recipe for these photos, so that the two compare.

    python tools/train.py configs/pretrain/vader_coco.py --init moco_v2_200ep_pretrain.pth.tar

An epoch of 118,287 photos is longer than the queue (2,048 photos x 32 pixels).
"""

_base_ = ["_base_/default_runtime.py", "_base_/coco.py", "_base_/vader_r50.py"]

train_cfg = dict(max_epochs=800)

model = dict(decoder=dict(fpn_norm="BatchNorm"))  # as the FPNs of the SyncBN recipes have it
