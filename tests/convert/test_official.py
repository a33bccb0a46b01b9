"""A reference checkpoint becomes this project's model and computes what the reference computes."""

import argparse
import runpy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from slotcon_plugin.convert import ConversionError, read_checkpoint
from slotcon_plugin.convert.official import import_official
from slotcon_plugin.loading import load_pretrainer
from slotcon_plugin.models import SlotCon

from .conftest import IMAGE, random_resnet

HIDDEN, DIM, PROTOTYPES = 24, 12, 5


def reference_head(linear, norm, c_in, layers=3):
    """Linear, BatchNorm, GELU for each hidden layer, then linear: the paper's section 3.3, every layer with a bias."""
    parts = []
    for _ in range(layers - 1):
        parts += [linear(c_in, HIDDEN), norm(HIDDEN), nn.GELU()]
        c_in = HIDDEN
    head = nn.Sequential(*parts, linear(c_in, DIM))
    for value in head.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 0.6)
    return head.eval()


def conv(c_in, c_out):
    return nn.Conv2d(c_in, c_out, 1)


class Reference:
    """The parts of the reference's SlotCon, and its checkpoint."""

    def __init__(self, depth=18, layers=3):
        channels = 512 if depth < 50 else 2048
        self.encoder = {"q": random_resnet(depth, 1), "k": random_resnet(depth, 2)}
        self.projector = {b: reference_head(conv, nn.BatchNorm2d, channels, layers) for b in "qk"}
        self.prototypes = {b: torch.randn(PROTOTYPES, DIM) for b in "qk"}
        self.predictor = reference_head(nn.Linear, nn.BatchNorm1d, DIM)
        self.center = torch.randn(1, PROTOTYPES)

    def state_dict(self):
        state = {"module.center": self.center}
        for b in "qk":
            encoder = self.encoder[b].state_dict().items()
            state |= {f"module.encoder_{b}.{k}": v for k, v in encoder if not k.startswith("fc.")}
            state |= {f"module.projector_{b}.mlp.{k}": v for k, v in self.projector[b].state_dict().items()}
            state[f"module.grouping_{b}.slot_embed.weight"] = self.prototypes[b]
        return state | {f"module.predictor_slot.mlp.{k}": v for k, v in self.predictor.state_dict().items()}

    def save(self, path, edit=None, **arguments):
        state = self.state_dict()
        if edit:
            edit(state)
        optimizer = SGD(self.predictor.parameters(), lr=0.1, momentum=0.9)
        torch.save(
            {
                "args": argparse.Namespace(arch="resnet18", **arguments),
                "model": state,
                "optimizer": optimizer.state_dict(),
                "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5).state_dict(),
                "scaler": {"scale": 65536.0},
                "epoch": 800,
            },
            path,
        )
        return path

    def group(self, branch, images):
        """z, logits and slots as in section 3.2, over all positions by plain matrix products."""
        with torch.no_grad():
            features = nn.Sequential(*list(self.encoder[branch].children())[:-2])(images)
            z = self.projector[branch](features)
        logits = torch.stack(
            [F.cosine_similarity(z, p[None, :, None, None], dim=1) for p in self.prototypes[branch]], 1
        )
        weights = (logits / 0.07).softmax(1).flatten(2)
        slots = weights @ z.flatten(2).transpose(1, 2) / weights.sum(-1, keepdim=True)
        return z, logits, slots


