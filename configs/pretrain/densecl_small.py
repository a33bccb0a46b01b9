"""DenseCL on a few thousand photos of your own, with one small GPU or no GPU at all.

    python tools/train.py configs/pretrain/densecl_small.py --data-root my_photos/

Network, sizes, batch and optimiser are those of slotcon_small.py; views and teacher are DenseCL's own; untuned.
"""

_base_ = ["_base_/short_runtime.py", "_base_/densecl_r50.py"]

model = dict(
    backbone=dict(depth=18, stride=16),
    projector=dict(hidden_channels=512),
    dense_projector=dict(hidden_channels=512),
    queue_size="${queue_size(2048)}",
    teacher_momentum="${teacher_momentum(0.999, 'constant')}",
)
auto_scale_lr = dict(base_batch_size=64)
optim_wrapper = dict(
    dtype="bfloat16", optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05, fused=True)
)
warmup_epochs = "${warmup_epochs(1)}"
min_lr = 1e-6

data_root = "data/photos"
photos = dict(type="ImageFolder", root="${data_root}")
train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    # the paper's blur of up to 2 pixels is for views of 224
    dataset=dict(view_size=96, photometric=[dict(saturation=0.4, blur_prob=0.5, blur_sigma=(0.1, 0.9))] * 2),
)
train_cfg = dict(max_epochs=20)
