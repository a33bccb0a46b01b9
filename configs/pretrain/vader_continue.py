"""VADeR from weights that are good already, on some thousand photos of your own: docs/continue.md.

    python tools/train.py configs/pretrain/vader_continue.py --init tf_efficientnet_lite0.safetensors --photos my_photos/

Another network of timm's: --cfg-options model.backbone.name=convnext_tiny. What was measured: docs/continue.md.
"""

_base_ = ["_base_/vader_r18.py"]

init = dict(_delete_=True, file=None)  # to be given: --init FILE
model = dict(
    # torchvision's ResNets, which detectors build as their own:
    #     dict(_delete_=True, type="TorchvisionResNet", stride=16, norm_eval=True)
    # norm_eval: good weights go with their BatchNorm statistics, which small views in strong colours spoil
    backbone=dict(_delete_=True, type="TimmBackbone", name="tf_efficientnet_lite0", output_stride=16, norm_eval=True),
)
optim_wrapper = dict(
    constructor="PartOptimWrapperConstructor",
    optimizer=dict(lr=3e-4),
    # the last stage learns at the full rate, each one before it at three quarters of the next
    paramwise_cfg=dict(custom_keys={"student.backbone": dict(layer_decay=0.75)}),
)

# weights of photos of 224 know little of crops of 96
train_dataloader = dict(batch_size=64, dataset=dict(view_size=160))
auto_scale_lr = dict(base_batch_size=64)
data_root = "data/photos"
photos = dict(type="ImageFolder", root="${data_root}")
train_cfg = dict(max_epochs=10)
default_hooks = dict(
    heads_first=dict(type="HeadsFirstHook", share=0.2),
)
