"""How sharp a teacher? The paper finds a softer one helpful. Small recipe, photos of your own.

python tools/benchmark.py configs/benchmark/ablation_teacher_temperature.py --set photos=my_photos/ masks=/data/camvid
"""

_base_ = ["_base_/frozen_tasks.py"]

pretraining = {
    f"slotcon_{value}": dict(
        config="configs/pretrain/slotcon_small.py",
        options={"model.teacher_temperature": value},
        photos="photos",
        per_seed=True,
        title=f"SlotCon, tau_t = {value}",
        hours=0.45,
    )
    for value in [0.03, 0.04, 0.05, 0.07]
}
