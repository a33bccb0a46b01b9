"""VADeR on ImageNet-1K, 200 epochs (unread in the paper; MoCo's schedule).

    python tools/train.py configs/pretrain/vader_imagenet.py --init moco_v2_200ep_pretrain.pth.tar

The encoder starts from any checkpoint that the converters read; without the option, from random weights.
"""

_base_ = ["_base_/default_runtime.py", "_base_/imagenet.py", "_base_/vader_r50.py"]

train_cfg = dict(max_epochs=200)

model = dict(decoder=dict(fpn_norm="BatchNorm"))  # as the FPNs of the SyncBN recipes have it
