"""VADeR for few photos, small batches and little time: a laptop's CPU or one small GPU."""

_base_ = ["short_runtime.py", "vader_r50.py"]

model = dict(
    backbone=dict(depth=18),
    decoder=dict(fpn_channels=64, channels=64),
    queue_size="${queue_size(16384, 32)}",  # of 512 photos at most, 32 pixels each
    teacher_momentum="${teacher_momentum(0.999, 'constant')}",
)
auto_scale_lr = dict(base_batch_size=32)
optim_wrapper = dict(
    dtype="bfloat16", optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=1e-4, fused=True)
)
warmup_epochs = "${warmup_epochs(1)}"
min_lr = 1e-6

train_dataloader = dict(
    batch_size=32,  # of as many photos, more steps
    num_workers=2,
    dataset=dict(
        view_size=96,
        scale=(0.2, 1.0),  # views of 96 of a small photo have no detail to show below
        # the paper's blur of up to 2 pixels is for views of 224
        photometric=[
            dict(blur_prob=1.0, solarise_prob=0.0, blur_sigma=(0.1, 0.9)),
            dict(blur_prob=0.1, solarise_prob=0.2, blur_sigma=(0.1, 0.9)),
        ],
    ),
)
