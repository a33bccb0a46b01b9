"""VADeR on a few thousand photos of your own, with one small GPU or no GPU at all.

    python tools/train.py configs/pretrain/vader_small.py --photos my_photos/

What was measured: docs/small_data.md.
"""

_base_ = ["_base_/vader_r18.py"]

data_root = "data/photos"
photos = dict(type="ImageFolder", root="${data_root}")
train_cfg = dict(max_epochs=20)
