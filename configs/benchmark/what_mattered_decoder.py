"""What matters in SlotCon with a pyramid: one setting at a time, on the scenes and at the length of what_mattered.py.

    python tools/benchmark.py configs/benchmark/what_mattered_decoder.py --dry-run

Each is `decoder_preset` with one thing changed. Those with a whole pyramid are fine-tuned with it and with a new one.
"""

_base_ = ["_base_/short_runs.py"]

shared = {  # slotcon_demo.py's
    "train_cfg.max_epochs": 5,
    "train_dataloader.batch_size": 32,
    "auto_scale_lr.base_batch_size": 32,
    "train_dataloader.dataset.scale": (0.25, 1.0),
    "model.backbone.zero_init_residual": True,
    "model.transfer_branch": "student",
}
pyramid = {"model.decoder.channels": 64, "model.decoder.norm": None}  # fpn_r18_camvid.py's
changes = dict(
    preset=("w_e .5, heads on p2 to p5", {}),
    encoder_weight_0=("no loss on the encoder's own map (w_e 0)", {"model.encoder_loss_weight": 0.0}),
    encoder_weight_80=("w_e .8", {"model.encoder_loss_weight": 0.8}),
    p2=("a head on p2 alone", {"model.decoder.levels": ["p2"]}),
    p4=("a head on p4 alone", {"model.decoder.levels": ["p4"]}),
    lateral_dropout_50=("half of the laterals' channels dropped", {"model.decoder.lateral_dropout": 0.5}),
    rise_and_fall=("teacher's momentum rises and falls", {"model.teacher_momentum_schedule": "rise_and_fall"}),
    frozen_prototypes=("the teacher's decoder prototypes stay random", {"model.freeze_teacher_prototypes": True}),
)
pretraining = {
    "slotcon": dict(
        config="configs/pretrain/slotcon_small.py",
        options=shared,
        photos="scenes",
        per_seed=True,
        title="SlotCon, no decoder",
        hours=0.06,
    ),
    **{
        f"decoder_{name}": dict(
            config="configs/pretrain/slotcon_decoder_small.py",
            options=shared | pyramid | options,
            photos="scenes",
            per_seed=True,
            title=f"SlotCon with a pyramid, {title}",
            hours=0.1,
        )
        for name, (title, options) in changes.items()
    },
}
semantic_fpn = "configs/transfer/mmseg/fpn_r18_camvid.py"
tasks = dict(
    segmentation=dict(config=semantic_fpn, result="mmseg_fpn_r18_camvid", title="Semantic FPN, fine-tuned"),
    new_pyramid=dict(
        tool="mm",
        data="scenes",
        config=semantic_fpn,
        args=["--no-fpn"],
        options={{_base_.tasks.segmentation.options}},
        result="mmseg_fpn_r18_camvid_no_fpn",
        metrics=["mIoU"],
        title="Semantic FPN, its pyramid left behind",
        # one level alone is no whole pyramid: it stays behind in any case
        only=[f"decoder_{name}" for name in changes if name not in ("p2", "p4")],
        hours=0.015,
    ),
)
del changes, pyramid, semantic_fpn, shared
