"""SlotCon with a decoder against loops from the equations, and what must hold around it."""

import copy
import io

import pytest
import torch

from slotcon_plugin.errors import UserError
from slotcon_plugin.models import SlotCon, SlotConDecoder
from slotcon_plugin.models.teacher import rise_and_fall_momentum

from .test_slotcon import batch, slow_loss

SETTINGS = {
    "backbone": {"type": "TorchvisionResNet", "depth": 18},
    "projector": {"hidden_channels": 32, "out_channels": 16},
    "predictor": {"hidden_channels": 32},
    "grouping": {"num_prototypes": 8},
}
SMALL = {"projector": {"hidden_channels": 16}, "grouping": {"num_prototypes": 6}}


def build(**changes) -> SlotConDecoder:
    torch.manual_seed(0)
    decoder = {"channels": 12, **changes.pop("decoder", {})}
    return SlotConDecoder(**{**SETTINGS, "decoder": decoder, "decoder_head": SMALL, **changes})


def apart(model):
    """The branches made to differ, and the centers to be somewhere."""
    torch.manual_seed(3)
    for p in model.teacher.parameters():
        p.data.mul_(1.1).add_(0.01)
    for center in model.centers.values():
        center.value.uniform_(-0.1, 0.1)
    return model.train()


class OneHead:
    """A head on its map, as the slow loss of SlotCon sees a model whose backbone's last map this is."""

    def __init__(self, model, head):
        self.center = model.centers[head]
        self.student, self.teacher = (self._branch(model.branch(b), head) for b in ("student", "teacher"))

    @staticmethod
    def _branch(parts, head):
        def features(view):
            maps = parts["backbone"](view)
            if head == "encoder":
                return maps
            return [dict(zip(parts["decoder"].level_names, parts["decoder"](maps)))[head]]

        return {"backbone": features, **dict(parts["heads"][head].items())}


@pytest.mark.parametrize(
    ("w_e", "w_g", "decoder"),  # the encoder's share, lambda_g of the decoder's heads
    [(0.3, 0.6, {}), (0.0, 0.6, {"levels": ["p3", "p4"]}), (0.4, None, {"type": "FCNDecoder", "dilation": 2})],
)
def test_loss_equals_the_slow_one_of_every_head(w_e, w_g, decoder):
    weights = {"group_loss_weight": 0.8, "decoder_group_loss_weight": w_g, "mean_entropy_weight": 0.2}
    model = apart(build(encoder_loss_weight=w_e, decoder=decoder, **weights))
    levels = model.student["decoder"].level_names
    assert model.heads == (("encoder",) if w_e else ()) + levels
    data = batch(size=4, side=64)
    lambdas = {head: 0.8 if head == "encoder" or w_g is None else w_g for head in model.heads}
    want = {head: slow_loss(OneHead(copy.deepcopy(model), head), data, lambdas[head]) for head in model.heads}
    got = model.loss(data)
    for head in model.heads:
        weight = w_e if head == "encoder" else (1 - w_e) / len(levels)
        suffix = "" if head == "encoder" else f"_{head}"
        assert got[f"loss_group{suffix}"].item() == pytest.approx(weight * want[head][0], rel=1e-3), head
        assert got[f"loss_slot{suffix}"].item() == pytest.approx(weight * want[head][1], rel=3e-3), head
        assert got[f"loss_mean_entropy{suffix}"].item() == pytest.approx(weight * 0.2 * want[head][2], rel=1e-3), head
    assert sum("loss" in key for key in got) == 3 * len(model.heads)


def test_all_weight_on_the_encoder_is_slotcon_bit_for_bit():
    torch.manual_seed(0)
    models = SlotCon(**SETTINGS).train(), build(encoder_loss_weight=1.0).train()
    optimizers = [torch.optim.SGD(model.student.parameters(), lr=0.1) for model in models]
    for step in range(3):
        for model, optimizer in zip(models, optimizers):
            losses = model.loss(batch(seed=step))
            optimizer.zero_grad()
            model.parse_losses(losses)[0].backward()
            optimizer.step()
            model.update_teacher()
    theirs, ours = (model.state_dict() for model in models)
    renamed = {k.replace("heads.encoder.", "").replace("centers.encoder.", "center."): v for k, v in ours.items()}
    assert renamed.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(renamed[name], value), name


def test_many_levels_of_which_one_is_chosen_are_a_single_level():
    """A level's loss in a decoder of one level is what it is in the decoder of all, times their number."""
    many = apart(build(encoder_loss_weight=0.0))
    single = build(encoder_loss_weight=0.0, decoder={"levels": ["p2"]}).train()
    own = single.state_dict()
    single.load_state_dict({k: v for k, v in many.state_dict().items() if k in own})
    assert not any("fpn.output.1" in name or "heads.p3" in name for name in own)
    want, got = many.loss(batch(size=2)), single.loss(batch(size=2))
    for name in ("loss_group_p2", "loss_slot_p2"):
        assert got[name].item() == pytest.approx(4 * want[name].item(), rel=1e-5)


