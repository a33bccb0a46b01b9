"""Mixed precision, the teacher's clock, checkpoints: the parts of a run, one at a time."""

import os
import stat
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, MessageHub
from torch import nn

from slotcon_plugin.checkpoints.runs import numbered_checkpoints
from slotcon_plugin.engine import (
    AtomicLocalBackend,
    ExactResumeHook,
    MixedPrecisionOptimWrapper,
    PretrainSchedulerHook,
    SafeCheckpointHook,
    TeacherUpdateHook,
    allow_checkpoint_classes,
)
from slotcon_plugin.errors import UserError
from slotcon_plugin.models import SlotCon, timm_backbone


def wrapper_of(model, **kwargs):
    return MixedPrecisionOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)


@pytest.mark.parametrize(
    ("dtype", "want"), [("bfloat16", torch.bfloat16), ("float16", torch.float16), ("float32", torch.float32)]
)
def test_forward_runs_in_the_asked_precision(dtype, want):
    model = nn.Linear(2, 2)
    with wrapper_of(model, dtype=dtype).optim_context(model):
        assert model(torch.ones(1, 2)).dtype is want


def test_momentum_is_whole_after_a_first_step_that_is_left_out():
    """torch's fused SGD stores unset memory then."""
    torch.manual_seed(0)
    model, plain = nn.Linear(64, 64), nn.Linear(64, 64)
    plain.load_state_dict(model.state_dict())
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    wrapper = MixedPrecisionOptimWrapper(
        optimizer=torch.optim.SGD(model.parameters(), fused=True, **settings), dtype="float32"
    )
    reference = torch.optim.SGD(plain.parameters(), **settings)
    junk = [torch.full((64, 64), 7.0) for _ in range(8)]  # what freed memory is likely to hold
    del junk
    teacher = nn.Linear(64, 64).requires_grad_(False)  # mmengine hands an optimiser all that a model has
    kept = MixedPrecisionOptimWrapper(optimizer=torch.optim.SGD(teacher.parameters(), fused=True, **settings))
    assert not kept.optimizer.state
    for step in range(4):
        gradients = [torch.randn_like(p) for p in plain.parameters()]
        for one, other, gradient in zip(model.parameters(), plain.parameters(), gradients):
            one.grad, other.grad = gradient.clone(), gradient.clone()
        if step:
            wrapper.optimizer.step()
            reference.step()
        else:
            wrapper.optimizer.found_inf = torch.ones(())
            wrapper.optimizer.step()
            del wrapper.optimizer.found_inf
            assert not any(state["momentum_buffer"].any() for state in wrapper.optimizer.state.values())
        for one, other in zip(model.parameters(), plain.parameters()):
            torch.testing.assert_close(one, other)


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float8"):
        wrapper_of(nn.Linear(1, 1), dtype="float8")


class CountingModel(nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
        self.updates = 0

    def update_teacher(self, left_out):
        self.updates += 1


def runner_of(model, wrapper, max_iters=12):
    return SimpleNamespace(model=model, optim_wrapper=wrapper, max_iters=max_iters)


def test_teacher_moves_once_an_accumulated_step():
    model = CountingModel()
    wrapper = wrapper_of(model, dtype="float32", accumulative_counts=3)
    TeacherUpdateHook().before_train(runner_of(model, wrapper))
    assert model.total_steps == 4
    for _ in range(7):
        wrapper.update_params(model(torch.ones(1, 1)).sum())
    assert model.updates == 2


def test_step_skipped_by_the_scaler_moves_neither_teacher_nor_schedule():
    model = CountingModel()
    wrapper = wrapper_of(model, dtype="float16", init_scale=4.0)
    runner = runner_of(model, wrapper)
    TeacherUpdateHook().before_train(runner)
    ticks = []
    scheduler = SimpleNamespace(by_epoch=False, step=lambda: ticks.append(1))
    runner.param_schedulers = [scheduler]
    hook = PretrainSchedulerHook()
    before = model.weight.clone()
    wrapper.update_params(model(torch.ones(1, 1)).sum() * float("inf"))
    hook.after_train_iter(runner, 0)
    assert wrapper.step_skipped and model.updates == 0 and not ticks and model.weight.equal(before)
    wrapper.update_params(model(torch.ones(1, 1)).sum())
    hook.after_train_iter(runner, 1)
    assert not wrapper.step_skipped and model.updates == 1 and len(ticks) == 1
    torch.testing.assert_close(model.weight, before - 0.1)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])  # below and above the gradient's norm
def test_gradients_are_clipped_as_they_are_without_the_scale(dtype, max_norm):
    model, plain, hub = nn.Linear(3, 2), nn.Linear(3, 2), MessageHub("clipping")
    plain.load_state_dict(model.state_dict())
    images = torch.randn(4, 3)
    wrapper = wrapper_of(model, dtype=dtype, init_scale=1024.0, clip_grad=dict(max_norm=max_norm))
    wrapper.message_hub = hub
    wrapper.update_params((model(images) ** 2).sum())
    (plain(images) ** 2).sum().backward()
    norm = nn.utils.clip_grad_norm_(plain.parameters(), max_norm).item()
    assert 0.5 < norm < 100
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    for got, want in zip(model.parameters(), plain.parameters()):
        torch.testing.assert_close(got, want)
    assert hub.get_scalar("train/grad_norm").current() == pytest.approx(norm, rel=1e-5)


