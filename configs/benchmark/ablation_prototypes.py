"""How many prototypes? The paper finds 256 best on COCO. Small recipe, photos of your own.

python tools/benchmark.py configs/benchmark/ablation_prototypes.py --set photos=my_photos/ masks=/data/camvid
"""

_base_ = ["_base_/frozen_tasks.py"]

pretraining = {
    f"slotcon_{value}": dict(
        config="configs/pretrain/slotcon_small.py",
        options={"model.grouping.num_prototypes": value},
        photos="photos",
        per_seed=True,
        title=f"SlotCon, K = {value}",
        hours=0.45,
    )
    for value in [16, 32, 64, 128, 256]
}
