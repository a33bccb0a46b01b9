# fcn_lite0_camvid.py with a tenth of the labels: every tenth training photo, 37 of CamVid's 367.
_base_ = ["fcn_lite0_camvid.py"]

train_dataloader = dict(dataset=dict(indices=list(range(0, 367, 10))))
