"""SlotCon on ImageNet-1K: 2048 prototypes, 100 epochs, batch 512, as in the paper."""

_base_ = ["_base_/default_runtime.py", "_base_/imagenet.py", "_base_/slotcon_r50.py"]

model = dict(grouping=dict(num_prototypes=2048))
train_cfg = dict(max_epochs=100)
