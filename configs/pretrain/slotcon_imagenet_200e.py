"""SlotCon on ImageNet-1K for 200 epochs; the rest as for 100."""

_base_ = ["slotcon_imagenet_100e.py"]

train_cfg = dict(max_epochs=200)
