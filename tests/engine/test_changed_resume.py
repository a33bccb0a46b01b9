"""Resuming when something has changed: the position, the schedule and the teacher are those of the new run."""

import os

import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook

from slotcon_plugin.checkpoints.runs import RUN_FILE, numbered_checkpoints
from slotcon_plugin.engine import resume
from slotcon_plugin.engine.checkpoint import SafeCheckpointHook
from slotcon_plugin.engine.hooks import RunStampHook
from slotcon_plugin.engine.json_lines import read_json_lines
from slotcon_plugin.engine.resume import names_hash
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import write_json

NAMES = [f"{index:02d}.jpg" for index in range(16)]


class Recorder(Hook):
    """The learning rate of each iteration, and the photos of its batch."""

    priority = "VERY_HIGH"

    def __init__(self):
        self.rates, self.photos, self.epochs = {}, {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        rates = [group["lr"] for group in runner.optim_wrapper.param_groups]
        self.rates[runner.iter], self.photos[runner.iter] = rates, data_batch["sample_index"].tolist()
        self.epochs[runner.iter] = (runner.epoch, batch_idx)


@pytest.fixture
def recorded(tiny):
    """Run, and give back what was recorded beside the runner."""

    def run(*args, **kwargs):
        runner, recorder = tiny(*args, **kwargs), Recorder()
        runner.register_hook(recorder)
        runner.train()
        return runner, recorder

    return run


@pytest.fixture
def interrupted(recorded, tmp_path):
    """A run of 3 epochs of 4 iterations of 4 photos, of which iter_6 (the middle of the second epoch) is the newest."""
    _, recorder = recorded(epochs=3)
    for number in (9, 12):
        (tmp_path / f"iter_{number}.pth").unlink()
    return recorder


def log_of(tmp_path):
    return "".join(path.read_text() for path in sorted(tmp_path.rglob("*.log")))


def weights(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def test_ranks_share_their_order_where_each_has_a_seed_of_its_own(tiny, monkeypatch):
    monkeypatch.setattr(resume, "broadcast_object_list", lambda box: box.__setitem__(0, 41))
    runner = tiny(epochs=1)
    runner.train()
    assert runner.train_dataloader.sampler.seed == 41


def test_nothing_changed_nothing_said(recorded, interrupted, tmp_path):
    _, recorder = recorded(epochs=3, resume=True)
    assert recorder.rates == {i: rates for i, rates in interrupted.rates.items() if i >= 6}
    assert recorder.photos == {i: photos for i, photos in interrupted.photos.items() if i >= 6}
    log = log_of(tmp_path)
    assert "Changed" not in log and "by this count" not in log


def test_another_model_and_other_views_are_told(recorded, tmp_path):
    model, names = {"teacher_temperature": 0.04}, [*NAMES]
    recorded(epochs=3, model=model, names=names)
    for number in (9, 12):
        (tmp_path / f"iter_{number}.pth").unlink()
    recorded(epochs=3, model=model, names=names, resume=True)
    assert "Changed" not in log_of(tmp_path)
    names[2] = "other.jpg"  # of this tiny data set it is the only option
    recorded(epochs=3, model={"teacher_temperature": 0.09}, names=names, resume=True)
    said = log_of(tmp_path)
    assert "Changed since the checkpoint: model.teacher_temperature 0.04 -> 0.09: this config's values hold" in said
    assert "Changed since the checkpoint: train_dataloader.dataset.names[2] 02.jpg -> other.jpg: this config's" in said


@pytest.mark.parametrize("optimizer", [dict(type="SGD", lr=0.02, momentum=0.9), dict(type="LARS", lr=0.02)])
def test_a_lower_learning_rate_holds_and_moves_the_weights_accordingly(recorded, tmp_path, optimizer):
    _, low = recorded(tmp_path / "low", epochs=3, optim_wrapper=dict(optimizer=optimizer))
    former, high = recorded(tmp_path / "run", epochs=3, optim_wrapper=dict(optimizer={**optimizer, "lr": 0.2}))
    for number in (9, 12):
        (tmp_path / f"run/iter_{number}.pth").unlink()
    again, resumed = recorded(
        tmp_path / "run", epochs=3, resume=True, optim_wrapper=dict(optimizer={**optimizer, "lr": 0.02})
    )
    assert resumed.rates == {i: rates for i, rates in low.rates.items() if i >= 6}  # exactly those of a run with it
    assert resumed.rates[6][0] == pytest.approx(0.1 * high.rates[6][0])
    name = "student.backbone.0.weight"
    assert not torch.equal(weights(again)[name], weights(former)[name])
    assert "optimizer.lr 0.2 -> 0.02: this config's values hold from here on" in log_of(tmp_path / "run")
    # and what a further resume finds recorded is the new one
    checkpoint = torch.load(tmp_path / "run/iter_12.pth", weights_only=True)
    assert checkpoint["meta"]["circumstances"]["optimizer"]["optimizer"]["lr"] == 0.02


def test_another_rate_holds_without_schedules_too(recorded, tmp_path):
    def run(rate, **kwargs):
        return recorded(epochs=3, schedule=None, optim_wrapper=dict(optimizer=dict(type="SGD", lr=rate)), **kwargs)

    run(0.2)
    (tmp_path / "iter_12.pth").unlink()
    assert run(0.02, resume=True)[1].rates == {9: [0.02], 10: [0.02], 11: [0.02]}


def test_the_first_step_after_a_lower_learning_rate_is_that_of_plain_sgd(tiny, recorded, tmp_path):
    recorded(epochs=3, optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.2)))
    for number in (9, 12):
        (tmp_path / f"iter_{number}.pth").unlink()
    runner = tiny(epochs=3, resume=True, optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.02)))
    name, seen = "student.backbone.0.weight", {}

    class Watch(Hook):
        def before_train(self, runner):
            parameter = dict(runner.model.named_parameters())[name]
            seen["before"] = parameter.detach().clone()

            def before(*_):
                seen.setdefault("gradient", parameter.grad.clone())

            def after(*_):
                seen.setdefault("after", parameter.detach().clone())

            runner.optim_wrapper.optimizer.register_step_pre_hook(before)
            runner.optim_wrapper.optimizer.register_step_post_hook(after)

    runner.register_hook(Watch())
    runner.train()
    rate = 0.02 * (1 - 6 / 11)  # PolyLR of power 1 from the first of 12 iterations to 0 in the last, 6 are done
    assert torch.allclose(seen["after"], seen["before"] - rate * seen["gradient"], rtol=0, atol=1e-7)
    assert not torch.allclose(seen["after"], seen["before"] - 10 * rate * seen["gradient"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("epochs", [5, 2.75])  # the latter within the same number of whole ones
def test_more_epochs_stretch_the_schedule(epochs, recorded, interrupted, tmp_path):
    _, longer = recorded(tmp_path / "longer", epochs=epochs)
    _, resumed = recorded(epochs=epochs, resume=True)
    assert resumed.rates == {i: rates for i, rates in longer.rates.items() if i >= 6}
    assert f"max_epochs 3 -> {epochs}: this config's schedule holds from here on" in log_of(tmp_path)


def test_more_epochs_stretch_the_schedules_of_parts_with_settings_of_their_own(recorded, tmp_path):
    """mmengine's list of groups has one more then: the settings that they differ from."""
    parts = dict(
        constructor="PartOptimWrapperConstructor",
        paramwise_cfg=dict(custom_keys={"student.backbone": dict(lr_mult=0.5)}),
    )
    _, longer = recorded(tmp_path / "longer", epochs=5, optim_wrapper=parts)
    recorded(tmp_path / "run", epochs=3, optim_wrapper=parts)
    for number in (9, 12):
        (tmp_path / f"run/iter_{number}.pth").unlink()
    _, resumed = recorded(tmp_path / "run", epochs=5, resume=True, optim_wrapper=parts)
    assert resumed.rates == {i: rates for i, rates in longer.rates.items() if i >= 6}
    assert len(set(resumed.rates[6])) > 1


def test_another_optimiser_is_refused(recorded, interrupted):
    with pytest.raises(UserError, match="the checkpoint's optimiser is SGD, the config's is AdamW"):
        recorded(epochs=3, resume=True, optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.1)))


