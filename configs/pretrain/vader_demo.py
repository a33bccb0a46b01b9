"""VADeR in minutes on two CPU cores: ResNet-18, 96 x 96, on demo scenes that are made when they are not there.

    python tools/train.py configs/pretrain/vader_demo.py
    python tools/eval_pixel_retrieval.py configs/pretrain/vader_demo.py data/demo_scenes_small/images/val \\
        work_dirs/vader_demo/iter_*.pth

What it reaches is in docs/vader.md.
"""

_base_ = ["_base_/short_runtime.py", "_base_/vader_r50.py"]

model = dict(
    backbone=dict(depth=18),
    decoder=dict(fpn_channels=64, channels=64),
    queue_size=16384,  # 512 scenes x 32 pixels: a quarter of an epoch
    teacher_momentum=0.99,  # a run of 248 steps is over before a teacher with .999 has moved
)
auto_scale_lr = dict(base_batch_size=64)
optim_wrapper = dict(dtype="bfloat16", optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=1e-4))
warmup_epochs = 1
min_lr = 1e-6

data_root = "data/demo_scenes_small"
photos = dict(type="DemoScenes", root="${data_root}", num_train=2000, num_val=200, size=(160, 120))
train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    pin_memory=False,
    dataset=dict(
        view_size=96,
        overlap_grid=24,
        scale=(0.2, 1.0),  # so small a photo has no detail to show below
    ),
)
train_cfg = dict(max_epochs=8)
default_hooks = dict(checkpoint=dict(interval=62))
