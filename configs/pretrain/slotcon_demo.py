"""SlotCon in minutes on a CPU, on demo scenes that are made when they are not there.

python tools/train.py configs/pretrain/slotcon_demo.py
"""

_base_ = ["_base_/slotcon_r18.py"]

# Blocks that start as identities do better on these scenes (on photos it is the other way round: docs/small_data.md)
model = dict(backbone=dict(zero_init_residual=True))
data_root = "data/demo_scenes"
photos = dict(type="DemoScenes", root="${data_root}")
train_cfg = dict(max_epochs=8)
default_hooks = dict(pictures=dict(type="GroupingPicturesHook", interval=4))
