"""How much of each loss? The paper finds .5 best; 1 is grouping alone, 0 the contrast of slots alone. Small recipe, photos of your own.

python tools/benchmark.py configs/benchmark/ablation_loss_weight.py --set photos=my_photos/ masks=/data/camvid
"""

_base_ = ["_base_/frozen_tasks.py"]

pretraining = {
    f"slotcon_{value}": dict(
        config="configs/pretrain/slotcon_small.py",
        options={"model.group_loss_weight": value},
        photos="photos",
        per_seed=True,
        title=f"SlotCon, lambda_g = {value}",
        hours=0.45,
    )
    for value in [0.0, 0.25, 0.5, 0.75, 1.0]
}