def test_gradients_of_held_parts_do_not_count_in_the_clipping():
    """Head 1 and body 1,000 times as large: with the body held the head moves as if it were alone."""
    head, body = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    wrapper = wrapper_of(nn.ModuleList([head, body]), dtype="float32", clip_grad=dict(max_norm=1.0))

    def hold() -> None:
        body.weight.grad = None

    wrapper.before_step.append(hold)
    before = head.weight.item(), body.weight.item()
    wrapper.update_params(head(torch.ones(1, 1)).sum() + 1000 * body(torch.ones(1, 1)).sum())
    assert (head.weight.item(), body.weight.item()) == (pytest.approx(before[0] - 0.1, rel=1e-4), before[1])


def test_scaler_state_survives_a_checkpoint():
    model = nn.Linear(1, 1)
    wrapper = wrapper_of(model, dtype="float16", init_scale=8.0)
    wrapper.update_params(model(torch.ones(1, 1)).sum() * float("inf"))  # halves the scale
    twin = wrapper_of(nn.Linear(1, 1), dtype="float16")
    twin.load_state_dict(wrapper.state_dict())
    assert twin.scaler.get_scale() == 4.0


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    backend, target = AtomicLocalBackend(), tmp_path / "iter_1.pth"
    backend.put(b"old", target)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        backend.put(b"new", target)
    assert target.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["iter_1.pth"]


def test_mmengine_checkpoints_load_without_running_code(tmp_path):
    allow_checkpoint_classes()
    buffer = HistoryBuffer(np.array([1.0, 2.0]), np.array([1, 1]))
    torch.save({"message_hub": {"log_scalars": {"loss": buffer}, "x": np.float64(3.0)}}, tmp_path / "iter_1.pth")
    loaded = torch.load(tmp_path / "iter_1.pth", weights_only=True)
    assert loaded["message_hub"]["log_scalars"]["loss"].mean() == 1.5
    torch.save(loaded, tmp_path / "iter_2.pth")  # as a resumed run does
    again = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    assert type(again["message_hub"]["log_scalars"]["loss"].data[0]) is np.ndarray


def test_a_checkpoint_of_another_model_stops_the_run():
    runner = SimpleNamespace(model=nn.Linear(2, 2), _resume=False)
    state = nn.Linear(2, 2).state_dict()
    ExactResumeHook().after_load_checkpoint(runner, {"state_dict": state})
    with pytest.raises(ValueError, match=r"'weight' \(checkpoint \(2, 3\), model \(2, 2\)\)"):
        ExactResumeHook().after_load_checkpoint(runner, {"state_dict": nn.Linear(3, 2).state_dict()})


def test_every_checkpoint_declares_its_method(tiny, tmp_path):
    tiny(hooks=[dict(type="DeclarationHook")], epochs=1).train()
    declared = torch.load(tmp_path / "iter_3.pth", weights_only=True)["pretraining"]
    assert (declared["method"], declared["branch"]) == ("slotcon", "teacher")
    assert declared["backbone"] == {"type": "TinyBackbone"}


def test_the_old_checkpoint_stays_until_the_new_one_is_written(tiny, tmp_path, monkeypatch):
    runner = tiny()
    runner.register_hook(SafeCheckpointHook(interval=2, by_epoch=False, max_keep_ckpts=1, save_last=False))
    runner._hooks = [hook for hook in runner.hooks if type(hook) is not CheckpointHook]
    save, there = runner.save_checkpoint, []

    def watched(out_dir, name, *args, **kwargs):
        there.append((name, [path.name for path in numbered_checkpoints(tmp_path)]))
        if name == "iter_6.pth":
            raise OSError(28, "No space left on device")
        save(out_dir, name, *args, **kwargs)

    monkeypatch.setattr(runner, "save_checkpoint", watched)
    with pytest.raises(OSError, match="No space"):
        runner.train()
    assert there == [("iter_2.pth", []), ("iter_4.pth", ["iter_2.pth"]), ("iter_6.pth", ["iter_4.pth"])]
    assert [path.name for path in numbered_checkpoints(tmp_path)] == ["iter_4.pth"]
    assert torch.load(tmp_path / "iter_4.pth", weights_only=True)["message_hub"]["runtime_info"]["keep_ckpt_ids"] == [4]


def test_a_checkpoint_has_the_mode_of_the_umask(tiny, tmp_path):
    former = os.umask(0o027)
    try:
        tiny().train()
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "iter_3.pth").stat().st_mode) == 0o640


def test_a_pretrainer_sees_its_data_before_the_first_step(tiny, monkeypatch):
    def refuse(model, dataset):
        raise UserError(f"{len(dataset)} photos")

    monkeypatch.setattr(SlotCon, "check_data", refuse)
    with pytest.raises(UserError, match="16 photos"):
        tiny().train()
    monkeypatch.setattr(timm_backbone, "whole_patches", lambda network: 14)
    with pytest.raises(UserError, match=r"views of 32 x 32 pixels are no whole number of patches of 14"):
        tiny().train()
