"""Figures of result files: of detectors that find nothing, of what could not be measured, and on how many photos."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from slotcon_plugin.results import read_result
from slotcon_plugin.transfer import openmmlab
from slotcon_plugin.transfer.mm_hooks import TransferRun, nothing_detected
from slotcon_plugin.transfer.mm_objects import OwnCocoMetric

from .figures import judged

METRICS = ["bbox", "segm", "proposal"]


def truth(areas: list[float], crowds: int = 0) -> dict:
    """A photo with an object of each area; the last ``crowds`` are such."""
    annotations = [
        dict(id=n, image_id=1, category_id=1, bbox=[0, 0, 5, 5], area=area, iscrowd=int(n > len(areas) - crowds))
        | dict(segmentation=[[0, 0, 5, 0, 5, 5]])
        for n, area in enumerate(areas, start=1)
    ]
    images = [dict(id=1, file_name="a.jpg", width=64, height=48)]
    return dict(images=images, annotations=annotations, categories=[dict(id=1, name="nut")])


@pytest.mark.parametrize(
    ("areas", "crowds"),
    [([25], 0), ([1024], 0), ([25, 9216], 0), ([2000, 20000, 25], 1), ([25, 2000, 20000], 0), ([25, 30], 2)],
)
def test_a_detector_that_finds_nothing_has_the_figures_of_one_that_finds_nothing_right(areas, crowds, tmp_path):
    """All of them, as pycocotools gives them: a seed that is missing from a column would lift its mean."""
    path, found = tmp_path / "val.json", truth(areas, crowds)
    path.write_text(json.dumps(found))
    wrong = judged(OwnCocoMetric(ann_file=str(path), metric=METRICS), found)
    assert nothing_detected([dict(type="OwnCocoMetric", ann_file=str(path), metric=METRICS)]) == wrong
    assert set(wrong.values()) <= {0.0} and bool(wrong) == (crowds < len(areas))


def test_what_could_not_be_measured_is_no_figure(camvid, monkeypatch):
    """mmdet's evaluator gives -1 where there is no object at all."""
    measured = TransferRun.after_val_epoch

    def unmeasured(hook, runner, metrics=None):
        measured(hook, runner, {"coco/bbox_mAP": -1.0, "coco/bbox_mAP_50": -1.0})

    monkeypatch.setattr(TransferRun, "after_val_epoch", unmeasured)
    openmmlab.train(camvid)
    run = Path(camvid.work_dir)
    assert not (run / "result.json").exists() and (run / "iter_2.pth").is_file()
    (log,) = run.glob("*/*.log")
    assert "Nothing could be measured on these photos and labels ({'coco/bbox_mAP': -1.0" in log.read_text()


def test_results_tell_on_how_many_photos_they_were_measured(camvid, scenes):
    again = copy.deepcopy(camvid)
    camvid.train_dataloader.dataset.indices = [0, 2, 3]
    openmmlab.train(camvid)
    run = Path(camvid.work_dir)
    result = read_result(run / "result.json")
    assert (result["num_images"], result["data"]) == ([3, 2], scenes("camvid").name)
    again.test_dataloader.dataset.indices = [1]
    openmmlab.evaluate(again, str(run / "iter_2.pth"))
    assert read_result(run / "test_result.json")["num_images"] == [3, 1]
