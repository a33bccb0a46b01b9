"""What every pretrainer owes: its declaration, its options, one batch object through mmengine and DDP."""

import io

import pytest
import torch
import torch.distributed as dist
from mmengine.config import ConfigDict
from mmengine.model import MMDistributedDataParallel
from torch import nn

from slotcon_plugin.data import TwoViewPreprocessor
from slotcon_plugin.declaration import PRETRAINING_KEY
from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models import BasePretrainer, Method, MLPHead, SlotCon, VADeR
from slotcon_plugin.models.build import plain

BACKBONE = dict(type="slotcon_plugin.TorchvisionResNet", depth=18)


class Mean(BasePretrainer):
    """The least that a pretrainer can be: its loss is the mean of what the batch holds."""

    method = Method("mean", "Mean", transfers="student")

    def __init__(self, backbone=BACKBONE, **kwargs):
        super().__init__(**kwargs)
        backbone, _, _ = self.build_backbone(backbone)
        self.set_branches(nn.ModuleDict({"backbone": backbone}), teacher_parts=("backbone",))

    def loss(self, batch):
        assert type(batch) is TwoViewBatch
        seen = [self.extract_features(view, "student")[-1].mean() for view in batch.views]
        return {"loss_mean": sum(seen), "boxes": batch.crop_boxes.mean(), "index": batch.sample_index.float().mean()}


def slotcon(**changes):
    heads = dict(projector=dict(hidden_channels=8, out_channels=8), predictor=dict(hidden_channels=8))
    return SlotCon(**{"backbone": BACKBONE, **heads, "grouping": dict(num_prototypes=4), **changes})


def declared_by(model):
    """As a reader of the file gets it, who loads nothing but plain data."""
    checkpoint = {}
    model.declare(checkpoint)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    return torch.load(file, weights_only=True)[PRETRAINING_KEY]


def test_a_checkpoint_says_what_wrote_it():
    backbone = ConfigDict(BACKBONE, zero_init_residual=True)
    assert declared_by(slotcon(backbone=backbone, data_preprocessor=TwoViewPreprocessor(std=(0.5, 0.5, 0.5)))) == {
        "method": "slotcon",
        "title": "SlotCon",
        "branch": "teacher",
        "groups": True,
        "embeds_pixels": False,
        "colour_order": "RGB",
        "mean": [123.675, 116.28, 103.53],
        "std": [127.5, 127.5, 127.5],
        "backbone": {"type": "slotcon_plugin.TorchvisionResNet", "depth": 18, "zero_init_residual": True},
        "photos": None,
        "init": None,
    }
    vader = declared_by(VADeR(BACKBONE, dict(fpn_channels=8, channels=8), queue_size=4))
    assert (vader["method"], vader["groups"], vader["embeds_pixels"]) == ("vader", False, True)
    assert declared_by(Mean())["branch"] == "student"


def test_a_run_chooses_the_branch_that_is_transferred():
    model = slotcon(transfer_branch="student")
    assert declared_by(model)["branch"] == "student"
    checkpoint = {}
    model.declare(checkpoint)
    for chosen, branch in ((None, "student"), ("teacher", "teacher")):  # what is said now wins over the checkpoint's
        model = slotcon(transfer_branch=chosen)
        model.recall(checkpoint)
        assert declared_by(model)["branch"] == branch
    with pytest.raises(UserError, match="transfer_branch must be 'teacher' or 'student', got 'both'"):
        slotcon(transfer_branch="both")


def test_a_preprocessor_that_does_not_say_what_it_feeds_is_not_guessed():
    assert not {"colour_order", "mean", "std"} & declared_by(Mean()).keys()


def test_configs_become_plain_data():
    config = ConfigDict(type=MLPHead, widths=(1, 2), inner=dict(a=None, b=[ConfigDict(c=0.5)]))
    assert plain(config) == {"type": "MLPHead", "widths": [1, 2], "inner": {"a": None, "b": [{"c": 0.5}]}}
    assert type(plain(config)["inner"]["b"][0]) is dict


def test_a_pretrainer_without_a_declaration_cannot_be_built():
    class Nameless(BasePretrainer):
        def loss(self, batch):
            return {}

    with pytest.raises(TypeError, match="method"):
        Nameless()


