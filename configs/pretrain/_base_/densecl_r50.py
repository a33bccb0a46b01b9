"""DenseCL with a ResNet-50 (Wang et al., CVPR 2021); values of the official COCO config but for what is marked.

openselfsup, configs/selfsup/densecl/densecl_coco_800ep.py of WXinlong/DenseCL
"""

_base_ = ["two_views.py", "warmup_cosine.py"]

model = dict(
    type="DenseCL",
    data_preprocessor=dict(type="TwoViewPreprocessor"),
    backbone=dict(type="TorchvisionResNet", depth=50, zero_init_residual=False),
    projector=dict(type="MLPHead", hidden_channels=2048, out_channels=128, num_layers=2, norm=None, activation="ReLU"),
    dense_projector=dict(
        type="MLPHead", hidden_channels=2048, out_channels=128, num_layers=2, norm=None, activation="ReLU"
    ),
    dense_loss_weight=0.5,
    temperature=0.2,
    queue_size=65536,
    teacher_momentum=0.999,
)

# The learning rate is for this total batch; .3 on COCO, .03 on ImageNet (there from memory).
auto_scale_lr = dict(base_batch_size=256, mode="scale-lr")
optim_wrapper = dict(
    type="MixedPrecisionOptimWrapper",
    dtype="float16",  # ours: the official run is in float32
    optimizer=dict(type="SGD", lr=0.3, momentum=0.9, weight_decay=1e-4, fused=True),
)
warmup_epochs = 0
min_lr = 0.0

# MoCo v2's views: crops that know nothing of each other, both with the same colours.
train_dataloader = dict(
    dataset=dict(
        scale=(0.2, 1.0),
        min_overlap=0,
        photometric=[dict(saturation=0.4, blur_prob=0.5), dict(saturation=0.4, blur_prob=0.5)],
    )
)
