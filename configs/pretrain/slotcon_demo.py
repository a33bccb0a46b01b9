"""SlotCon in minutes on a CPU, on demo scenes that are made when they are not there.

python tools/train.py configs/pretrain/slotcon_demo.py
"""

_base_ = ["_base_/slotcon_small.py"]

model = dict(grouping=dict(num_prototypes=32))
data_root = "data/demo_scenes"
train_dataloader = dict(dataset=dict(source=dict(type="DemoScenes", root=data_root)))
train_cfg = dict(max_epochs=8)
default_hooks = dict(pictures=dict(type="GroupingPicturesHook", interval=4))
