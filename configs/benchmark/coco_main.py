"""SlotCon on COCO for 800 epochs, then COCO detection, Cityscapes, VOC and ADE20K, as in the paper.

python tools/benchmark.py configs/benchmark/coco_main.py --gpus 8 --dry-run
"""

_base_ = ["_base_/paper_tasks.py"]

pretraining = dict(
    random=dict(title="random init"),
    slotcon_coco=dict(
        config="configs/pretrain/slotcon_coco.py",
        options={
            "data_root": "{coco}",
        },
        reads=["coco"],
        title="SlotCon, COCO, 800 epochs (this code)",
        hours=round(118_287 * 800 / 400 / 3600),
    ),
)
