"""VADeR with a ResNet-50 (Pinheiro et al., NeurIPS 2020). What was read in the paper and what was not is marked.

From memory: the paper starts from MoCo's encoder (--init moco_v2_200ep_pretrain.pth.tar).
"""

_base_ = ["two_views.py", "warmup_cosine.py"]

model = dict(
    type="VADeR",
    data_preprocessor=dict(type="TwoViewPreprocessor"),
    backbone=dict(type="TorchvisionResNet", depth=50, zero_init_residual=False),
    # Read: an FPN whose levels are merged as for semantic segmentation, 128 x 56 x 56 out of 224.
    # Default: 256 channels inside, the width of the detectors' FPNs, so that its weights carry over to them.
    decoder=dict(type="FPNDecoder", fpn_channels=256, channels=128, output_stride=4),
    num_pairs=32,  # read
    temperature=0.07,  # from memory, as MoCo
    queue_size=65536,  # from memory, as MoCo
    teacher_momentum=0.999,  # from memory, as MoCo
    interpolation="bilinear",  # default
)

# Unread: batch, optimiser, learning rate and decay are MoCo's. The learning rate is for this total batch.
auto_scale_lr = dict(base_batch_size=256, mode="scale-lr")
optim_wrapper = dict(
    type="MixedPrecisionOptimWrapper",
    constructor="PartOptimWrapperConstructor",
    dtype="float16",  # unread; see slotcon_r50.py
    optimizer=dict(type="SGD", lr=0.03, momentum=0.9, weight_decay=1e-4, fused=True),
    # Factors on the learning rate of each part. An encoder that starts from a checkpoint may want to move less.
    paramwise_cfg=dict(custom_keys={"student.backbone": dict(lr_mult=1.0), "student.decoder": dict(lr_mult=1.0)}),
)
warmup_epochs = 0
min_lr = 0.0

train_dataloader = dict(
    dataset=dict(
        # Read: views share 32 pixels of the 56 x 56 output at least. Guaranteed by how crops are drawn.
        # Unread: crops and colours; those of SlotCon's recipe, so that the two methods see the same views.
        min_overlap_pixels=32,
    )
)
