"""Two augmented views of each photo (the crops and colours of SlotCon, which are BYOL's with a smaller minimal crop).

Which photos is said by `photos`, a source of docs/data.md. "${key}" stands for the config's own key of that name when
the run starts: --cfg-options data_root=/data/coco reaches all paths that are made of it.
"""

train_dataloader = dict(
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="EpochSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="TwoViewDataset",
        source="${photos}",
        view_size=224,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        min_overlap=0.01,
        photometric=[
            dict(blur_prob=1.0, solarise_prob=0.0),
            dict(blur_prob=0.1, solarise_prob=0.2),
        ],
    ),
)
