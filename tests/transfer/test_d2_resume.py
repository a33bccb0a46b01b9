"""Runs of detectron2 that are gone on with: where they stand, what holds from there on, and when they are refused."""

from __future__ import annotations

import json
import resource
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("detectron2")

import torch
from detectron2.config import get_cfg
from detectron2.modeling import GeneralizedRCNN

from slotcon_plugin.engine.batch import BatchPlan
from slotcon_plugin.errors import RunFailedError, UserError
from slotcon_plugin.results import read_result
from slotcon_plugin.transfer import backbone, d2
from slotcon_plugin.transfer.d2_batch import step_of
from slotcon_plugin.transfer.d2_trainer import hold_settings, settings_of

from .d2_configs import CONFIGS, SMALL

CONFIG = str(CONFIGS / "mask_rcnn_r50_fpn_1x_coco.yaml")
LONGER = {
    "SOLVER.MAX_ITER": "3",
    "SOLVER.BASE_LR": "0.001",
    "SOLVER.WEIGHT_DECAY": "0.5",
    "SOLVER.MOMENTUM": "0.7",
}


def options(folder: Path, **changed: str) -> list[str]:
    """Of a run of two steps in ``folder``."""
    return [word for pair in (SMALL | {"OUTPUT_DIR": str(folder)} | changed).items() for word in pair]


@pytest.mark.slow
def test_a_run_goes_on_and_is_evaluated_again(tmp_path, scenes, pretrained):
    data, opts = str(scenes("coco")), partial(options, tmp_path)
    d2.train(CONFIG, opts(), backbone=str(pretrained(18)), data_root=data, pretraining="mine")
    first = read_result(tmp_path / "result.json")
    d2.train(CONFIG, opts(**LONGER), data_root=data, resume=True)
    longer = read_result(tmp_path / "result.json")
    last = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert last["iteration"] == 2  # counted from 0
    settings = last["trainer"]["_trainer"]["optimizer"]["param_groups"][0]  # the config's hold from there on
    assert (settings["initial_lr"], settings["weight_decay"], settings["momentum"]) == (0.001, 0.5, 0.7)
    assert last["trainer"]["hooks"]["LRScheduler"]["base_lrs"] == [0.001, 0.001]
    figures = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    rate = [one["lr"] for one in figures if "lr" in one][-1]
    assert rate == pytest.approx(0.001 * 0.067)  # of the only step: two thirds of a warm-up from 0.001 to 0.1
    assert (longer["iterations"], longer["pretraining"]) == (3, "mine")
    assert longer["backbone_sha256"] == first["backbone_sha256"]
    assert longer["wall_time_s"] > first["wall_time_s"]

    as_trained = (tmp_path / "config.yaml").read_bytes()
    weights = {"MODEL.WEIGHTS": str(tmp_path / "model_final.pth"), "OUTPUT_DIR": ""}
    d2.evaluate(CONFIG, opts(**weights), data_root=data)
    tested = read_result(tmp_path / "test_result.json")
    assert tested["metrics"] == longer["metrics"]
    assert first["num_images"] == longer["num_images"] == tested["num_images"] == [4, 2]  # trained on, judged by
    assert (tested["pretraining"], tested["backbone_sha256"]) == ("mine", first["backbone_sha256"])
    assert (tmp_path / "config.yaml").read_bytes() == as_trained

    with pytest.raises(UserError, match="--overwrite"):
        d2.train(CONFIG, opts(), data_root=data)
    with pytest.raises(UserError, match="seed 3, and 4 is asked for"):
        d2.train(CONFIG, opts(SEED="4"), data_root=data, resume=True)
    with pytest.raises(UserError, match=r"its optimiser is another one .*What SOLVER\.OPTIMIZER"):
        d2.train(CONFIG, opts(**{"SOLVER.MAX_ITER": "4", "SOLVER.OPTIMIZER": "AdamW"}), data_root=data, resume=True)
    with pytest.raises(UserError, match=r"doesn't match the size .*MODEL\.BACKBONE\.FREEZE_AT say must"):
        d2.train(CONFIG, opts(**{"SOLVER.MAX_ITER": "4", "MODEL.BACKBONE.FREEZE_AT": "2"}), data_root=data, resume=True)
    with pytest.raises(UserError, match=r"counted in other steps now \(images a step 2 -> 4\)\. Resume with"):
        d2.train(CONFIG, opts(**{"SOLVER.IMS_PER_BATCH": "4"}), data_root=data, resume=True)
    (tmp_path / "test_result.json").unlink()
    (tmp_path / "model_0000009.pth").write_bytes((tmp_path / "model_final.pth").read_bytes()[:1000])
    (tmp_path / "model_final.pth").rename(tmp_path / "model_0000002.pth")
    d2.evaluate(CONFIG, opts(), data_root=data, resume=True)  # the newest is cut short
    assert read_result(tmp_path / "test_result.json")["metrics"] == longer["metrics"]
    weights["MODEL.WEIGHTS"] = str(tmp_path / "model_0000002.pth")
    other = {"MODEL.ROI_HEADS.NUM_CLASSES": "8", "DATASETS.TRAIN": "()", "DATASETS.TEST": "()"}
    with pytest.raises(UserError, match=r"does not hold the model .*predictor.cls_score.weight"):
        d2.evaluate(CONFIG, opts(**weights, **other))


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_order_of_the_photos(tmp_path, scenes, monkeypatch):
    """Its result has the figures of every set that it was tested on; what it freezes is the backbone's alone."""
    data = str(scenes("coco"))
    changed = {
        "MODEL.BACKBONE.FREEZE_AT": "2",
        "TEST.PRECISE_BN.ENABLED": "False",
        "SOLVER.MAX_ITER": "4",
        "SOLVER.CHECKPOINT_PERIOD": "2",
        "DATASETS.TEST": "('coco_2017_val', 'coco_2017_train')",
    }
    seen, said = [], []
    whole_forward = GeneralizedRCNN.forward

    def forward(model, photos):
        if model.training:
            seen.append([photo["image_id"] for photo in photos])
            if len(seen) == stop:
                raise RuntimeError("a power cut")
        return whole_forward(model, photos)

    monkeypatch.setattr(GeneralizedRCNN, "forward", forward)
    monkeypatch.setattr(backbone, "print_log", lambda text, *_: said.append(text))

    def train(name: str, **given) -> list:
        seen.clear()
        opts = options(tmp_path / name, **changed)
        d2.train(CONFIG, opts, data_root=data, pretraining="random", images_per_gpu=1, **given)
        return list(seen)

    stop = None
    unbroken = train("unbroken")
    assert said[0].startswith("The parameters of stem, res2 and the statistics of 5 of 20 norm layers in the backbone")
    result = read_result(tmp_path / "unbroken/result.json")
    assert {"AP_box/coco_2017_val", "AP_box/coco_2017_train"} <= result["metrics"].keys()
    assert result["num_images"] == [4, 6]
    stop = 5  # two passes a step
    with pytest.raises(RuntimeError, match="a power cut"):
        train("broken")
    stop = None
    assert train("broken", resume=True) == unbroken[4:]


