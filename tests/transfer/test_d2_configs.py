"""detectron2: the recipe against the model zoo's, and every config run on demo scenes."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("detectron2")

import torch
from detectron2 import model_zoo
from detectron2.modeling import build_model

from slotcon_plugin.convert import read_checkpoint
from slotcon_plugin.errors import UserError
from slotcon_plugin.results import read_result
from slotcon_plugin.transfer import d2
from slotcon_plugin.transfer.backbone import frozen_parts
from slotcon_plugin.transfer.d2_config import base_config, read_config
from slotcon_plugin.transfer.d2_start import use_backbone
from slotcon_plugin.transfer.d2_trainer import backbone_weights, check_backbone_arrived

from .d2_configs import CONFIGS, OF_TIMM, TINY, d2_config, flat, load

LAYOUT = {
    "mask_rcnn_r50_fpn_1x_coco": "coco",
    "mask_rcnn_r50_c4_1x_coco": "coco",
    "mask_rcnn_r50_fpn_cityscapes": "cityscapes",
}

SYNC_BN = {"MODEL.RESNETS.NORM": "SyncBN"}
ALL = {
    **SYNC_BN,
    "MODEL.WEIGHTS": "",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
    "TEST.PRECISE_BN.ENABLED": True,
}
FPN = {
    **ALL,
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
    "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
}
# our config -> (the model zoo's, all that differs and its value here)
RECIPES = {
    "mask_rcnn_r50_fpn_1x_coco": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", FPN),
    "mask_rcnn_r50_fpn_2x_coco": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        {**FPN, "SOLVER.MAX_ITER": 180000, "SOLVER.STEPS": (120000, 160000)},
    ),
    "mask_rcnn_r50_c4_1x_coco": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
        {**ALL, "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm"},
    ),
    "mask_rcnn_r50_fpn_cityscapes": ("Cityscapes/mask_rcnn_R_50_FPN.yaml", FPN),
}


def test_every_config_has_its_recipe():
    assert {p.stem for p in CONFIGS.glob("mask*.yaml")} == {*RECIPES, *OF_TIMM}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_differs_from_the_model_zoo_in_this_and_nothing_else(name):
    base_name, expected = RECIPES[name]
    base, ours = flat(base_config()) | flat(model_zoo.get_config(base_name)), flat(load(name))
    assert {key: ours[key] for key in ours if ours[key] != base[key]} == expected
    assert set(ours) == set(base)


def test_1x_has_the_papers_schedule():
    solver = load("mask_rcnn_r50_fpn_1x_coco").SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER, solver.STEPS) == (16, 0.02, 90000, (60000, 80000))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUT)
def test_config_trains_from_a_pretraining_checkpoint(name, tmp_path, scenes, pretrained):
    checkpoint = pretrained(50)
    opts = [word for pair in TINY.items() for word in pair] + ["OUTPUT_DIR", str(tmp_path)]
    d2.train(str(CONFIGS / f"{name}.yaml"), opts, backbone=str(checkpoint), data_root=str(scenes(LAYOUT[name])))

    teacher = read_checkpoint(checkpoint)
    result = read_result(tmp_path / "result.json")
    assert result["backbone_sha256"] == teacher.meta["backbone_sha256"]
    assert (result["pretraining"], result["seed"], result["iterations"]) == ("slotcon", 3, 2)
    assert result["task"] == f"detectron2_{name}"
    assert {"AP_mask", "AP50_mask"} <= set(result["metrics"])
    assert all(0 <= value <= 100 for value in result["metrics"].values())

    model = d2.TransferTrainer.build_model(d2_config(name))
    model.load_state_dict(torch.load(tmp_path / "model_final.pth", weights_only=True)["model"])
    for key, value in backbone_weights(model).items():
        if key.endswith("conv1.weight"):
            assert not torch.equal(value, teacher.state_dict[key]), f"{key} is frozen"


@pytest.mark.parametrize(
    ("weights", "message"),
    [("", "--eval-only needs the model to evaluate"), ("pretrained", r"does not hold the model .*checkpoint has none")],
)
def test_what_is_no_detector_is_not_evaluated(weights, message, tmp_path, scenes, pretrained):
    weights = str(pretrained(50)) if weights else ""
    with pytest.raises(UserError, match=message):
        d2.evaluate(
            str(CONFIGS / "mask_rcnn_r50_fpn_1x_coco.yaml"),
            ["OUTPUT_DIR", str(tmp_path), "MODEL.WEIGHTS", weights],
            data_root=str(scenes("coco")),
        )
    assert not any(tmp_path.iterdir())


def test_weights_in_a_work_dir_that_would_be_set_aside_are_refused(tmp_path, scenes, pretrained):
    given = shutil.copy(pretrained(50), tmp_path / "model_0000001.pth")
    with pytest.raises(UserError, match=r"would set .* aside, and the weights to start from, .* lie in it: give"):
        d2.train(
            str(CONFIGS / "mask_rcnn_r50_fpn_1x_coco.yaml"),
            ["OUTPUT_DIR", str(tmp_path), "MODEL.WEIGHTS", str(given)],
            data_root=str(scenes("coco")),
            overwrite=True,
        )
    assert given.exists()


def test_detectron2s_default_freezing_is_noticed():
    cfg = d2_config("mask_rcnn_r50_fpn_1x_coco")
    assert frozen_parts(build_model(cfg).train().backbone) == ""
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    frozen = frozen_parts(build_model(cfg).train().backbone.bottom_up)
    assert frozen == "the parameters of stem, res2 and the statistics of 11 of 53 norm layers"


def test_precise_bn_sees_no_more_images_at_once_than_a_pass(monkeypatch):
    """It averages over as many images as the recipe's: 200 x 16."""
    cfg = d2_config("mask_rcnn_r50_fpn_1x_coco")
    cfg.MODEL.RESNETS.NORM, cfg.DATALOADER.NUM_WORKERS = "BN", 0
    seen = []
    trainer = object.__new__(d2.TransferTrainer)
    trainer.cfg, trainer.passes = cfg, 8
    monkeypatch.setattr(d2.TransferTrainer, "build_train_loader", lambda _, cfg: seen.append(cfg.SOLVER.IMS_PER_BATCH))
    trainer.max_iter = 1
    trainer._trainer = SimpleNamespace(model=torch.nn.BatchNorm2d(4), optimizer=None)
    trainer.checkpointer, trainer.scheduler = SimpleNamespace(path_manager=None), None
    monkeypatch.setattr(trainer, "build_writers", list)
    precise = next(hook for hook in trainer.build_hooks() if type(hook).__name__ == "PreciseBN")
    assert (seen, precise._num_iter) == ([2], 8 * 200)
    assert trainer.cfg is cfg and cfg.SOLVER.IMS_PER_BATCH == 16