def test_gradient_reaches_every_student_parameter_and_no_teacher_parameter():
    model = build(decoder={"lateral_dropout": 0.5}).train()
    model.parse_losses(model.loss(batch()))[0].backward()
    assert [name for name, p in model.student.named_parameters() if p.grad is None] == []
    assert [name for name, p in model.teacher.named_parameters() if p.grad is not None or p.requires_grad] == []
    # nothing is detached: the decoder's heads alone reach the stem
    alone = build(encoder_loss_weight=0.0).train()
    alone.parse_losses(alone.loss(batch()))[0].backward()
    assert alone.student["backbone"].conv1.weight.grad.abs().sum() > 0


def test_channels_are_dropped_in_the_student_alone_and_never_at_the_top():
    model = build(decoder={"lateral_dropout": 0.5}).train()
    maps = model.extract_features(batch().views[0])

    def levels(branch):
        torch.manual_seed(5)
        first = model.branch(branch)["decoder"](maps)
        return [torch.equal(a, b) for a, b in zip(first, model.branch(branch)["decoder"](maps))]

    with torch.no_grad():
        assert levels("teacher") == [True] * 4
        assert levels("student") == [False, False, False, True]
        model.eval()
        assert levels("student") == [True] * 4


@pytest.mark.parametrize("frozen", [False, True])
def test_the_teachers_prototypes_follow_or_stay(frozen):
    model = build(freeze_teacher_prototypes=frozen, teacher_momentum=0.5, teacher_momentum_schedule="constant")
    before = {name: head["grouping"].prototypes.clone() for name, head in model.teacher["heads"].items()}
    with torch.no_grad():
        for p in model.student.parameters():
            p.add_(1.0)
    model.update_teacher()
    for name, prototypes in before.items():
        moved = not torch.equal(model.teacher["heads"][name]["grouping"].prototypes, prototypes)
        assert moved is (name == "encoder" or not frozen)
    assert build(freeze_teacher_prototypes=not frozen).state_dict().keys() == model.state_dict().keys()
    assert model.teacher_steps.item() == 1  # one counter for all


def test_a_momentum_that_rises_and_falls():
    values = [rise_and_fall_momentum(0.9, step, 4) for step in range(5)]
    assert values == pytest.approx([0.9, 0.95, 1.0, 0.95, 0.9])
    assert rise_and_fall_momentum(0.9, 7, 0) == 0.9


def test_a_resumed_run_repeats_the_run_bit_for_bit():
    def train(model, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)  # what is dropped
            losses = model.loss(batch(seed=step))
            optimizer.zero_grad()
            model.parse_losses(losses)[0].backward()
            optimizer.step()
            model.update_teacher()

    def start():
        model = build(decoder={"lateral_dropout": 0.2}, freeze_teacher_prototypes=True).train()
        model.total_steps = 4
        return model, torch.optim.SGD(model.student.parameters(), lr=0.1)

    whole = start()
    train(*whole, range(2))
    file = io.BytesIO()
    torch.save(whole[0].state_dict(), file)
    file.seek(0)
    train(*whole, range(2, 4))
    resumed = start()
    resumed[0].load_state_dict(torch.load(file, weights_only=True))
    train(*resumed, range(2, 4))
    for name, value in whole[0].state_dict().items():
        assert torch.equal(resumed[0].state_dict()[name], value), name


def test_every_head_groups_at_its_own_stride_and_one_is_shown():
    model = build().eval()
    with torch.no_grad():
        groupings = model.group_all(batch(side=64).views[0])
        sizes = {name: tuple(g.assignment_logits.shape[1:]) for name, g in groupings.items()}
        assert sizes == {
            "encoder": (8, 2, 2), "p2": (6, 16, 16), "p3": (6, 8, 8), "p4": (6, 4, 4), "p5": (6, 2, 2)
        }  # fmt: skip
        assert model.group(batch(side=64).views[0]).assignment_logits.equal(groupings["p2"].assignment_logits)
        model.shown_head = "encoder"
        assert model.group(batch(side=64).views[0]).z.equal(groupings["encoder"].z)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_loss_weight": 1.2}, "encoder_loss_weight"),
        ({"decoder": {"levels": ["p7"]}}, "levels must be some of"),
        ({"decoder": {"norm": "LN"}}, "norm"),
        ({"decoder": {"lateral_dropout": 1.0}}, "lateral_dropout"),
        ({"decoder_head": {"projektor": {}}}, "no .'projektor'.; it has"),
        ({"decoder_group_loss_weight": 2.0}, "group_loss_weight"),
    ],
)
def test_bad_options_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)
