# FCN R50-d8 on ADE20K: mmsegmentation's own 80k recipe on a plain 7x7 stem, from the given backbone.
_base_ = "mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py"

model = dict(pretrained=None, backbone=dict(type="ResNet"))
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
