"""Copies of result files, to be kept."""

import json

import pytest

from slotcon_plugin.benchmark import load_plan
from slotcon_plugin.benchmark.keep import keep_results
from slotcon_plugin.errors import UserError

COCO = "detectron2_mask_rcnn_r50_fpn_1x_coco"


def test_kept_results_say_nothing_of_this_machines_folders(tmp_path, plan_file, result):
    file = result("probe/slotcon-seed0/result.json", "slotcon", "linear_probe_masks_val", mIoU=1.0)
    command = "python tools/eval_probe.py --data {0} --masks x/masks --cfg-options a={0}/b c={0}es"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"command": command.format("/home/me/masks")}))
    (file.parent / "broken_result.json").write_text("{")
    moved = load_plan(plan_file, {"masks": "/home/me/masks"})
    written, problems = keep_results(moved, [tmp_path / "results"], tmp_path / "kept")
    assert written == [tmp_path / "kept/probe/slotcon-seed0/result.json"]
    kept = json.loads(written[0].read_text())
    assert kept["command"] == command.format(tmp_path / "masks").replace(f"c={tmp_path}/masks", "c=/home/me/masks")
    assert kept["task"] == "linear_probe_masks_val"
    assert kept["metrics"] == {"mIoU": 1.0}
    assert len(problems) == 1
    assert "broken_result.json" in problems[0]


def test_results_of_two_folders_are_not_kept_under_one_name(tmp_path, plan, result):
    folders = [tmp_path / "results" / name for name in ("a", "b")]
    for folder in folders:
        result(folder / "coco/slotcon-seed0/result.json", "slotcon", COCO, AP_box=1.0)
    with pytest.raises(UserError, match=r"results/a/coco/.* and .*results/b/coco/.* would both be .*kept/coco/slotcon"):
        keep_results(plan, folders, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    assert len(keep_results(plan, folders[:1], tmp_path / "kept")[0]) == 1
