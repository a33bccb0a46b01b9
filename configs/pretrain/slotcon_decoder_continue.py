"""Backbone from weights that are good already, pyramid from nothing, on some thousand photos of your own.

    python tools/train.py configs/pretrain/slotcon_decoder_continue.py --init tf_efficientnet_lite0.safetensors \\
        --photos my_photos/

The pyramid and the heads learn first, then everything, without a loss on the encoder itself: DeCon's recipe for continued
pretraining, except that it drops half of the laterals' channels too (model.decoder.lateral_dropout=0.5), which spoils the
pyramid in short runs: docs/decoder.md. Another network of timm's: --cfg-options model.backbone.name=convnext_tiny.
"""

_base_ = ["slotcon_continue.py"]

model = dict(
    type="SlotConDecoder",
    decoder=dict(type="PyramidDecoder", channels=128, norm="BatchNorm"),
    decoder_head=dict(projector=dict(hidden_channels=256), predictor=dict(hidden_channels=512)),
    encoder_loss_weight=0.0,
)
