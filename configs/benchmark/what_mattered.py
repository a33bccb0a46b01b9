"""What makes a run of minutes learn: one setting of SlotCon's or VADeR's at a time, on demo scenes made on the spot.

    python tools/benchmark.py configs/benchmark/what_mattered.py --dry-run

Each row is its method's preset (slotcon_demo.py, vader_small.py) with one thing changed. Two hundred steps are short: what
helps here need not help on photos.
"""

_base_ = ["_base_/short_runs.py"]

epochs = {"train_cfg.max_epochs": 5}
crops = "train_dataloader.dataset.scale"
rates = dict(
    learning_rate_30={"optim_wrapper.optimizer.lr": 3e-3}, learning_rate_03={"optim_wrapper.optimizer.lr": 3e-4}
)
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
        momentum_99={"model.teacher_momentum": 0.99},
        crops_08={crops: (0.08, 1.0)},
        crops_40={crops: (0.4, 1.0)},
        overlap_30={"train_dataloader.dataset.min_overlap": 0.3},
        plain_blocks={"model.backbone.zero_init_residual": False},
        **rates,
    ),
    vader=dict(
        preset={},
        decoupled={"model.decoupled": True},
        symmetric={"model.symmetric": True},
        ten_epochs={"train_cfg.max_epochs": 10},
        pairs_128={
            "model.num_pairs": 128,
            "model.queue_size": "${queue_size(65536, 128)}",
            "train_dataloader.dataset.min_overlap_pixels": 128,
        },
        momentum_999={"model.teacher_momentum": 0.999},
        identity_blocks={"model.backbone.zero_init_residual": True},
        **rates,
    ),
)
titles = dict(
    preset="the preset",
    center="running center in place of Sinkhorn's targets",
    mean_entropy="running center, mean entropy with weight .2",
    near_places="Sinkhorn's shares among neighbouring places",
    frozen_prototypes="prototypes frozen for a tenth of the run",
    teacher_temperature_02="teacher's temperature .02, not .04",
    momentum_99="teacher's momentum .99 at the start",
    crops_08="crops from .08",
    crops_40="crops from .4",
    overlap_30="views share .3 at least",
    decoupled="decoupled (DCL)",
    symmetric="symmetric",
    ten_epochs="one direction for ten epochs: symmetric's time",
    pairs_128="128 pairs, not 32",
    momentum_999="teacher's momentum .999",
    identity_blocks="residual blocks that start as identities",
    plain_blocks="residual blocks that do not start as identities",
    learning_rate_30="learning rate .003, not .001",
    learning_rate_03="learning rate .0003",
)
methods = dict(
    slotcon=dict(config="configs/pretrain/slotcon_demo.py", hours=0.06),
    vader=dict(config="configs/pretrain/vader_small.py", hours=0.05),
)
pretraining = {
    f"{method}_{change}": dict(
        methods[method],
        options=epochs | options,
        photos="scenes",
        per_seed=True,
        title=f"{dict(slotcon='SlotCon', vader='VADeR')[method]}, {titles[change]}",
    )
    for method in changes
    for change, options in changes[method].items()
}
del changes, crops, epochs, methods, rates, titles
