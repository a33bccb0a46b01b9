"""The photos of COCO train2017; its labels are not looked at."""

data_root = "data/coco"
photos = dict(
    type="CocoImages",
    ann_file="${data_root}/annotations/instances_train2017.json",
    root="${data_root}/train2017",
)
