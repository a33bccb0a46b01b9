"""What makes a run of minutes learn: one setting of SlotCon's or VADeR's at a time, on demo scenes made on the spot.

    python tools/benchmark.py configs/benchmark/what_mattered.py --dry-run

Each row is its method's preset with one thing changed. Two hundred steps are short: what helps here need not help on photos.
"""

data = dict(
    scenes=dict(
        path="data/what_mattered",
        demo_scenes=["--layout", "camvid", "--splits", "train=1200", "val=40", "test=120", "--size", "240", "180"],
        expects=["images/train", "annotations/train", "images/test", "annotations/test"],
    )
)
epochs = {"train_cfg.max_epochs": 5}
crops = "train_dataloader.dataset.scale"
batch = "train_dataloader.batch_size"
changes = dict(
    slotcon=dict(
        preset={},
        center={"model.center.type": "Center"},
        mean_entropy={"model.center.type": "Center", "model.mean_entropy_weight": 0.2},
        near_places={"model.center.window": 3},
        frozen_prototypes={
            "default_hooks.frozen_prototypes.type": "FrozenPrototypesHook",
            "default_hooks.frozen_prototypes.share": 0.1,
        },
        teacher_temperature_02={"model.teacher_temperature": 0.02},
        teacher_temperature_07={"model.teacher_temperature": 0.07},
        momentum_99={"model.teacher_momentum": 0.99},
        crops_08={crops: (0.08, 1.0)},
        crops_40={crops: (0.4, 1.0)},
        overlap_30={"train_dataloader.dataset.min_overlap": 0.3},
    ),
    vader=dict(
        preset={},
        decoupled={"model.decoupled": True},
        symmetric={"model.symmetric": True},
        pairs_128={
            "model.num_pairs": 128,
            "model.queue_size": "${queue_size(65536, 128)}",
            "train_dataloader.dataset.min_overlap_pixels": 128,
        },
        momentum_999={"model.teacher_momentum": 0.999},
        crops_08={crops: (0.08, 1.0)},
        batch_64={batch: 64, "auto_scale_lr.base_batch_size": 64},
    ),
)
titles = dict(
    preset="the preset",
    center="running center in place of Sinkhorn's targets",
    mean_entropy="running center, mean entropy with weight .2",
    near_places="Sinkhorn's shares among neighbouring places",
    frozen_prototypes="prototypes frozen for a tenth of the run",
    teacher_temperature_02="teacher's temperature .02, not .04",
    teacher_temperature_07="teacher's temperature .07",
    momentum_99="teacher's momentum .99 at the start",
    crops_08="crops from .08",
    crops_40="crops from .4",
    overlap_30="views share .3 at least",
    decoupled="decoupled (DCL)",
    symmetric="symmetric",
    pairs_128="128 pairs, not 32",
    momentum_999="teacher's momentum .999",
    batch_64="batches of 64, not 32",
)
methods = dict(
    slotcon=dict(config="configs/pretrain/slotcon_demo.py", hours=0.06),
    vader=dict(config="configs/pretrain/vader_small.py", hours=0.05),
)
pretraining = dict(
    random=dict(title="random init"),
    **{
        f"{method}_{change}": dict(
            methods[method],
            options=epochs | options,
            photos="scenes",
            per_seed=True,
            title=f"{dict(slotcon='SlotCon', vader='VADeR')[method]}, {titles[change]}",
        )
        for method in changes
        for change, options in changes[method].items()
    },
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
del batch, changes, crops, epochs, methods, titles
