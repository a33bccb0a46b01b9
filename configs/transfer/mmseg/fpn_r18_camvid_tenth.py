# fpn_r18_camvid.py with a tenth of the labels: every tenth training photo, 37 of CamVid's 367.
_base_ = ["fpn_r18_camvid.py"]

train_dataloader = dict(dataset=dict(indices=list(range(0, 367, 10))))
