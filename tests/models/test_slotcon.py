"""The whole algorithm against a slow one written from the paper's equations, and what must hold around it."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.ops import roi_align

from slotcon_plugin.data.crops import CropPairSampler
from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models import Center, MLPHead, SemanticGrouping, SlotCon, TimmBackbone, TorchvisionResNet
from slotcon_plugin.models.grouping_head import GroupingObjective


def build(**changes) -> SlotCon:
    torch.manual_seed(0)
    return SlotCon(
        **{
            "backbone": {"type": "TorchvisionResNet", "depth": 18},
            "projector": {"hidden_channels": 32, "out_channels": 16},
            "predictor": {"hidden_channels": 32},
            "grouping": {"num_prototypes": 8},
            **changes,
        }
    )


def batch(size: int = 3, side: int = 64, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    views = tuple(torch.randn(size, 3, side, side, generator=generator) for _ in range(2))
    boxes = torch.tensor([[[0.0, 0, 100, 80], [20, 10, 90, 100]], [[5, 5, 60, 60], [0, 0, 80, 80]]])
    crop_boxes = boxes.repeat(size // 2 + 1, 1, 1)[:size]
    flipped = torch.tensor([[False, True], [True, True], [False, False]]).repeat(size // 3 + 1, 1)[:size]
    return TwoViewBatch(views, crop_boxes, flipped, torch.arange(size))


def slow_loss(model: SlotCon, batch: TwoViewBatch, group_loss_weight: float = 0.5) -> tuple[float, float, float]:
    """Sections 3.2 and 3.3 with loops; BatchNorm layers are taken from the model, one forward a view and branch.

    The third is ``log K - H`` of the student's mean assignment, without a weight.
    """
    views, crop_boxes, flipped, _ = batch

    def project(parts, view):
        return parts["projector"](parts["backbone"](view)[-1])

    def logits_and_slots(z, prototypes):
        logits = torch.einsum("kd,bdhw->bkhw", F.normalize(prototypes, dim=1), F.normalize(z, dim=1))
        attention = (logits / 0.07).softmax(1)
        slots = torch.stack(
            [
                torch.stack(
                    [(attention[b, k] * z[b]).sum((1, 2)) / attention[b, k].sum() for k in range(len(prototypes))]
                )
                for b in range(len(z))
            ]
        )
        return logits, slots

    student = [logits_and_slots(project(model.student, v), model.student["grouping"].prototypes) for v in views]
    teacher = [logits_and_slots(project(model.teacher, v), model.teacher["grouping"].prototypes) for v in views]

    def align(logits, b, i):
        mine, other = crop_boxes[b, i], crop_boxes[b, 1 - i]
        x0, y0, x1, y1 = max(mine[0], other[0]), max(mine[1], other[1]), min(mine[2], other[2]), min(mine[3], other[3])
        w, h = mine[2] - mine[0], mine[3] - mine[1]
        left, right = (x0 - mine[0]) / w, (x1 - mine[0]) / w
        if flipped[b, i]:
            left, right = 1 - right, 1 - left
        side = logits.shape[-1]
        roi = torch.tensor([[0, left, (y0 - mine[1]) / h, right, (y1 - mine[1]) / h]]) * torch.tensor(
            [1.0] + [side] * 4
        )
        out = roi_align(logits[b : b + 1], roi, side, aligned=True)[0]
        return out.flip(-1) if flipped[b, i] else out

    group = slot = 0.0
    for i, j in ((0, 1), (1, 0)):
        terms = []
        for b in range(len(crop_boxes)):
            target = ((align(teacher[j][0], b, j) - model.center.value.view(-1, 1, 1)) / 0.07).softmax(0)
            terms.append(-(target * (align(student[i][0], b, i) / 0.1).log_softmax(0)).sum(0).mean())
        group += torch.stack(terms).mean()
        owners = [
            [set(o.flatten().tolist()) for o in branch[v][0].argmax(1)] for branch, v in ((student, i), (teacher, j))
        ]
        queries, positives, keys, names = [], [], [], []
        for b in range(len(crop_boxes)):
            for k in sorted(owners[1][b]):
                names.append((b, k))
                keys.append(teacher[j][1][b, k])
            for k in sorted(owners[0][b] & owners[1][b]):
                queries.append(student[i][1][b, k])
                positives.append((b, k))
        predicted = F.normalize(model.student["predictor"](torch.stack(queries)), dim=1)
        similarity = predicted @ F.normalize(torch.stack(keys), dim=1).T / 0.2
        rows = [-similarity[n].log_softmax(0)[names.index(p)] for n, p in enumerate(positives)]
        slot += torch.stack(rows).mean() * 0.4
    shares = torch.cat([(logits / 0.1).softmax(1).transpose(0, 1).flatten(1) for logits, _ in student], dim=1).mean(1)
    uneven = math.log(len(shares)) + sum(p * math.log(p) for p in shares.tolist())
    return group.item() * group_loss_weight, slot.item() * (1 - group_loss_weight), uneven


def test_loss_equals_the_slow_one():
    model = build(group_loss_weight=0.3, mean_entropy_weight=0.2)
    for p in model.teacher.parameters():
        p.data.mul_(1.1).add_(0.01)  # so that the branches differ
    model.center.value.uniform_(-0.1, 0.1)
    want = slow_loss(copy.deepcopy(model).train(), batch(size=8, side=96), group_loss_weight=0.3)
    got = model.train().loss(batch(size=8, side=96))
    assert model.monitor["num_queries"] > 8
    assert got["loss_group"].item() == pytest.approx(want[0], rel=1e-4)
    assert got["loss_slot"].item() == pytest.approx(want[1], rel=1e-3)
    assert got["loss_mean_entropy"].item() == pytest.approx(0.2 * want[2], rel=1e-3)


@pytest.mark.parametrize("prototypes", [8, 16])  # fewer and more than the nine positions of a map
def test_fixed_shapes_change_nothing(prototypes, monkeypatch):
    results = []
    for fixed in (False, True):
        model = build(grouping={"num_prototypes": prototypes}).train()
        monkeypatch.setattr(GroupingObjective, "_has_fixed_shapes", lambda *_, fixed=fixed: fixed)
        losses = model.loss(batch(size=8, side=96))
        model.parse_losses(losses)[0].backward()
        gradients = {name: p.grad for name, p in model.student.named_parameters()}
        results.append((losses, gradients, dict(model.student["predictor"].named_buffers())))
    for want, got in zip(*results):
        for name, value in want.items():
            atol = 1e-4 * value.detach().float().abs().max().item() + 5e-6  # before a BatchNorm a gradient is noise
            torch.testing.assert_close(got[name], value, rtol=1e-3, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def test_nothing_of_an_objective_waits_for_an_accelerator():
    """Tensors that have a device and no values: what would read a value, or mix devices, fails."""
    model = build()
    with FakeTensorMode(allow_non_fake_inputs=False), torch.device("cuda"):
        z = [torch.randn(3, 16, 3, 3, requires_grad=i < 2) for i in range(4)]
        parts = SemanticGrouping(8, 16), MLPHead(16, 32, 16, dims=0), Center(8)
        groupings = [parts[0](maps) for maps in z]
        losses, monitor = model.objective(
            groupings[:2], groupings[2:], *parts[1:], torch.rand(3, 2, 4), torch.rand(3, 2) < 0.5
        )
    assert {value.device.type for value in (*losses.values(), *monitor.values())} == {"cuda"}


def test_gradient_reaches_every_student_parameter_and_no_teacher_parameter():
    model = build().train()
    loss, _ = model.parse_losses(model.loss(batch()))
    loss.backward()
    assert [name for name, p in model.student.named_parameters() if p.grad is None] == []
    assert [name for name, p in model.teacher.named_parameters() if p.grad is not None or p.requires_grad] == []


def test_identical_views_of_equal_branches_agree():
    model = build(student_temperature=0.07).eval()  # no centring, same temperature: cross-entropy = entropy
    data = batch()
    same = TwoViewBatch(
        views=(data.views[0], data.views[0]),
        crop_boxes=data.crop_boxes[:, :1].repeat(1, 2, 1),
        flipped=torch.zeros_like(data.flipped),
        sample_index=data.sample_index,
    )
    losses = model.loss(same)
    assert losses["loss_group"].item() == pytest.approx(losses["teacher_entropy"].item(), rel=1e-4)


@pytest.mark.parametrize("fixed", [False, True])
def test_a_batch_without_a_common_slot_gives_a_zero_slot_loss_with_gradient(fixed, monkeypatch):
    model = build().train()
    monkeypatch.setattr(GroupingObjective, "_has_fixed_shapes", lambda *_: fixed)
    # every position of the student belongs to prototype 0, every position of the teacher to prototype 1
    for owner, parts in enumerate((model.student, model.teacher)):
        parts["projector"].layers[-1].bias.data.fill_(100.0)
        parts["grouping"].prototypes.data.fill_(-1.0)[owner] = 1.0
    losses = model.loss(batch(size=2))
    assert model.monitor["num_queries"].item() == 0
    assert losses["loss_slot"].item() == 0
    model.parse_losses(losses)[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.student.parameters())
    assert model.student["predictor"].layers[1].num_batches_tracked.item() == 0


def test_teacher_follows_the_cosine_schedule():
    model = build()
    model.total_steps = 4
    for p in model.student.parameters():
        p.data.fill_(1.0)
    for p in model.teacher.parameters():
        p.data.zero_()
    distance = 1.0
    for step in range(1, 5):
        model.update_teacher()
        distance *= 1 - 0.01 * (math.cos(math.pi * step / 4) + 1) / 2
        value = next(model.teacher.parameters()).flatten()[0].item()
        assert value == pytest.approx(1 - distance, rel=1e-4)
    assert model.teacher_steps.item() == 4
    assert model.state_dict()["teacher_steps"].item() == 4


def test_center_moves_once_a_loss():
    model = build().train()
    model.loss(batch())
    assert model.center.value.abs().max() > 0
    before = model.center.value.clone()
    model.group(batch().views[0])
    assert model.center.value.equal(before)


def test_keys_read_as_documented():
    keys = build().state_dict().keys()
    for key in (
        "teacher.backbone.layer1.0.conv1.weight",
        "student.projector.layers.0.weight",
        "student.predictor.layers.6.bias",
        "teacher.grouping.prototypes",
        "center.value",
    ):
        assert key in keys
    assert not any(key.startswith("teacher.predictor") for key in keys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_loss_weight": 1.5}, "group_loss_weight"),
        ({"student_temperature": 0.0}, "temperature"),
        ({"teacher_momentum": 1.2}, "teacher_momentum"),
        ({"backbone": {"type": "TorchvisionResNet", "depth": 19}}, "depth"),
        ({"backbone": {"type": "TimmBackbone", "name": "resnet_fifty"}}, "timm"),
    ],
)
def test_bad_options_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_says_what_it_returns(depth, stride):
    backbone = TorchvisionResNet(depth, stride).eval()
    maps = backbone(torch.zeros(1, 3, 64, 64))
    assert tuple(m.shape[1] for m in maps) == backbone.out_channels
    assert tuple(64 // m.shape[-1] for m in maps) == backbone.strides
    assert backbone.strides[-1] == stride


def test_dilated_resnet_equals_torchvisions():
    from torchvision.models import resnet50

    ours = TorchvisionResNet(50, stride=8, zero_init_residual=False).eval()
    theirs = resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    assert theirs.load_state_dict(ours.state_dict(), strict=False).missing_keys == ["fc.weight", "fc.bias"]
    x = torch.randn(1, 3, 64, 64)
    stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    want = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(stem))))
    assert ours(x)[-1].equal(want)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_timm_backbones_pretrain(name):
    kwargs = {"img_size": 64} if name.startswith("vit") else {}
    model = build(backbone={"type": "TimmBackbone", "name": name, **kwargs}).train()
    loss, _ = model.parse_losses(model.loss(batch(size=2)))
    loss.backward()
    assert torch.isfinite(loss)
    assert isinstance(model.student["backbone"], TimmBackbone)


def test_views_that_may_share_nothing_are_refused():
    model = build()
    for fine in (dict(), dict(min_overlap=0, min_overlap_pixels=1)):
        model.check_data(SimpleNamespace(crops=CropPairSampler(**fine)))
    with pytest.raises(UserError, match="min_overlap is 0"):
        model.check_data(SimpleNamespace(crops=CropPairSampler(min_overlap=0)))
