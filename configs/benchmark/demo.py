"""The whole chain on demo scenes, made on the spot: minutes on a CPU.

python tools/benchmark.py configs/benchmark/demo.py
"""

data = dict(
    scenes=dict(
        path="data/benchmark_demo",
        demo_scenes=["--layout", "camvid", "--splits", "train=600", "val=40", "test=80", "--size", "240", "180"],
        expects=["images/train", "annotations/train", "images/test", "annotations/test"],
    )
)
pretraining = dict(
    random=dict(title="random init"),
    slotcon=dict(
        config="configs/pretrain/slotcon_demo.py",
        options={"train_cfg.max_epochs": 4},
        photos="scenes",
        per_seed=True,
        title="SlotCon",
        hours=0.03,
    ),
    vader=dict(
        config="configs/pretrain/vader_demo.py",
        options={"train_cfg.max_epochs": 4},
        photos="scenes",
        per_seed=True,
        title="VADeR",
        hours=0.03,
    ),
)
targets = ["torchvision"]
tasks = dict(
    probe=dict(
        tool="probe",
        data="scenes",
        args=["--test", "test", "--limit", "80", "--neighbours", "0", "--input-size", "180", "240"],
        result="linear_probe_*",
        metrics=["mIoU", "pixel_accuracy"],
        title="linear segmentation, frozen features",
        hours=0.01,
    ),
    unsupervised=dict(
        tool="unsupervised",
        data="scenes",
        args=["--split", "test", "--short-side", "180"],
        result="unsupervised_seg_*",
        metrics=["mIoU_kmeans"],
        title="label-free segmentation",
        hours=0.01,
        only=["slotcon"],
    ),
)
seeds = [0, 1]
estimate = "hours of two CPU cores, assumed"
