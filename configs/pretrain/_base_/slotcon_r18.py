"""SlotCon for few photos, small batches and little time: a laptop's CPU or one small GPU.

What differs from the paper's recipe, and why, is in docs/small_data.md. "${rule(value)}" follows from the run: docs/pretrain.md.
"""

_base_ = ["short_runtime.py", "two_views.py", "warmup_cosine.py"]

model = dict(
    type="SlotCon",
    data_preprocessor=dict(type="TwoViewPreprocessor"),
    backbone=dict(type="TorchvisionResNet", depth=18, stride=16, zero_init_residual=False),
    projector=dict(type="MLPHead", hidden_channels=1024, out_channels=128, num_layers=3, norm_last=True),
    predictor=dict(type="MLPHead", hidden_channels=1024, num_layers=3),
    grouping=dict(type="SemanticGrouping", num_prototypes="${num_prototypes(256)}", temperature=0.07),
    center=dict(type="Sinkhorn"),  # all prototypes stay in use; with a running center 25 to 39 of 64 do
    student_temperature=0.1,
    teacher_temperature=0.04,
    contrast_temperature=0.2,
    group_loss_weight=0.5,
    teacher_momentum="${teacher_momentum(0.99)}",
)

auto_scale_lr = dict(base_batch_size=64, mode="scale-lr")
optim_wrapper = dict(
    type="MixedPrecisionOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05, fused=True),
)
warmup_epochs = "${warmup_epochs(1)}"

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(
        view_size=96,
        # the paper's blur of up to 2 pixels is for views of 224
        photometric=[
            dict(blur_prob=1.0, solarise_prob=0.0, blur_sigma=(0.1, 0.9)),
            dict(blur_prob=0.1, solarise_prob=0.2, blur_sigma=(0.1, 0.9)),
        ],
    ),
)