def test_a_batch_twice_as_large_goes_on_behind_what_was_seen(recorded, interrupted, tmp_path):
    runner, resumed = recorded(epochs=3, resume=True, batch=8)
    # 2 iterations an epoch now: iteration 6 of 12, in the middle of the second epoch, is 3 of 6
    assert list(resumed.photos) == [3, 4, 5]
    assert resumed.epochs == {3: (1, 1), 4: (2, 0), 5: (2, 1)}
    assert resumed.photos[3] == interrupted.photos[6] + interrupted.photos[7]
    assert sorted(resumed.photos[4] + resumed.photos[5]) == list(range(16))
    assert resumed.rates[3][0] == pytest.approx(0.1 * (1 - 3 / 5))
    assert runner.model.teacher_steps == runner.model.total_steps == 6
    log = log_of(tmp_path)
    assert "iteration 6 is iteration 3 by this count, 1 of 2 of epoch 2 are done" in log
    assert "[-" not in log


def test_a_step_of_two_passes_from_here_on(recorded, interrupted):
    """The passes are counted as before, the steps are not: six are three now, and three more come."""
    runner, resumed = recorded(epochs=3, resume=True, optim_wrapper=dict(accumulative_counts=2))
    assert list(resumed.photos) == list(range(6, 12))
    assert runner.model.teacher_steps == runner.model.total_steps == 6


