"""SlotCon on ImageNet-1K for 100 and 200 epochs, then the paper's tasks."""

_base_ = ["_base_/paper_tasks.py"]

data = dict(imagenet=dict(path="data/imagenet", expects=["train"]))
pretraining = dict(
    slotcon_imagenet_100e=dict(
        config="configs/pretrain/slotcon_imagenet_100e.py",
        options={"data_root": "{imagenet}"},
        reads=["imagenet"],
        title="SlotCon, ImageNet, 100 epochs (this code)",
        hours=round(1_281_167 * 100 / 400 / 3600),
    ),
    slotcon_imagenet_200e=dict(
        config="configs/pretrain/slotcon_imagenet_200e.py",
        options={"data_root": "{imagenet}"},
        reads=["imagenet"],
        title="SlotCon, ImageNet, 200 epochs (this code)",
        hours=round(1_281_167 * 200 / 400 / 3600),
    ),
)
