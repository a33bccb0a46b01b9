"""SlotCon on a few thousand photos of your own, with one small GPU or no GPU at all.

python tools/train.py configs/pretrain/slotcon_small.py --photos my_photos/
"""

_base_ = ["_base_/slotcon_r18.py"]

data_root = "data/photos"
photos = dict(type="ImageFolder", root="${data_root}")
train_cfg = dict(max_epochs=20)
default_hooks = dict(pictures=dict(type="GroupingPicturesHook", interval=5))