def test_c4_head_ends_with_a_norm_of_its_own():
    head = d2.TransferTrainer.build_model(d2_config("mask_rcnn_r50_c4_1x_coco")).roi_heads.res5
    assert list(dict(head.named_children())) == ["0", "1", "2", "norm"]
    assert head.norm.num_features == 2048


def test_a_retinanet_starts_from_a_pretraining_checkpoint(tmp_path, pretrained):
    cfg = d2_config("mask_rcnn_r50_fpn_1x_coco")
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.MASK_ON", False, "OUTPUT_DIR", str(tmp_path)])
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.update(DEPTH=18, RES2_OUT_CHANNELS=64, OUT_FEATURES=["res3", "res4", "res5"])
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    origin = use_backbone(cfg, str(pretrained(18)), None)
    model = build_model(cfg)
    d2.DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    check_backbone_arrived(model, origin)


@pytest.mark.parametrize("mixed", [False, True])
def test_an_accumulated_step_is_the_step_of_the_whole_batch(mixed):
    """Without BatchNorm, two passes of two samples move the weights as one pass of four does."""
    from detectron2.engine import AMPTrainer, SimpleTrainer
    from detectron2.utils.events import EventStorage

    from slotcon_plugin.transfer.d2_trainer import AccumulatingTrainer

    class Model(torch.nn.Linear):
        def forward(self, batch):
            out = super().forward(torch.stack(batch))
            assert out.dtype == (torch.bfloat16 if mixed else torch.float32)
            return {"loss": out.float().square().mean()}

    data = list(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    weights = []
    for passes in (1, 2, 4):
        torch.manual_seed(1)
        model = Model(3, 2)
        settings = (model, [data], torch.optim.SGD(model.parameters(), 0.1))
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        whole = (
            AMPTrainer(*settings, grad_scaler=scaler, precision=torch.bfloat16) if mixed else SimpleTrainer(*settings)
        )
        trainer = AccumulatingTrainer(whole, passes)
        trainer.iter = 0
        before = model.weight.detach().clone()
        with EventStorage():
            trainer.run_step()
        assert not torch.equal(model.weight, before)
        assert trainer.state_dict().get("grad_scaler", {}).get("scale") == (8.0 if mixed else None)
        trainer.load_state_dict(trainer.state_dict())
        weights.append(model.weight.detach())
    tolerance = dict(rtol=0, atol=2e-3) if mixed else {}  # gradients of bfloat16 passes, summed
    torch.testing.assert_close(weights[1], weights[0], **tolerance)
    torch.testing.assert_close(weights[2], weights[0], **tolerance)


def test_cityscapes_ground_truth_has_an_ap_of_100(scenes, tmp_path, monkeypatch):
    from cityscapesscripts.helpers.labels import id2label
    from detectron2.structures import Instances

    from slotcon_plugin.transfer.d2_evaluation import build_evaluator

    numpys_own = vars(np).get("in1d")
    cfg, root = load("mask_rcnn_r50_fpn_cityscapes"), scenes("cityscapes")
    d2.relocate(cfg, root)
    monkeypatch.chdir(tmp_path)
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluator = build_evaluator(cfg, cfg.DATASETS.TEST[0])
    evaluator.reset()
    things = evaluator._metadata.thing_classes
    for truth in sorted((root / "gtFine/val").glob("*/*_gtFine_instanceIds.png")):
        ids = torch.from_numpy(np.asarray(Image.open(truth)).astype(np.int64))
        found = [i for i in ids.unique().tolist() if i >= 1000 and id2label[i // 1000].name in things]
        instances = Instances(tuple(ids.shape))
        instances.pred_masks = torch.stack([ids == i for i in found])
        instances.pred_classes = torch.tensor([things.index(id2label[i // 1000].name) for i in found])
        instances.scores = torch.ones(len(found))
        image = truth.name.replace("_gtFine_instanceIds", "_leftImg8bit")
        evaluator.process([{"file_name": image}], [{"instances": instances}])
    assert evaluator.evaluate() == {"segm": {"AP": 100.0, "AP50": 100.0}}
    assert not any(tmp_path.iterdir())
    assert vars(np).get("in1d") is numpys_own  # a name is lent to cityscapesscripts


def test_metrics_have_one_naming():
    from math import nan

    from slotcon_plugin.transfer.d2_evaluation import tidy_metrics

    boxes = {"AP": 41.0, "AP50": 61.25, "APs": nan, "AP-car": 50.0}
    masks = {"AP": nan, "AP50": nan, "APl": nan}  # nothing was detected
    tidy = tidy_metrics({"bbox": boxes, "segm": masks})
    assert tidy_metrics({"val": {"bbox": boxes}, "test": {"segm": masks}}) == {
        "AP_box/val": 41.0,
        "AP50_box/val": 61.25,
        "AP_mask/test": 0.0,
        "AP50_mask/test": 0.0,
    }
    assert tidy == {"AP_box": 41.0, "AP50_box": 61.25, "AP_mask": 0.0, "AP50_mask": 0.0}


def test_a_folder_that_is_given_is_taken_whatever_its_name(scenes):
    yaml, data = str(CONFIGS / "mask_rcnn_r50_fpn_1x_coco.yaml"), str(scenes("coco"))
    assert read_config(yaml, [], data)[0].OUTPUT_DIR == ""
    assert read_config(yaml, ["OUTPUT_DIR", "./output"], data)[0].OUTPUT_DIR == "./output"


def test_configs_of_others_are_told_their_tool(tmp_path):
    (tmp_path / "fcn.py").write_text("model = dict()")
    with pytest.raises(UserError, match=r"mmdet's and mmseg's are for tools/train\.py"):
        read_config(str(tmp_path / "fcn.py"), [], None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_root": "nowhere"}, "nowhere/annotations/instances_train2017.json does not exist. Expected: "),
        ({"opts": ["MODEL.ROI_HEADS.NUM_CLASSES", "20"]}, "NUM_CLASSES is 20, coco_2017_train has 80 classes"),
        ({"opts": ["MODEL.PIXEL_STD", "[1.0,1.0,1.0]"]}, r"std: the weights want \[58.395"),
        ({"opts": ["INPUT.FORMAT", "BGR"]}, "colour_order: the weights want RGB, the config has BGR"),
        ({"backbone": "nowhere.pth"}, "no such file: nowhere.pth"),
        ({"backbone": None, "pretraining": "slotcon"}, "no backbone is given"),
        ({"opts": ["MODEL.RESNETS.DEPTH", "101"]}, "wants ResNet-101, the checkpoint is ResNet-50"),
        ({"images_per_gpu": 3}, "cannot be made of 1 process x 3 images"),
        ({"opts": ["DATASETS.TRAIN", "()"]}, "DATASETS.TRAIN is empty"),
        ({"opts": ["SOLVER.MAX_ITER", "9", "SOLVER.STEPS", "(9,)"]}, r"SOLVER.STEPS \(9,\) has SOLVER.MAX_ITER in it"),
    ],
)
def test_errors_say_what_to_do_and_leave_a_used_folder_as_it_is(arguments, message, tmp_path, scenes, pretrained):
    former = tmp_path / "run/model_0000001.pth"
    former.parent.mkdir()
    former.write_bytes(b"of weeks")
    given = {"backbone": str(pretrained(50)), "data_root": str(scenes("coco")), **arguments}
    opts = ["OUTPUT_DIR", str(former.parent), "MODEL.DEVICE", "cpu", *given.pop("opts", [])]
    with pytest.raises(ValueError, match=message):
        d2.train(str(CONFIGS / "mask_rcnn_r50_fpn_1x_coco.yaml"), opts, overwrite=True, **given)
    assert former.read_bytes() == b"of weeks" and not list(tmp_path.glob("run.old*"))
