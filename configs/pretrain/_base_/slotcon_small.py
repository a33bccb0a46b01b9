"""SlotCon for few photos, small batches and little time: a laptop's CPU or one small GPU.

What differs from the paper's recipe, and why, is in docs/small_data.md.
"""

_base_ = ["default_runtime.py"]

model = dict(
    type="SlotCon",
    data_preprocessor=dict(type="TwoViewPreprocessor"),
    backbone=dict(type="TorchvisionResNet", depth=18, stride=16, zero_init_residual=False),
    projector=dict(type="MLPHead", hidden_channels=1024, out_channels=128, num_layers=3, norm_last=True),
    predictor=dict(type="MLPHead", hidden_channels=1024, num_layers=3),
    grouping=dict(type="SemanticGrouping", num_prototypes=64, temperature=0.07),
    center=dict(type="Center", momentum=0.9),
    student_temperature=0.1,
    teacher_temperature=0.04,
    contrast_temperature=0.2,
    group_loss_weight=0.5,
    teacher_momentum=0.99,
)

auto_scale_lr = dict(enable=True, base_batch_size=64)
optim_wrapper = dict(
    type="MixedPrecisionOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
)
warmup_epochs = 1
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=warmup_epochs, by_epoch=True, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-6, begin=warmup_epochs, by_epoch=True, convert_to_iter_based=True),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="EpochSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="TwoViewDataset",
        view_size=96,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        min_overlap=0.01,
        # the paper's blur of up to 2 pixels is for views of 224
        photometric=[
            dict(blur_prob=1.0, solarise_prob=0.0, blur_sigma=(0.1, 0.9)),
            dict(blur_prob=0.1, solarise_prob=0.2, blur_sigma=(0.1, 0.9)),
        ],
    ),
)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=100),
    slot_health=dict(interval=10),
)
log_processor = dict(window_size=10)
