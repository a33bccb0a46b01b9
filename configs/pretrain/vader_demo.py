"""VADeR in minutes on two CPU cores: ResNet-18, 96 x 96, demo scenes."""

_base_ = ["_base_/default_runtime.py", "_base_/vader_r50.py"]

model = dict(
    backbone=dict(depth=18),
    decoder=dict(fpn_channels=64, channels=64),
    queue_size=16384,
    teacher_momentum=0.99,
)
optim_wrapper = dict(dtype="bfloat16", optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=1e-4))
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-6, begin=1, by_epoch=True, convert_to_iter_based=True),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    pin_memory=False,
    dataset=dict(
        view_size=96,
        overlap_grid=24,
        scale=(0.2, 1.0),
        source=dict(type="ImageFolder", root="data/demo_scenes/images/train"),
    ),
)
train_cfg = dict(max_epochs=8)
default_hooks = dict(logger=dict(interval=10))
visualizer = dict(vis_backends=[dict(type="LocalVisBackend")])
