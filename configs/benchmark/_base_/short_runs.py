"""What judges runs of minutes: demo scenes made on the spot, a linear head on frozen features, 200 iterations of a segmenter."""

data = dict(
    scenes=dict(
        path="data/what_mattered",
        demo_scenes=["--layout", "camvid", "--splits", "train=1200", "val=40", "test=120", "--size", "240", "180"],
        expects=["images/train", "annotations/train", "images/test", "annotations/test"],
    )
)
pretraining = dict(
    random=dict(title="random init"),
    random_plain=dict(  # mmseg's ResNets begin with residual blocks that are identities
        title="random init, plain residual blocks",
        task_options=dict(segmentation={"model.backbone.zero_init_residual": False}),
    ),
)
tasks = dict(
    probe=dict(
        tool="probe",
        data="scenes",
        args=["--test", "test", "--limit", "160", "--neighbours", "0", "--seeds", "0", "--input-size", "180", "240"],
        result="linear_probe_*",
        metrics=["mIoU"],
        title="linear, frozen",
        hours=0.01,
    ),
    segmentation=dict(
        tool="mm",
        data="scenes",
        config="configs/transfer/mmseg/fcn_r18_camvid.py",
        options={
            "train_cfg.max_iters": 200,
            "param_scheduler.0.end": 200,
            "train_dataloader.dataset.pipeline.2.scale": (160, 120),
            "train_dataloader.dataset.pipeline.3.crop_size": (96, 128),
            "model.data_preprocessor.size": (96, 128),
            "val_dataloader.dataset.pipeline.1.scale": (160, 120),
        },
        result="mmseg_fcn_r18_camvid",
        metrics=["mIoU"],
        title="FCN, fine-tuned",
        hours=0.015,
    ),
)
seeds = [0, 1, 2]
estimate = "hours of one core of an AMD EPYC (Zen 5)"
