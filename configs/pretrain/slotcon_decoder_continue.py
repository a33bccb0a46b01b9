"""Backbone from weights that are good already, pyramid from nothing, on some thousand photos of your own.

    python tools/train.py configs/pretrain/slotcon_decoder_continue.py --init tf_efficientnet_lite0.safetensors \\
        --photos my_photos/

The pyramid and the heads learn first, then everything (DeCon's recipe for continued pretraining: no loss on the encoder
itself, half of the laterals' channels dropped). Another network of timm's: --cfg-options model.backbone.name=convnext_tiny.
"""

_base_ = ["slotcon_continue.py"]

model = dict(
    type="SlotConDecoder",
    decoder=dict(type="PyramidDecoder", channels=128, norm="BatchNorm", lateral_dropout=0.5),
    decoder_head=dict(projector=dict(hidden_channels=256), predictor=dict(hidden_channels=512)),
    encoder_loss_weight=0.0,
)
