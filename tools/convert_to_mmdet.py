"""Convert a pretrained backbone to a .pth for mmdet, proved by comparing features before it is written.

    python tools/convert_to_mmdet.py work_dirs/slotcon_coco slotcon_r50.pth
    python tools/convert_to_mmdet.py CKPT r50.pth --config CONFIG.py

Then, in a config whose data preprocessor has bgr_to_rgb=True and ImageNet's mean and std on the 0..255 scale:

    model = dict(backbone=dict(type='ResNet', style='pytorch',
                               init_cfg=dict(type='Pretrained', checkpoint='r50.pth')))

A feature pyramid, where the checkpoint has one, is in the same file:
neck=dict(init_cfg=dict(type='Pretrained', checkpoint='r50.pth', prefix='neck.')).
"""

from slotcon_plugin.command import run_command
from slotcon_plugin.convert.cli import run

if __name__ == "__main__":
    run_command(lambda: run("mmdet", __doc__))
