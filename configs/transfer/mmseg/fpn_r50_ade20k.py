# Semantic FPN on ADE20K: mmsegmentation's own 160k recipe on a plain 7x7 stem, from the given backbone.
# The neck has no norm layers: the FPN of a checkpoint (VADeR) carries over when its width is 256.
_base_ = "mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py"

model = dict(pretrained=None, backbone=dict(type="ResNet"))
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
