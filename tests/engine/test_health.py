"""The figures of health in a run: when they are taken, where they go, what a resumed run makes of them."""

import shutil

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook

from slotcon_plugin.engine import CollapseError
from slotcon_plugin.engine.health_figures import effective_rank
from slotcon_plugin.engine.json_lines import read_json_lines
from slotcon_plugin.visualization.run_figures import read_run

TIMES = {"time", "data_time_share"}


def lines_without_times(path):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in read_json_lines(path)]


class Recorder:
    """What each step showed, kept apart from the hook under test."""

    def __init__(self, runner):
        self.usage, self.losses, self.norms = [], [], []
        model = runner.model
        loss = model.loss

        def recorded(*args):
            losses = loss(*args)
            self.usage.append(model.monitor["prototype_usage"].clone())
            self.losses.append((losses["loss_group"] + losses["loss_slot"]).item())
            return losses

        model.loss = recorded

    def watch_gradients(self, optimizer):
        def norm(*_):
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            self.norms.append(torch.cat([g.flatten() for g in grads if g is not None]).norm().item())

        optimizer.register_step_pre_hook(norm)


def test_the_file_says_what_happened(tiny, tmp_path, iterations_per_epoch):
    runner = tiny(hooks=[dict(type="SlotHealthHook", interval=3)])
    recorder = Recorder(runner)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    recorder.watch_gradients(runner.optim_wrapper.optimizer)
    runner.train()
    lines = read_json_lines(tmp_path / "health.jsonl")
    assert [line["iter"] for line in lines] == [3, 4, 6, 8]  # every third, and the ends of epochs of four
    assert [line["epoch"] for line in lines] == [1, 1, 2, 2]
    start = 0
    for line in lines:
        end = line["iter"]
        seen = sum(recorder.usage[start:end])
        assert line["live_prototypes"] == int((recorder.usage[end - 1] > 0).sum())
        assert line["used_prototypes"] == int((seen > 0).sum())
        p = seen[seen > 0].double() / seen.sum()
        assert line["usage_entropy"] == pytest.approx(-float((p * p.log()).sum()))
        assert line["loss"] == pytest.approx(np.mean(recorder.losses[start:end]), rel=1e-5)
        assert line["grad_norm"] == pytest.approx(recorder.norms[end - 1], rel=1e-5)
        assert line["num_prototypes"] == 6
        assert 0 <= line["data_time_share"] <= 1
        start = end
    for epoch, line in enumerate([lines[1], lines[3]]):
        seen = sum(recorder.usage[epoch * iterations_per_epoch : (epoch + 1) * iterations_per_epoch])
        assert line["live_prototypes_epoch"] == int((seen > 0).sum())
        assert line["dead_prototypes"] == [k for k in range(6) if seen[k] == 0]
    assert "dead_prototypes" not in lines[0]
    assert lines[-1]["center_norm"] == pytest.approx(runner.model.center.value.norm().item())
    slots = runner.model.monitor["slots"][runner.model.monitor["present"]]
    assert lines[-1]["effective_rank"] == pytest.approx(effective_rank(slots), rel=1e-6)


def test_mmengines_log_shows_the_figures(tiny, tmp_path):
    tiny(hooks=[dict(type="SlotHealthHook", interval=2)], epochs=1).train()
    length, *logged = read_json_lines(next(tmp_path.rglob("vis_data/scalars.json")))
    assert length == {"iterations_per_epoch": 4, "step": 0}
    mine = read_json_lines(tmp_path / "health.jsonl")
    for name in ("usage_entropy", "effective_rank", "center_norm", "num_queries"):
        assert [line[name] for line in logged] == pytest.approx([line[name] for line in mine]), name
    assert logged[-1]["grad_norm"] == pytest.approx(sum(line["grad_norm"] for line in mine) / 2)  # mmengine averages


def test_gradients_are_measured_at_the_last_update_of_accumulated_batches(tiny, tmp_path):
    runner = tiny(hooks=[dict(type="SlotHealthHook", interval=3)], optim_wrapper=dict(accumulative_counts=2))
    recorder = Recorder(runner)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    recorder.watch_gradients(runner.optim_wrapper.optimizer)
    runner.train()
    norms = {line["iter"]: line["grad_norm"] for line in read_json_lines(tmp_path / "health.jsonl")}
    # updates happen at iterations 2, 4, 6, 8
    assert norms[3] == pytest.approx(recorder.norms[0], rel=1e-5)
    assert norms[6] == pytest.approx(recorder.norms[2], rel=1e-5)


def test_a_resumed_run_neither_repeats_nor_loses_a_line(tiny, tmp_path):
    hook = dict(type="SlotHealthHook", interval=2)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    tiny(whole, hooks=[hook], epochs=3).train()

    runner = tiny(stopped, hooks=[hook], epochs=3)
    step = runner.model.train_step

    def until_the_eighth(*args, **kwargs):
        if runner.iter == 7:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    runner.model.train_step = until_the_eighth
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    file = stopped / "health.jsonl"
    file.write_text(file.read_text() + '{"iter": 8, "lo')  # the newest checkpoint is that of iteration 6
    (stopped / "iter_6.pth").replace(stopped / "kept.pth")  # go back to iteration 3, in the middle of epoch 1
    tiny(stopped, hooks=[hook], epochs=3, resume=True).train()

    assert lines_without_times(file) == lines_without_times(whole / "health.jsonl")
    assert [line["iter"] for line in read_json_lines(file)] == [2, 4, 6, 8, 10, 12]


