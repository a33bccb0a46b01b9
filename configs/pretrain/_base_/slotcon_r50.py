"""SlotCon's recipe for scene-centric photos (Wen et al., NeurIPS 2022; values of the official code)."""

model = dict(
    type="SlotCon",
    data_preprocessor=dict(type="TwoViewPreprocessor"),
    backbone=dict(type="TorchvisionResNet", depth=50, zero_init_residual=True),
    projector=dict(type="MLPHead", hidden_channels=4096, out_channels=256, num_layers=3),
    predictor=dict(type="MLPHead", hidden_channels=4096, num_layers=3),
    grouping=dict(type="SemanticGrouping", num_prototypes=256, temperature=0.07),
    center=dict(type="Center", momentum=0.9),
    student_temperature=0.1,
    teacher_temperature=0.07,
    contrast_temperature=0.2,
    group_loss_weight=0.5,
    teacher_momentum=0.99,
)

# Learning rate and teacher momentum below are for this total batch. Every GPU takes its share of it; set
# train_dataloader.batch_size (images a GPU) to train with another total, and both follow.
auto_scale_lr = dict(enable=True, base_batch_size=512)
optim_wrapper = dict(
    type="MixedPrecisionOptimWrapper",
    dtype="float16",
    optimizer=dict(type="LARS", lr=2.0, momentum=0.9, weight_decay=1e-5),  # 1.0 x batch / 256
)
warmup_epochs = 5
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=warmup_epochs, by_epoch=True, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-6, begin=warmup_epochs, by_epoch=True, convert_to_iter_based=True),
]

train_dataloader = dict(
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="EpochSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="TwoViewDataset",
        view_size=224,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        min_overlap=0.01,
        photometric=[
            dict(blur_prob=1.0, solarise_prob=0.0),
            dict(blur_prob=0.1, solarise_prob=0.2),
        ],
    ),
)
