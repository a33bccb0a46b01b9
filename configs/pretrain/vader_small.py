"""VADeR on a few thousand photos of your own, with one small GPU or no GPU at all.

    python tools/train.py configs/pretrain/vader_small.py --photos my_photos/

Settings are those of vader_demo.py. On photos they were measured with crops from .08 of the photo (docs/small_data.md), not
from .2 as here, and not searched.
"""

_base_ = ["_base_/vader_r18.py"]

data_root = "data/photos"
photos = dict(type="ImageFolder", root="${data_root}")
train_cfg = dict(max_epochs=20)
