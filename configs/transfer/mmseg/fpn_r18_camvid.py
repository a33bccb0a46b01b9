# Semantic FPN on CamVid, ResNet-18: what fcn_r18_camvid.py is, with the decoder that VADeR pretrains. From a checkpoint of
# vader_small.py everything but the classifier is pretrained: backbone, pyramid and the branch that merges it.
_base_ = "fcn_r18_camvid.py"

width = 64  # of vader_small.py's decoder; GroupNorm of 4 channels as there
model = dict(
    backbone=dict(dilations=(1, 1, 1, 1), strides=(1, 2, 2, 2)),
    neck=dict(type="FPN", in_channels=[64, 128, 256, 512], out_channels=width, num_outs=4),
    decode_head=dict(
        _delete_=True,
        type="FPNHead",
        in_channels=[width] * 4,
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=width,
        dropout_ratio=0,
        num_classes={{_base_.model.decode_head.num_classes}},
        ignore_index={{_base_.ignore}},
        norm_cfg=dict(type="GN", num_groups=width // 4),
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
)
