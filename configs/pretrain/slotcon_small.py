"""SlotCon on a few thousand photos of your own, with one small GPU or no GPU at all.

python tools/train.py configs/pretrain/slotcon_small.py --photos my_photos/
"""

_base_ = ["_base_/slotcon_r18.py"]

model = dict(center=dict(type="Sinkhorn"))  # all prototypes stay in use; with a running center 25 to 39 of 64 did
data_root = "data/photos"
photos = dict(type="ImageFolder", root="${data_root}")
train_cfg = dict(max_epochs=20)
default_hooks = dict(pictures=dict(type="GroupingPicturesHook", interval=5))
