"""Random init, SlotCon and VADeR on the same number of photos of your own: what one CPU or one small GPU can finish.

    python tools/benchmark.py configs/benchmark/small_real.py --dry-run \\
        --set photos=my_photos/ masks=/data/camvid

`photos` is any folder, `masks` is images/SPLIT and annotations/SPLIT with splits train and test. The segmenters know the eleven
classes of CamVid; for other classes leave it out or give it a config of your own.
"""

_base_ = ["_base_/frozen_tasks.py"]

pretraining = dict(
    random=dict(title="random init"),
    # mmseg's ResNets begin with residual blocks that are identities, pretraining does not
    random_plain=dict(
        title="random init, plain residual blocks",
        task_options=dict(
            segmentation={"model.backbone.zero_init_residual": False},
            pyramid={"model.backbone.zero_init_residual": False},
            segmentation_adamw={"model.backbone.zero_init_residual": False},
            pyramid_adamw={"model.backbone.zero_init_residual": False},
            pyramid_tenth={"model.backbone.zero_init_residual": False},
        ),
    ),
    slotcon=dict(
        config="configs/pretrain/slotcon_small.py",
        options={"train_cfg.max_epochs": 10},
        photos="photos",
        per_seed=True,
        title="SlotCon",
        hours=0.5,
    ),
    vader=dict(
        config="configs/pretrain/vader_small.py",
        options={"train_cfg.max_epochs": 10},
        photos="photos",
        per_seed=True,
        title="VADeR",
        hours=0.2,
    ),
    vader_symmetric=dict(
        config="configs/pretrain/vader_small.py",
        options={"train_cfg.max_epochs": 10, "model.symmetric": True},
        photos="photos",
        per_seed=True,
        title="VADeR, symmetric",
        hours=0.35,
    ),
    # the pyramid as fpn_r18_camvid.py's, so that it goes along
    slotcon_pyramid=dict(
        config="configs/pretrain/slotcon_decoder_small.py",
        options={"train_cfg.max_epochs": 10, "model.decoder.channels": 64, "model.decoder.norm": None},
        photos="photos",
        per_seed=True,
        title="SlotCon with a pyramid",
        hours=0.6,
    ),
)
segmentation = dict(
    tool="mm",
    options={"train_cfg.max_iters": 500, "param_scheduler.0.end": 500},
    data="masks",
    metrics=["mIoU"],
    hours=0.1,
)
# The recipes' SGD at .01 is slow for 500 iterations (docs/experiments.md, "The rate of fine-tuning")
adamw = {"optim_wrapper.optimizer": dict(_delete_=True, type="AdamW", lr=0.001, weight_decay=0.05)}
tasks = dict(
    probe=dict(published="camvid_frozen_r18", title="linear, frozen", hours=0.06),
    unsupervised=dict(only=["slotcon"], title="label-free", hours=0.03),
    segmentation=dict(
        segmentation,
        config="configs/transfer/mmseg/fcn_r18_camvid.py",
        result="mmseg_fcn_r18_camvid",
        title="FCN, fine-tuned",
    ),
    pyramid=dict(
        segmentation,
        config="configs/transfer/mmseg/fpn_r18_camvid.py",
        result="mmseg_fpn_r18_camvid",
        title="Semantic FPN, fine-tuned",
    ),
    segmentation_adamw=dict(
        segmentation,
        config="configs/transfer/mmseg/fcn_r18_camvid.py",
        options={**segmentation["options"], **adamw},
        result="mmseg_fcn_r18_camvid",
        title="FCN, fine-tuned by AdamW",
        only=["random", "random_plain", "slotcon", "vader"],
    ),
    pyramid_adamw=dict(
        segmentation,
        config="configs/transfer/mmseg/fpn_r18_camvid.py",
        options={**segmentation["options"], **adamw},
        result="mmseg_fpn_r18_camvid",
        title="Semantic FPN, fine-tuned by AdamW",
        only=["random", "random_plain", "slotcon", "vader"],
    ),
    pyramid_tenth=dict(
        segmentation,
        config="configs/transfer/mmseg/fpn_r18_camvid_tenth.py",
        options={**segmentation["options"], **adamw},
        result="mmseg_fpn_r18_camvid_tenth",
        title="Semantic FPN by AdamW, a tenth of the labels",
        only=["random", "random_plain", "slotcon", "vader"],
    ),
    new_pyramid=dict(
        segmentation,
        config="configs/transfer/mmseg/fpn_r18_camvid.py",
        args=["--no-fpn"],
        result="mmseg_fpn_r18_camvid_no_fpn",
        title="Semantic FPN, its pyramid left behind",
        only=["vader", "vader_symmetric", "slotcon_pyramid"],
    ),
)
del segmentation, adamw
estimate = "hours of one core of an AMD EPYC, measured with 2,915 photos and CamVid"