@pytest.mark.parametrize(("kept", "aside"), [(10, []), (-1, ["former_iter_4.pth", "former_iter_6.pth"])])
def test_checkpoints_with_the_numbers_of_a_former_count_are_not_the_newest(tiny, tmp_path, kept, aside):
    """Iteration 6 of 12 is iteration 1 of 3 with all photos in one batch."""

    def run(**kwargs):
        runner = tiny(epochs=3, **kwargs)
        runner._hooks = [hook for hook in runner.hooks if type(hook) is not CheckpointHook]
        runner.register_hook(RunStampHook({"id": "this run"}))
        runner.register_hook(SafeCheckpointHook(interval=2, by_epoch=False, max_keep_ckpts=kept))
        runner.train()

    write_json(tmp_path / RUN_FILE, {"id": "this run"})
    run()
    for number in (8, 10, 12):
        (tmp_path / f"iter_{number}.pth").unlink()
    run(resume=True, batch=16)
    assert [path.name for path in numbered_checkpoints(tmp_path)] == ["iter_3.pth", "iter_2.pth"]
    assert sorted(path.name for path in tmp_path.glob("former*")) == aside


def test_photos_that_fill_no_whole_batch_come_again_rather_than_not_at_all(recorded, interrupted):
    _, resumed = recorded(epochs=3, resume=True, batch=3)
    # 8 of 16 photos were seen: two batches of three, and the third is not whole
    assert resumed.epochs[5 + 2] == (1, 2)
    seen = [photo for i, photos in interrupted.photos.items() if i in (4, 5) for photo in photos]
    assert resumed.photos[7][:2] == seen[6:]


def test_fewer_photos_go_on_at_the_same_share_of_the_epoch(recorded, interrupted, tmp_path):
    _, resumed = recorded(epochs=3, resume=True, names=NAMES[:12])
    # 3 iterations an epoch now; half of the second epoch's 4 were done
    assert list(resumed.epochs.values()) == [(1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert "16 then, 12 now" in log_of(tmp_path)


def test_a_photo_swapped_is_told(recorded, interrupted, tmp_path):
    _, resumed = recorded(epochs=3, resume=True, names=[*NAMES[:15], "other.jpg"])
    assert list(resumed.epochs) == list(range(6, 12))
    assert "The photos have changed since the checkpoint (16 then, 16 now, other names" in log_of(tmp_path)


def test_the_end_of_an_epoch_is_its_end_by_any_count(recorded, tmp_path):
    recorded(epochs=3)
    for number in (3, 6, 9):
        (tmp_path / f"iter_{number}.pth").unlink()
    (tmp_path / "iter_12.pth").replace(tmp_path / "iter_4.pth")
    state = torch.load(tmp_path / "iter_4.pth", weights_only=True)
    state["meta"].update(epoch=0, iter=4)
    torch.save(state, tmp_path / "iter_4.pth")
    _, resumed = recorded(epochs=3, resume=True, batch=5)
    assert next(iter(resumed.epochs.items())) == (3, (1, 0))


def test_a_position_that_no_epoch_has_is_refused(recorded, interrupted, tmp_path):
    state = torch.load(tmp_path / "iter_6.pth", weights_only=True)
    del state["meta"]["circumstances"]  # of another program, whose photos and batch nobody knows
    torch.save(state, tmp_path / "iter_6.pth")
    with pytest.raises(UserError, match="iteration 6 is not in epoch 2 of 8 iterations"):
        recorded(epochs=3, resume=True, batch=2)


def test_the_report_keeps_its_place_on_the_axis(recorded, tmp_path):
    hook = dict(type="SlotHealthHook", interval=2)
    recorded(epochs=3, hooks=[hook])
    for number in (9, 12):
        (tmp_path / f"iter_{number}.pth").unlink()
    recorded(epochs=3, hooks=[hook], resume=True, batch=8)
    records = read_json_lines(tmp_path / "health.jsonl")
    assert [(record["iter"], record["epoch"]) for record in records] == [(1, 1), (2, 1), (3, 2), (4, 2), (6, 3)]


def test_another_number_of_threads_is_told(recorded, interrupted, tmp_path):
    torch.set_num_threads(2)
    try:
        recorded(epochs=3, resume=True)
    finally:
        torch.set_num_threads(1)
    assert "threads 1 -> 2: the result will not be that of a run without the stop to the last bit" in log_of(tmp_path)


def test_the_names_hash_knows_names_and_order_but_not_the_folder():
    names = ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
    one, moved = ([os.path.join(root, name) for name in names] for root in ("/data", "/mnt/x/data"))
    assert names_hash(one) == names_hash(moved)
    assert names_hash(one) != names_hash(one[::-1])
    assert names_hash(one) != names_hash([*one[:2], "/data/b/3.jpg"])
    assert names_hash([]) is None


def test_the_names_hash_knows_photos_however_their_folder_is_written():
    plain = names_hash(["a/x.jpg", "b/y.jpg"])
    assert names_hash(["./a/x.jpg", "./b/y.jpg"]) == names_hash(["/c//a/x.jpg", "/c/d/../b/y.jpg"]) == plain


def test_the_names_hash_takes_lists_that_name_photos_both_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mixed = ["b/y.jpg", "/elsewhere/x.jpg"]
    assert names_hash(mixed) == names_hash([str(tmp_path / "b/y.jpg"), "/elsewhere/x.jpg"])
