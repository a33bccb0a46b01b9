"""SlotCon with a pretrained FPN on COCO train2017: 800 epochs, batch 512, the budget of DeCon (arXiv 2503.17526).

    tools/dist_train.sh configs/pretrain/slotcon_decoder_coco.py 8

The backbone and its pyramid go into the recipes of Mask R-CNN together. From memory or unread: the heads of the paper
are 4,096 wide on every map, which costs twenty backbones at 224 pixels; here those on the pyramid are 512 wide. Whether
its COCO runs drop channels of the laterals (p = .5 in the commands that could be read) is unread.
"""

_base_ = ["slotcon_coco.py"]

model = dict(
    type="SlotConDecoder",
    decoder=dict(type="PyramidDecoder", channels=256, norm="BatchNorm", lateral_dropout=0.0),
    decoder_head=dict(projector=dict(hidden_channels=512), predictor=dict(hidden_channels=512)),
    encoder_loss_weight=0.5,
)
