"""A plan with two pretrainings and two tasks whose files need not exist, and result files for it."""

import textwrap

import pytest

from slotcon_plugin.benchmark import load_plan
from slotcon_plugin.results import write_result

PLAN = """
data = dict(
    photos=dict(path="{root}/photos"),
    masks=dict(path="{root}/masks", expects=["images/val"]),
)
pretraining = dict(
    random=dict(title="random init"),
    slotcon=dict(config="configs/pretrain/slotcon_demo.py", photos="photos", per_seed=True, hours=2,
                 options={{"model.grouping.num_prototypes": 16}}),
    moco=dict(checkpoint="{root}/moco.pth", hours=7),
)
targets = ["detectron2"]
tasks = dict(
    probe=dict(tool="probe", data="masks", args=["--bn-calibrate", "{{photos}}"], result="linear_probe_*",
               metrics=["mIoU"], hours=0.5),
    coco=dict(tool="detectron2", config="configs/transfer/detectron2/mask_rcnn_r50_fpn_1x_coco.yaml", data="photos",
              result="detectron2_mask_rcnn_r50_fpn_1x_coco", metrics=["AP_box", "AP_mask"],
              options={{"SOLVER.MAX_ITER": 5}}, published="coco_1x", title="COCO", hours=3),
    camvid=dict(tool="mm", config="configs/transfer/mmseg/fcn_r18_camvid.py", data="masks",
                result="mmseg_fcn_r18_camvid", metrics=["mIoU"], only=["random", "slotcon"], hours=1),
)
seeds = [0, 1]
estimate = "hours of a test, made up"
"""


@pytest.fixture
def in_repo(repo, monkeypatch):
    """Steps are commands of tools/: the current folder is the checkout."""
    monkeypatch.chdir(repo)


@pytest.fixture
def plan_file(tmp_path, in_repo):
    path = tmp_path / "small.py"
    path.write_text(textwrap.dedent(PLAN.format(root=tmp_path)))
    return path


@pytest.fixture
def plan(plan_file):
    return load_plan(plan_file)


@pytest.fixture
def result(tmp_path, in_repo):
    """Write a result file below tmp_path/results."""

    def write(name, pretraining, task, seed=0, sha="a" * 64, config="configs/pretrain/slotcon_demo.py", **metrics):
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_result(
            path,
            task=task,
            metrics=metrics,
            pretraining=pretraining,
            config=config,
            backbone_sha256=sha,
            seed=seed,
            wall_time_s=1.0,
        )

    return write