def test_what_a_method_cannot_do_is_refused():
    model = Mean()
    with pytest.raises(UserError, match=r"groups\.py needs a method with prototypes .*; Mean has none"):
        model.require("groups", "groups.py")
    with pytest.raises(UserError, match="dense embedding"):
        model.require("embeds_pixels", "retrieval")
    slotcon().require("groups", "groups.py")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(projector=dict(in_channels=100)), r"model\.projector\.in_channels=100 cannot be.* 512"),
        (dict(projector=dict(dims=0)), r"model\.projector\.dims"),
        (dict(predictor=dict(dims=2)), r"model\.predictor\.dims"),
        (dict(predictor=dict(out_channels=16)), r"model\.predictor\.out_channels"),
        (dict(grouping=dict(channels=99)), r"model\.grouping\.channels"),
        (dict(center=dict(num_prototypes=99)), r"model\.center\.num_prototypes"),
    ],
)
def test_options_that_would_be_overwritten_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        slotcon(**change)


def test_options_that_say_what_holds_anyway_are_taken():
    slotcon(projector=dict(in_channels=512, hidden_channels=8, out_channels=8))
    decoder = dict(fpn_channels=8, channels=8, in_channels=[64, 128, 256, 512], strides=(4, 8, 16, 32))
    VADeR(BACKBONE, decoder, queue_size=4)
    with pytest.raises(UserError, match=r"model\.decoder\.strides"):
        VADeR(BACKBONE, {**decoder, "strides": (2, 4, 8, 16)}, queue_size=4)


def kinds(head):
    return [type(layer).__name__ for layer in head.layers]


def test_a_head_has_the_norm_and_the_activation_that_are_asked_for():
    assert kinds(MLPHead(4, 4, 4, 2)) == ["Conv2d", "BatchNorm2d", "GELU", "Conv2d"]
    assert kinds(MLPHead(4, 4, 4, 2, dims=0, norm=None, activation="ReLU")) == ["Linear", "ReLU", "Linear"]
    assert kinds(MLPHead(4, 4, 4, 2, activation=None)) == ["Conv2d", "BatchNorm2d", "Conv2d"]
    assert kinds(MLPHead(4, 4, 4, 3, norm=None, activation=None, norm_last=True)) == ["Conv2d"] * 3 + ["BatchNorm2d"]
    for wrong in (dict(norm="Batch"), dict(activation="Linear"), dict(num_layers=0), dict(dims=1)):
        with pytest.raises(UserError, match="MLPHead"):
            MLPHead(4, **wrong)


def two_views(size=4):
    return TwoViewBatch(
        views=tuple(torch.randn(size, 3, 32, 32) for _ in range(2)),
        crop_boxes=torch.tensor([[[0.0, 0, 9, 9]] * 2] * size),
        flipped=torch.zeros(size, 2, dtype=torch.bool),
        sample_index=torch.arange(size),
    )


def test_one_batch_object_from_the_preprocessor_to_the_loss():
    """Through mmengine's own dispatch, of the model and of its wrapper for several processes."""
    torch.manual_seed(0)
    model, batch = Mean().eval(), two_views()
    want = model.loss(batch)
    assert want["index"].item() == 1.5
    for result in (model(batch, mode="loss"), model._run_forward({"inputs": batch}, mode="loss")):
        assert {name: value.item() for name, value in result.items()} == {k: v.item() for k, v in want.items()}
    assert len(model(batch.views[0])) == 4
    with pytest.raises(ValueError, match="knows mode"):
        model(batch, mode="predict")


def test_the_batch_goes_through_ddp(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model, batch = Mean().eval(), two_views()
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
        result = wrapped._run_forward({"inputs": batch}, mode="loss")
        assert result["loss_mean"].item() == pytest.approx(model.loss(batch)["loss_mean"].item())
        result["loss_mean"].backward()
        assert all(p.grad is not None for p in model.student.parameters())
    finally:
        dist.destroy_process_group()


class Pair(Mean):
    """Two parts that share a layer, in a teacher too."""

    def set_branches(self, student, teacher_parts):
        layer = nn.Linear(2, 2)
        student.update({"one": layer, "two": layer})
        super().set_branches(student, (*teacher_parts, "one", "two"))


def test_parts_may_share_weights():
    model = Pair(teacher_momentum=0.5, teacher_momentum_schedule="constant")
    torch.nn.init.zeros_(model.teacher["two"].weight), torch.nn.init.ones_(model.student["one"].weight)
    model.update_teacher()
    assert (model.teacher["two"].weight == 0.5).all()


@pytest.mark.parametrize(("parts", "teacher_parts"), [(("backbone",), ()), (("body",), ("body",))])
def test_both_branches_need_a_backbone(parts, teacher_parts):
    class Odd(Mean):
        def set_branches(self, student, **_):
            super().set_branches(nn.ModuleDict(dict.fromkeys(parts, student["backbone"])), teacher_parts)

    with pytest.raises(UserError, match=r"Odd\.set_branches: student and teacher_parts need a 'backbone'"):
        Odd()
