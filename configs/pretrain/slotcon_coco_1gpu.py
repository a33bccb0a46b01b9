"""SlotCon on COCO with one GPU: batch 128 in bfloat16, learning rate and teacher momentum scaled to it.

    python tools/train.py configs/pretrain/slotcon_coco_1gpu.py

With less memory: --cfg-options train_dataloader.batch_size=64
"""

_base_ = ["slotcon_coco.py"]

optim_wrapper = dict(dtype="bfloat16")
train_dataloader = dict(batch_size=128)