def test_a_change_of_batch_is_counted_once_if_no_checkpoint_follows(tiny, tmp_path):
    """Iteration 6 of 4 an epoch is iteration 3 of 2."""
    hook = dict(type="SlotHealthHook", interval=2)
    tiny(epochs=3, hooks=[hook]).train()

    def name_start(name):
        """Folders of starts within one second would be one; the copies of the config beside them are not folders."""
        next(tmp_path.glob("2*/vis_data")).parent.rename(tmp_path / name)

    name_start("1")
    for number in (9, 12):
        (tmp_path / f"iter_{number}.pth").unlink()

    class Stop(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter > self.begin:
                raise KeyboardInterrupt

        def before_train(self, runner):
            self.begin = runner.iter

    before = [(record["iter"], record["epoch"]) for record in read_json_lines(tmp_path / "health.jsonl")]
    for batch, number in ((8, "11"), (2, "12"), (8, "13")):  # the names are in the order of the starts
        stopped = tiny(epochs=3, hooks=[hook], resume=True, batch=batch)
        stopped._hooks = [hook for hook in stopped.hooks if type(hook) is not CheckpointHook]
        stopped.register_hook(Stop())
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
        name_start(number)
    shutil.copytree(tmp_path, tmp_path / "back")
    tiny(tmp_path / "back", epochs=3, hooks=[hook], resume=True).train()  # to the former batch
    records = read_json_lines(tmp_path / "back/health.jsonl")
    assert [(record["iter"], record["epoch"]) for record in records] == before
    tiny(epochs=3, hooks=[hook], resume=True, batch=8).train()
    records = read_json_lines(tmp_path / "health.jsonl")
    assert [(record["iter"], record["epoch"]) for record in records] == [(1, 1), (2, 1), (3, 2), (4, 2), (6, 3)]
    curve = read_run(tmp_path).curve("data_time", by_epoch=True)  # which only mmengine's files have
    assert curve[0].tolist() == [0.5, 1, 1.5, 2, 3]


def test_a_new_run_in_an_old_folder_sets_the_old_file_aside(tiny, tmp_path):
    hook = dict(type="SlotHealthHook", interval=4)
    (tmp_path / "health.jsonl").write_text('{"iter": 400}\n')
    tiny(hooks=[hook], epochs=1).train()
    assert [line["iter"] for line in read_json_lines(tmp_path / "health.jsonl")] == [4]
    assert (tmp_path / "health.old.jsonl").read_text() == '{"iter": 400}\n'


@pytest.mark.parametrize("stop", [False, True])
def test_a_collapse_is_told_and_stops_the_run_if_wished(tiny, tmp_path, stop):
    runner = tiny(hooks=[dict(type="SlotHealthHook", interval=1, stop_on_collapse=stop)], epochs=3)
    loss = runner.model.loss

    def collapsed(batch):
        losses = loss(batch)
        runner.model.monitor["prototype_usage"] = torch.tensor([8, 0, 0, 0, 0, 0])
        return losses

    runner.model.loss = collapsed
    if stop:
        with pytest.raises(CollapseError, match=r"iteration 9 \(stop_on_collapse\): The grouping has collapsed"):
            runner.train()
    else:
        runner.train()
    log = next(tmp_path.rglob("*.log")).read_text()
    assert log.count("WARNING - The grouping has collapsed: 1 of 6 prototypes") == 1
    # five judgements after the first epoch of four iterations
    assert len(read_json_lines(tmp_path / "health.jsonl")) == (9 if stop else 12)


def test_a_pretrainer_without_prototypes_is_watched_for_what_it_has(tiny, tmp_path):
    runner = tiny(hooks=[dict(type="SlotHealthHook", interval=4)], epochs=1)

    loss = runner.model.loss

    def other(batch):
        losses = loss(batch)
        runner.model.monitor = {"teacher_entropy": torch.tensor(0.5), "live_prototypes": torch.tensor(0)}
        runner.model.monitor["features"] = torch.eye(4)
        return losses

    runner.model.loss = other
    runner.train()
    (line,) = read_json_lines(tmp_path / "health.jsonl")
    assert line["effective_rank"] == pytest.approx(4)
    assert not {"usage_entropy", "dead_prototypes", "center_norm"} & set(line)


def test_the_interval_must_be_positive(tiny):
    with pytest.raises(ValueError, match="interval must be at least 1 iteration, got 0"):
        tiny(hooks=[dict(type="SlotHealthHook", interval=0)])


def test_every_head_has_its_figures_and_its_warnings(tiny, tmp_path):
    decoder = dict(channels=8, levels=["p2"])
    hook = dict(type="SlotHealthHook", interval=2)
    runner = tiny(hooks=[hook], epochs=3, model=dict(type="SlotConDecoder", decoder=decoder))
    loss = runner.model.loss

    def collapsed(batch):
        losses = loss(batch)
        runner.model.monitor["p2"]["prototype_usage"] = torch.tensor([8, 0, 0, 0, 0, 0])
        return losses

    runner.model.loss = collapsed
    runner.train()
    line = read_json_lines(tmp_path / "health.jsonl")[-1]
    monitor, centers = runner.model.monitor, runner.model.centers
    for suffix, head, center in (("", monitor, centers["encoder"]), ("_p2", monitor["p2"], centers["p2"])):
        assert line[f"num_queries{suffix}"] == head["num_queries"].item()
        assert line[f"center_norm{suffix}"] == pytest.approx(center.value.norm().item())
        assert line[f"effective_rank{suffix}"] == pytest.approx(effective_rank(head["slots"][head["present"]]))
    assert (line["used_prototypes_p2"], line["dead_prototypes_p2"]) == (1, [1, 2, 3, 4, 5])
    assert line["used_prototypes"] > 1
    log = next(tmp_path.rglob("*.log")).read_text()
    assert "WARNING - Head p2: Only 1 of 6 prototypes" in log
    assert "WARNING - Only 1 of 6 prototypes" not in log
