"""A model is whole in its file or refused, a result is not replaced by another's, what is frozen is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from slotcon_plugin.convert.network import CanonicalResNet
from slotcon_plugin.errors import UserError
from slotcon_plugin.results import write_result
from slotcon_plugin.transfer import backbone
from slotcon_plugin.transfer.backbone import (
    Origin,
    frozen_parts,
    require_start,
    warn_of_frozen_parts,
    warn_of_untaught_norms,
)
from slotcon_plugin.transfer.checkpoint import (
    FACTS,
    check_whole,
    facts_of_run,
    read_transfer_checkpoint,
)
from slotcon_plugin.transfer.checkpoint import test_result_path as result_path_of_test


class Detector(nn.Module):
    def __init__(self, classes: int = 3):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, classes)


def saved(path: Path, weights: dict, meta: dict | None = None, container: str = "state_dict") -> Path:
    torch.save({container: weights, **({"meta": meta} if meta else {})}, path)
    return path


@pytest.mark.parametrize("container", ["state_dict", "model"])  # mmengine's, detectron2's
def test_a_model_that_came_whole_is_accepted_and_known(tmp_path, container):
    model = Detector()
    weights = model.state_dict() | {"more": torch.zeros(1)}
    del weights["backbone.1.num_batches_tracked"]
    origin = Origin("slotcon", "abc", None, {"title": "ImageNet, then SlotCon", "init": {"title": "ImageNet"}}, False)
    meta = {FACTS: facts_of_run(origin, 7, 12.5)}
    checkpoint = read_transfer_checkpoint(saved(tmp_path / "iter_1.pth", weights, meta, container))
    check_whole(model, checkpoint)
    assert checkpoint.origin("else") == origin
    assert (checkpoint.facts["seed"], checkpoint.facts["wall_time_s"]) == (7, 12.5)


def test_a_model_that_someone_else_trained_is_not_called_random(tmp_path):
    checkpoint = read_transfer_checkpoint(saved(tmp_path / "zoo.pth", Detector().state_dict()))
    assert checkpoint.origin() == Origin("unknown", None, None, {})
    assert checkpoint.origin("moco").pretraining == "moco"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({f"backbone.{k}": v for k, v in Detector().backbone.state_dict().items()},
         r"2 of 9 weights are missing .* the first is 'head.weight' \(checkpoint has none, model \(3, 4\)\)"),
        (Detector(classes=5).state_dict(), r"the first is 'head.weight' \(checkpoint \(5, 4\), model \(3, 4\)\)"),
        ({f"teacher.{k}": v for k, v in Detector().state_dict().items()}, r"8 of 9 weights .* goes into --backbone"),
    ],
    ids=["a backbone alone", "another task's model", "a pretraining"],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(weights, message, tmp_path):
    checkpoint = read_transfer_checkpoint(saved(tmp_path / "x.pth", weights))
    with pytest.raises(UserError, match=message):
        check_whole(Detector(), checkpoint)


def test_no_file_and_no_weights_are_sentences(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint .*nowhere\.pth does not exist"):
        read_transfer_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="holds no tensors"):
        read_transfer_checkpoint(saved(tmp_path / "empty.pth", {}))


def test_a_test_result_is_replaced_by_the_same_checkpoints_alone(tmp_path):
    one = read_transfer_checkpoint(saved(tmp_path / "iter_1.pth", Detector().state_dict()))
    two = read_transfer_checkpoint(saved(tmp_path / "iter_2.pth", Detector().state_dict()))
    config = tmp_path / "config.py"
    config.write_text("x = 1\n")
    path, tested = result_path_of_test(tmp_path, one)
    known = dict(pretraining="slotcon", config=config, backbone_sha256=None, seed=0, wall_time_s=1.0)
    write_result(path, task="t", metrics={"mIoU": 1.0}, **known, **tested)
    assert result_path_of_test(tmp_path, one) == (path, tested)
    with pytest.raises(UserError, match=r"test_result\.json is the result of .*iter_1\.pth .*--work-dir"):
        result_path_of_test(tmp_path, two)
    assert result_path_of_test(tmp_path / "other", two)[0] == tmp_path / "other" / "test_result.json"


def test_a_resumed_run_starts_from_random_weights_only_if_they_are_meant():
    require_start("runs/x", "ckpt.pth", None)
    require_start("runs/x", None, "random")
    with pytest.raises(UserError, match="no checkpoint in runs/x, and no --backbone"):
        require_start("runs/x", None, None)


class FrozenNorm(nn.Module):
    """As detectron2's FrozenBatchNorm2d: buffers, and no parameters."""

    def __init__(self):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.zeros(64))


def test_what_does_not_learn_is_said(monkeypatch):
    net = CanonicalResNet(18).net.train()
    assert frozen_parts(net) == ""
    net.bn1 = FrozenNorm()
    net.layer1.requires_grad_(False)
    net.layer2.eval()  # as norm_eval
    assert frozen_parts(net) == "the parameters of layer1 and the statistics of 6 of 20 norm layers"
    said = []
    monkeypatch.setattr(backbone, "print_log", lambda text, *_: said.append(text))
    warn_of_frozen_parts(net, "FREEZE_AT: 0")
    assert "papers fine-tune the whole backbone" in said[0] and said[0].endswith("FREEZE_AT: 0")
    warn_of_untaught_norms(CanonicalResNet(18).net.train())
    warn_of_untaught_norms(net)
    (text,) = said[1:]
    assert "random weights, and the parameters of layer1 and the statistics of 6 of 20 norm layers in it stay" in text