@pytest.mark.parametrize(("depth", "layers"), [(18, 3), (18, 4), (50, 3)])
def test_the_imported_model_computes_what_the_reference_computes(depth, layers, tmp_path):
    reference = Reference(depth, layers)
    source = reference.save(tmp_path / "ckpt.pth")
    import_official(source, tmp_path / "ours.pth", SlotCon)
    model = load_pretrainer(tmp_path / "ours.py", tmp_path / "ours.pth")  # strict

    for theirs, branch in (("q", "student"), ("k", "teacher")):
        with torch.no_grad():
            grouping = model.group(IMAGE, branch)
        z, logits, slots = reference.group(theirs, IMAGE)
        torch.testing.assert_close(grouping.z, z, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(grouping.assignment_logits, logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(grouping.slots, slots, rtol=1e-3, atol=1e-4)
    vectors = torch.randn(6, DIM)
    with torch.no_grad():
        torch.testing.assert_close(model.student["predictor"](vectors), reference.predictor(vectors))
    assert torch.equal(model.center.value, reference.center[0])
    assert model.teacher_steps.item() == 0


def test_temperatures_and_momenta_come_from_the_command_line_in_the_file(tmp_path):
    source = Reference().save(
        tmp_path / "ckpt.pth",
        teacher_temp=0.04,
        student_temp=0.2,
        center_momentum=0.8,
        group_loss_weight=0.7,
        teacher_momentum=0.995,
    )
    import_official(source, tmp_path / "ours.pth", SlotCon)
    model = load_pretrainer(tmp_path / "ours.py", tmp_path / "ours.pth")
    assert (model.objective.teacher_temperature, model.objective.student_temperature) == (0.04, 0.2)
    assert model.teacher["grouping"].temperature == 0.04
    assert (model.center.momentum, model.objective.group_loss_weight, model.teacher_momentum) == (0.8, 0.7, 0.995)


def test_the_imported_checkpoint_is_a_source_for_every_converter(tmp_path):
    reference = Reference()
    import_official(reference.save(tmp_path / "ckpt.pth"), tmp_path / "ours.pth", SlotCon)
    canonical = read_checkpoint(tmp_path / "ours.pth")
    assert (canonical.meta["kind"], canonical.meta["branch"]) == ("slotcon_plugin", "teacher")
    assert canonical.meta["origin"]["source_file"] == "ckpt.pth"
    assert canonical.meta["method"] == "slotcon"
    assert torch.equal(canonical.state_dict["conv1.weight"], reference.encoder["k"].conv1.weight)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s.pop("module.center"), r"has no center: not a whole checkpoint"),
        (lambda s: s.pop("module.encoder_q.conv1.weight"), r"has no encoder_q\.conv1\.weight"),
        (lambda s: s.pop("module.projector_k.mlp.4.running_mean"), r"layers\.4\.running_mean has shape none"),
        (lambda s: s.update({"module.extra": torch.zeros(1)}), r"no rule of the key map knows the name 'extra'"),
        (lambda s: s["module.projector_q.mlp.0.weight"].fill_(float("nan")), r"mlp\.0\.weight holds NaN"),
        (lambda s: s["module.grouping_k.slot_embed.weight"].fill_(float("inf")), r"slot_embed\.weight holds NaN"),
        (lambda s: s.update({"module.center": torch.zeros(1, 9)}), r"center\.value has shape \(9,\), .* has \(5,\)"),
    ],
)  # fmt: skip
def test_what_is_not_a_whole_checkpoint_is_refused(edit, said, tmp_path):
    source = Reference().save(tmp_path / "ckpt.pth", edit)
    with pytest.raises(ConversionError, match=said):
        import_official(source, tmp_path / "ours.pth", SlotCon)
    assert [p.name for p in tmp_path.iterdir()] == ["ckpt.pth"]


def test_nothing_that_is_there_is_lost(tmp_path):
    source = Reference().save(tmp_path / "ckpt.pth")
    was = source.read_bytes()
    (tmp_path / "ours.py").write_text("model = dict()")
    with pytest.raises(ConversionError, match=r"ours\.py exists"):
        import_official(source, tmp_path / "ours.pth", SlotCon)
    with pytest.raises(ConversionError, match=r"ckpt\.pth is the checkpoint that is to be read"):
        import_official(source, source, SlotCon, overwrite=True)
    assert (source.read_bytes(), (tmp_path / "ours.py").read_text()) == (was, "model = dict()")
    import_official(source, tmp_path / "ours.pth", SlotCon, overwrite=True)
    load_pretrainer(tmp_path / "ours.py", tmp_path / "ours.pth")


def test_a_name_with_a_newline_writes_no_code(tmp_path):
    source = Reference().save(tmp_path / "x\nraise SystemExit(7)\n.pth")
    import_official(source, tmp_path / "ours.pth", SlotCon)
    assert set(runpy.run_path(str(tmp_path / "ours.py"))) >= {"model", "default_scope", "custom_imports"}


@pytest.mark.parametrize("value", ["0.1", float("nan"), None])
def test_a_temperature_that_is_no_number_is_refused(value, tmp_path):
    source = Reference().save(tmp_path / "ckpt.pth", teacher_temp=value)
    with pytest.raises(ConversionError, match=r"teacher_temp=.* is no number"):
        import_official(source, tmp_path / "ours.pth", SlotCon)


def test_a_transfer_run_takes_an_imported_checkpoint(tmp_path):
    pytest.importorskip("mmseg")
    from slotcon_plugin.transfer.backbone import prepare_backbone

    import_official(Reference().save(tmp_path / "ckpt.pth"), tmp_path / "ours.pth", SlotCon)
    config = tmp_path / "config.py"
    config.write_text("model = dict(backbone=dict(type='ResNet', depth=18))")
    origin, meta = prepare_backbone(tmp_path / "ours.pth", tmp_path / "backbone.pth", "mmseg", config)
    assert (origin.pretraining, meta["branch"]) == ("slotcon", "teacher")
    again, _ = prepare_backbone(tmp_path / "backbone.pth", tmp_path / "again.pth", "mmseg", config)
    assert (again.pretraining, again.sha256) == ("slotcon", origin.sha256)
    prepare_backbone(tmp_path / "ours.pth", tmp_path / "backbone.pth", "mmseg", config)  # a run started anew
