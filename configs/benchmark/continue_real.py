"""ImageNet weights alone, then SlotCon or VADeR on photos of your own: is continuing worth its minutes?

    python tools/benchmark.py configs/benchmark/continue_real.py --dry-run \\
        --set weights=tf_efficientnet_lite0.pth photos=my_photos/ masks=/data/camvid domain=camvid_unlabelled.txt

`weights` are timm's of tf_efficientnet_lite0; `photos` any folder; `masks` is images/SPLIT and annotations/SPLIT with splits
train and test; `domain` photos of the masks' own kind, without their labels (a list of files, one a line). The FCN knows
the eleven classes of CamVid; for other classes give it a config of your own.
"""

_base_ = ["_base_/frozen_tasks.py"]

data = dict(
    weights=dict(path="weights/tf_efficientnet_lite0.pth"),
    domain=dict(path="data/domain.txt"),
)
# From random weights BatchNorm's statistics have to be learned, and the backbone as quickly as the head.
from_scratch = {
    "model.backbone.norm_eval": False,
    "optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult": 1.0,
}
start = dict(checkpoint="{weights}", init_title="ImageNet", reads=["weights"])
continued = dict(start, options={"train_cfg.max_epochs": 4}, per_seed=True, hours=0.1)
pretraining = dict(
    random=dict(title="random init", task_options=from_scratch),
    imagenet=dict(checkpoint="{weights}", network="tf_efficientnet_lite0", reads=["weights"], title="ImageNet"),
    slotcon=dict(
        continued,
        config="configs/pretrain/slotcon_continue.py",
        photos="photos",
        title="ImageNet, then SlotCon",
    ),
    vader=dict(
        continued,
        config="configs/pretrain/vader_continue.py",
        photos="photos",
        title="ImageNet, then VADeR",
    ),
    vader_domain=dict(
        continued,
        config="configs/pretrain/vader_continue.py",
        # as many images as of the other photos
        options={"train_cfg.max_epochs": 26},
        photos="domain",
        title="ImageNet, then VADeR on the task's own photos",
    ),
)
