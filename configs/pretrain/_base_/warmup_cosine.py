"""The learning rate rises for `warmup_epochs`, then falls along a half cosine to `min_lr` at the end of the run."""

warmup_epochs = 5
min_lr = 1e-6
param_scheduler = [
    dict(
        type="LinearLR", start_factor=0.01, begin=0, end="${warmup_epochs}", by_epoch=True, convert_to_iter_based=True
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min="${min_lr}",
        begin="${warmup_epochs}",
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