def test_a_full_disk_is_told_in_a_sentence(tmp_path, scenes, monkeypatch):
    def launch(*_) -> None:
        with small_files_only(), open(tmp_path / "model.pth", "wb") as file:
            torch.save(torch.zeros(1 << 20), file)

    monkeypatch.setattr(d2, "_launch", launch)
    with pytest.raises(RunFailedError, match=rf"written to the work dir {tmp_path / 'run'}: .*File too large"):
        d2.train(CONFIG, options(tmp_path / "run"), data_root=str(scenes("coco")))


@contextmanager
def small_files_only():
    """No file of more than a megabyte: what a full disk is to torch.save."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_position_is_counted_in_the_images_of_a_step_here():
    """detectron2 scales the batch in its trainer, on a config of its own."""
    cfg = get_cfg()
    cfg.SOLVER.IMS_PER_BATCH = 16
    assert step_of(cfg, BatchPlan(2, 1, 0.5, ""))["images a step"] == 8
    assert step_of(cfg, BatchPlan(2, 8, 1.0, ""))["images a step"] == 16


def test_a_resumed_run_does_not_start_from_random_weights(tmp_path, scenes):
    with pytest.raises(UserError, match=r"no checkpoint in .*, and no --backbone"):
        d2.train(CONFIG, ["OUTPUT_DIR", str(tmp_path)], data_root=str(scenes("coco")), resume=True)


@pytest.mark.slow
def test_a_run_that_has_made_its_steps_keeps_its_files(tmp_path, scenes):
    """Its result and its config would tell of another run than its weights are from."""
    data, run = str(scenes("coco")), tmp_path / "run"
    d2.train(CONFIG, options(run), data_root=data)
    left = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def resume(**changed: str) -> None:
        d2.train(CONFIG, options(run, **changed), data_root=data, resume=True)

    with pytest.raises(UserError, match=r"has made 2 steps, and SOLVER\.MAX_ITER asks for 1\. Give the length"):
        resume(**{"SOLVER.MAX_ITER": "1", "SOLVER.STEPS": "()"})
    resume(**{"SOLVER.BASE_LR": "0.5"})
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == left

    first = read_result(run / "result.json")
    (run / "result.json").unlink()  # it was ended before it was measured
    resume()
    assert (run / "config.yaml").read_bytes() == left[run / "config.yaml"]
    again = read_result(run / "result.json")
    assert (again["metrics"], again["iterations"], again["num_images"]) == (first["metrics"], 2, [4, 2])
    assert again["wall_time_s"] > 0


def test_another_optimiser_does_not_go_on_with_the_state_of_a_former_one():
    weights = [torch.nn.Parameter(torch.zeros(1))]
    former, now = torch.optim.AdamW(weights), torch.optim.SGD(weights)
    with pytest.raises(UserError, match=r"SOLVER\.OPTIMIZER must be as when the run was started"):
        hold_settings(former, None, settings_of(now))
