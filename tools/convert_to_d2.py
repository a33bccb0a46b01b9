"""Convert a pretrained backbone to a detectron2 .pkl, proved by comparing features before it is written.

    python tools/convert_to_d2.py work_dirs/slotcon_coco slotcon_r50.pkl
    python tools/convert_to_d2.py slotcon_coco_r50_800ep.pth r50.pkl --branch student
    python tools/convert_to_d2.py CKPT r50.pkl --config configs/transfer/detectron2/mask_rcnn_r50_fpn_1x_coco.yaml

Then MODEL.WEIGHTS r50.pkl, with INPUT.FORMAT RGB, PIXEL_MEAN [123.675, 116.28, 103.53],
PIXEL_STD [58.395, 57.12, 57.375] and RESNETS.STRIDE_IN_1X1 False. The same file serves R50-FPN and R50-C4.
"""

from slotcon_plugin.command import run_command
from slotcon_plugin.convert.cli import run

if __name__ == "__main__":
    run_command(lambda: run("detectron2", __doc__))
