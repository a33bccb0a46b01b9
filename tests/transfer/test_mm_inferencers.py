"""What a run on labels of one's own names, and leaves for the frameworks' own functions to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slotcon_plugin.transfer import openmmlab
from slotcon_plugin.transfer.checkpoint import write_model
from tests.processes import run_python

from .conftest import CONFIGS, load
from .own_labels import change
from .shrink import shrink

OWN = ["mmdet/rcnn_r18_fpn_own", "mmdet/rcnn_lite0_fpn_own", "mmseg/fpn_r18_own", "mmseg/fcn_lite0_own"]
# in processes of their own: in this one other tests have made modules known
DETECT = """
from mmdet.apis import DetInferencer, inference_detector, init_detector
model = init_detector({config!r}, {weights!r}, device="cpu")
print(sorted(inference_detector(model, {photo!r}).pred_instances.keys()), model.dataset_meta["classes"])
found = DetInferencer({config!r}, {weights!r}, device="cpu", show_progress=False)({photo!r})["predictions"][0]
print(sorted(found))
"""
SEGMENT = """
from mmseg.apis import MMSegInferencer, inference_model, init_model
model = init_model({config!r}, {weights!r}, device="cpu")
print(tuple(inference_model(model, {photo!r}).pred_sem_seg.data.shape), len(model.dataset_meta["classes"]))
found = MMSegInferencer({config!r}, {weights!r}, device="cpu")({photo!r}, return_vis=True)
print(found["predictions"].shape, found["visualization"].shape)
"""
BUILD = """
import json, sys
from mmengine.config import Config
from mmengine.registry import METRICS
from slotcon_plugin.config import apply_options
from slotcon_plugin.transfer import openmmlab
for file, root in zip(sys.argv[2::2], sys.argv[3::2]):
    cfg = Config.fromfile(file)
    apply_options(cfg, json.loads(sys.argv[1]))
    openmmlab._prepare(cfg, root)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    loader = openmmlab._TransferRunner.build_dataloader(cfg.train_dataloader)
    with METRICS.switch_scope_and_registry(cfg.default_scope) as registry:
        judge = registry.build(cfg.val_evaluator)
    print(file, type(loader.dataset.pipeline.transforms[0]).__name__, type(judge).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "use", "expected"),
    [
        (
            "mmdet/rcnn_r18_fpn_own",
            DETECT,
            ["['bboxes', 'labels', 'masks', 'scores'] ('crate', 'ball')", "['bboxes', 'labels', 'masks', 'scores']"],
        ),
        ("mmseg/fcn_lite0_own", SEGMENT, ["(1, 120, 160) 11", "(120, 160) (120, 160, 3)"]),
    ],
)
def test_the_frameworks_functions_take_what_a_run_leaves(name, use, expected, boxes, scenes, tmp_path):
    """Its copy of the config and its weights; the photos were read by LoadPhoto all the same."""
    root = boxes if name.startswith("mmdet") else scenes("camvid")
    cfg = shrink(load(name))
    cfg.work_dir, cfg.launcher = str(tmp_path / "run"), "none"
    runner = openmmlab.train(cfg, data_root=str(root))
    for loader in (runner.train_dataloader, runner.val_dataloader):
        assert type(loader.dataset.pipeline.transforms[0]).__name__ == "LoadPhoto"
    write_model(tmp_path / "run/iter_2.pth", tmp_path / "run/model.pth")
    config = tmp_path / f"run/{Path(name).name}.py"
    assert "LoadPhoto" not in config.read_text()
    photo = sorted((root / "images/val").iterdir())[0]
    words = {"config": str(config), "weights": str(tmp_path / "run/model.pth"), "photo": str(photo)}
    told = run_python("-c", use.format(**words), cwd=tmp_path)
    found = [line for line in told.stdout.splitlines() if line in expected]  # between warnings and bars of progress
    assert found == expected, told.stdout[-1000:] + told.stderr[-2000:]


def test_a_config_that_inherits_needs_no_more_than_the_one_import(boxes, scenes, tmp_path):
    words = ["{}"]
    for name in OWN:
        file = tmp_path / f"my_{Path(name).name}.py"
        file.write_text(
            f"_base_ = {str(CONFIGS / name)!r} + '.py'\ncustom_imports = dict(imports=['slotcon_plugin'])\n"
        )
        words += [str(file), str(boxes if name.startswith("mmdet") else scenes("camvid"))]
    told = run_python("-c", BUILD, *words, cwd=tmp_path)
    found = [line.split()[1:] for line in told.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert found == [["LoadPhoto", "OwnCocoMetric"]] * 2 + [["LoadPhoto", "IoUMetric"]] * 2, told.stderr[-2000:]


def test_what_is_advised_about_a_truth_that_cannot_be_judged_is_to_be_had(boxes, tmp_path):
    """With a config that does not know data of one's own; null is what a tool writes that has no crowds."""
    change(boxes, "val", lambda found: [one.update(iscrowd=None) for one in found["annotations"]])
    file = tmp_path / "mine.py"
    base = CONFIGS / "mmdet/mask_rcnn_r18_fpn_coco_small.py"
    split = "dict(dataset=dict(data_root='?', ann_file='annotations/{0}.json', data_prefix=dict(img='images/{0}'), "
    split += "metainfo=dict(classes=('crate', 'ball'))))"
    heads = "dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2))"
    lines = [
        f"_base_ = {str(base)!r}",
        f"model = dict(roi_head={heads})",
        f"train_dataloader = {split.format('train')}",
    ]
    lines += [f"{part}_dataloader = {split.format('val')}" for part in ("val", "test")]
    lines += [f"{part}_evaluator = dict(ann_file='?/annotations/val.json')" for part in ("val", "test")]
    file.write_text("\n".join(lines) + "\n")
    told = run_python("-c", BUILD, "{}", file, boxes, cwd=tmp_path)
    assert "let val_evaluator.type and test_evaluator.type be OwnCocoMetric" in told.stderr
    advised = {f"{part}_evaluator.type": "OwnCocoMetric" for part in ("val", "test")}
    told = run_python("-c", BUILD, json.dumps(advised), file, boxes, cwd=tmp_path)
    assert told.stdout.splitlines()[-1:] == [f"{file} LoadImageFromFile OwnCocoMetric"], told.stderr[-2000:]
