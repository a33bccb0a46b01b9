"""SlotCon with a ResNet-50 on 5,000 to 50,000 photos of your own, on one GPU of 24 GB or more.

    python tools/train.py configs/pretrain/slotcon_mid.py --photos my_photos/

Between slotcon_small.py (ResNet-18, views of 96) and the paper's 800 epochs. Set by reasoning and not searched;
tried for 16 steps, not run to its end.
Cost, estimated and not measured: 37 GFLOP a photo (views of 160), so 20,000 photos x 200 epochs are 1.5e17 FLOP, about an hour
at 40 TFLOP/s. Less memory: --cfg-options train_dataloader.batch_size=64. Less time: --budget 30m.
"""

_base_ = ["_base_/default_runtime.py", "_base_/slotcon_r50.py"]

model = dict(
    projector=dict(hidden_channels=2048),
    predictor=dict(hidden_channels=2048),
    grouping=dict(num_prototypes="${num_prototypes(256)}"),
    teacher_momentum="${teacher_momentum(0.99)}",
)
optim_wrapper = dict(dtype="bfloat16")
warmup_epochs = "${warmup_epochs(5)}"

data_root = "data/photos"
photos = dict(type="ImageFolder", root="${data_root}")
train_dataloader = dict(
    batch_size=128,  # of the paper's 512: learning rate and teacher momentum follow
    dataset=dict(
        view_size=160,
        scale=(0.2, 1.0),
        # the paper's blur of up to 2 pixels is for views of 224
        photometric=[
            dict(blur_prob=1.0, solarise_prob=0.0, blur_sigma=(0.1, 1.4)),
            dict(blur_prob=0.1, solarise_prob=0.2, blur_sigma=(0.1, 1.4)),
        ],
    ),
)
train_cfg = dict(max_epochs=200)
default_hooks = dict(checkpoint=dict(interval=500), pictures=dict(type="GroupingPicturesHook", interval=20))
