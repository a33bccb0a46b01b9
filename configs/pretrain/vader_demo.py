"""VADeR in minutes on two CPU cores: ResNet-18, 96 x 96, on demo scenes that are made when they are not there.

    python tools/train.py configs/pretrain/vader_demo.py
    python tools/eval_pixel_retrieval.py configs/pretrain/vader_demo.py data/demo_scenes_small/images/val \\
        work_dirs/vader_demo/iter_*.pth

What it reaches is in docs/vader.md.
"""

_base_ = ["_base_/vader_r18.py"]

data_root = "data/demo_scenes_small"
photos = dict(type="DemoScenes", root="${data_root}", num_train=2000, num_val=200, size=(160, 120))
train_cfg = dict(max_epochs=8)
auto_scale_lr = dict(base_batch_size=64)
train_dataloader = dict(batch_size=64)
default_hooks = dict(checkpoint=dict(interval=62))
