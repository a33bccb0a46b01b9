"""What can be measured in minutes: frozen features and label-free segmentation, on a folder with masks."""

data = dict(
    photos=dict(path="data/photos"),  # any folder of photos, nested or flat
    masks=dict(path="data/camvid", expects=["images/train", "annotations/train", "images/test", "annotations/test"]),
)
tasks = dict(
    probe=dict(
        tool="probe",
        data="masks",
        args=["--test", "test", "--neighbours", "0", "--bn-calibrate", "{photos}"],
        result="linear_probe_*",
        metrics=["mIoU", "pixel_accuracy"],
        title="linear segmentation, frozen features",
        hours=0.1,
    ),
    unsupervised=dict(
        tool="unsupervised",
        data="masks",
        args=["--split", "test"],
        result="unsupervised_seg_*",
        metrics=["mIoU_kmeans"],
        title="label-free segmentation",
        hours=0.05,
    ),
)
seeds = [0, 1, 2]
estimate = "hours of two CPU cores; pretraining from 37 photos a second (ResNet-18, 96 pixels), the rest assumed"
