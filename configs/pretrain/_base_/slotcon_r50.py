"""SlotCon's recipe for scene-centric photos (Wen et al., NeurIPS 2022; values of the official code)."""

_base_ = ["two_views.py", "warmup_cosine.py"]

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
# train_dataloader.batch_size (images per GPU) to train with another total, and both follow.
auto_scale_lr = dict(base_batch_size=512, mode="scale-lr")
optim_wrapper = dict(
    type="MixedPrecisionOptimWrapper",
    # The official code's, for GPUs that had nothing else. From NVIDIA's Ampere on, "bfloat16" is as fast, has the range
    # of float32 and needs no loss scale; float16 has three bits more for each number.
    dtype="float16",
    optimizer=dict(type="LARS", lr=2.0, momentum=0.9, weight_decay=1e-5),  # 1.0 x batch / 256
)
