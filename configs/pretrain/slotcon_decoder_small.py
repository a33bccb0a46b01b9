"""SlotCon with a pretrained FPN on a few thousand photos of your own, with one small GPU or no GPU at all.

    python tools/train.py configs/pretrain/slotcon_decoder_small.py --photos my_photos/

The pyramid is that of mask_rcnn_r18_fpn_coco_small.py and carries over into it. For an FCN's head in its place:

    --cfg-options "model.decoder=dict(_delete_=True, type='FCNDecoder', channels=128, dilation=1)"
"""

_base_ = ["slotcon_small.py"]

model = dict(
    type="SlotConDecoder",
    decoder=dict(type="PyramidDecoder", channels=128, norm="BatchNorm", lateral_dropout=0.0),
    # 792 positions a view of 96 pixels: wider heads would cost more than the backbone
    decoder_head=dict(projector=dict(hidden_channels=256), predictor=dict(hidden_channels=512)),
    encoder_loss_weight=0.5,
)
