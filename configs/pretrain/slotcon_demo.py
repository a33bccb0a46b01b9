"""SlotCon in minutes on a CPU, on demo scenes that are made when they are not there.

python tools/train.py configs/pretrain/slotcon_demo.py
"""

_base_ = ["_base_/slotcon_r18.py"]

# Blocks that start as identities do better on these scenes (on photos it is the other way round: docs/small_data.md)
# The same holds for small batches, large crops and the student.
model = dict(backbone=dict(zero_init_residual=True), transfer_branch="student")
auto_scale_lr = dict(base_batch_size=32)
train_dataloader = dict(batch_size=32, dataset=dict(scale=(0.25, 1.0)))
data_root = "data/demo_scenes"
photos = dict(type="DemoScenes", root="${data_root}")
train_cfg = dict(max_epochs=8)
default_hooks = dict(pictures=dict(type="GroupingPicturesHook", interval=4))
