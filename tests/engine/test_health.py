import json
import math
import shutil

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook

from slotcon_plugin.engine import CollapseError
from slotcon_plugin.engine.health import monitored_figures
from slotcon_plugin.engine.health_alarms import SITUATIONS, Alarms
from slotcon_plugin.engine.health_figures import effective_rank, entropy, gradient_norm, usage_figures
from slotcon_plugin.engine.json_lines import read_json_lines
from slotcon_plugin.visualization.curves import read_run
from slotcon_plugin.visualization.curves_page import HEALTHY as HEALTHY_RANGES
from slotcon_plugin.visualization.curves_page import HEALTHY_OF_K as HEALTHY_RANGES_OF_K


def test_entropy_by_hand():
    assert entropy(torch.tensor([1, 1, 2])) == pytest.approx(1.5 * math.log(2))
    assert entropy(torch.tensor([0, 7, 0])) == 0
    assert entropy(torch.zeros(3)) == 0
    assert entropy(torch.full((8,), 0.3)) == pytest.approx(math.log(8))


def test_effective_rank_is_that_of_a_naive_computation():
    rows = torch.randn(40, 12) * torch.logspace(0, -3, 12)
    x = np.array([row / np.linalg.norm(row) for row in rows.double().numpy()])
    s = np.sqrt(np.linalg.eigvalsh(x.T @ x).clip(0))
    p = s / s.sum()
    assert effective_rank(rows) == pytest.approx(np.exp(-sum(v * np.log(v) for v in p if v > 0)), rel=1e-6)


def test_effective_rank_at_its_ends():
    assert effective_rank(torch.eye(7) * torch.arange(1.0, 8)[:, None]) == pytest.approx(7)  # lengths do not matter
    assert effective_rank(torch.tensor([[1.0, 2, 3]]).repeat(9, 1)) == pytest.approx(1, abs=1e-6)
    assert effective_rank(torch.zeros(5, 3)) == 0
    assert effective_rank(torch.zeros(0, 3)) == 0
    assert effective_rank(torch.tensor([[float("nan"), 1], [1, 0], [0, 1]])) == pytest.approx(2)


def test_effective_rank_of_many_rows_is_that_of_an_even_choice():
    rows = torch.randn(2500, 4)
    assert effective_rank(rows) == effective_rank(rows[::3])


def test_gradient_norm_is_that_of_one_long_vector():
    params = [torch.nn.Parameter(torch.zeros(shape)) for shape in [(3, 2), (5,), ()]]
    for p in params[:2]:
        p.grad = torch.randn_like(p)
    flat = torch.cat([p.grad.flatten() for p in params[:2]])
    assert gradient_norm(params).item() == pytest.approx(math.sqrt(sum(v * v for v in flat.tolist())))
    assert gradient_norm(params[2:]).item() == 0


def test_usage_by_hand():
    assert usage_figures(torch.tensor([4, 0, 4, 0])) == {
        "used_prototypes": 2,
        "usage_entropy": pytest.approx(math.log(2)),
    }


def test_figures_follow_what_the_pretrainer_offers():
    assert monitored_figures({}) == {}
    assert monitored_figures({"positive_similarity": torch.tensor(0.25), "features": torch.eye(3)}) == {
        "positive_similarity": 0.25,
        "effective_rank": pytest.approx(3),
    }
    slots = torch.tensor([[[1.0, 1.0], [1.0, -9.0]]])
    full = {
        "num_queries": torch.tensor(9),
        "center": torch.tensor([3.0, 4.0]),
        "slots": slots,
        "present": torch.tensor([[True, False]]),
    }
    assert monitored_figures(full) == {"num_queries": 9, "center_norm": 5, "effective_rank": pytest.approx(1, abs=1e-5)}


# --- warnings ------------------------------------------------------------------------------------------------------

HEALTHY = dict(
    epoch=5,
    num_prototypes=64,
    used_prototypes=60,
    usage_entropy=3.5,
    live_prototypes_epoch=60,
    teacher_entropy=2.0,
    num_queries=300,
    effective_rank=40.0,
    data_time_share=0.02,
)
SICK = {
    "prototypes_collapsed": (dict(usage_entropy=0.3, used_prototypes=2), "2 of 64 prototypes own nearly every"),
    "features_collapsed": (dict(effective_rank=1.2), "effective rank 1.20"),
    "few_prototypes": (dict(live_prototypes_epoch=15), "Only 15 of 64 prototypes"),
    "teacher_uniform": (dict(teacher_entropy=4.13), "entropy is 4.13, and 4.16 would be an even spread"),
    "teacher_sharp": (dict(teacher_entropy=0.01), "entropy 0.010 of at most 4.16"),
    "no_queries": (dict(num_queries=1), "No prototype is found in both views"),
    "slow_data": (dict(data_time_share=0.45), "45% of the time is spent waiting for photos"),
}


def test_every_situation_has_its_case():
    assert {s.name for s in SITUATIONS} == set(SICK)


@pytest.mark.parametrize("name", SICK)
def test_a_situation_is_told_once_until_it_has_been_over(name):
    patience = {s.name: s.patience for s in SITUATIONS}[name]
    sick, words = {**HEALTHY, **SICK[name][0]}, SICK[name][1]
    alarms = Alarms()
    told = [alarms.judge(sick) for _ in range(3 * patience)]
    assert [len(news) for news in told] == [int(i == patience - 1) for i in range(3 * patience)]
    situation, text = told[patience - 1][0]
    assert situation.name == name
    assert words in text
    # a moment of health does not open it anew, a lasting one does
    if patience > 1:
        assert not any(alarms.judge(f) for f in [HEALTHY, *[sick] * patience])
    for _ in range(patience):
        assert alarms.judge(HEALTHY) == []
    assert [len(alarms.judge(sick)) for _ in range(patience)] == [0] * (patience - 1) + [1]


@pytest.mark.parametrize(
    ("num_prototypes", "in_use", "collapsed"),
    [
        (256, 15, True),
        (256, 17, False),
        (64, 3.9, True),
        (64, 4.1, False),
        (24, 2.9, True),
        (24, 3.1, False),
        (4, 2.1, 0),
    ],
)
def test_from_how_many_prototypes_in_use_on_it_is_a_collapse(num_prototypes, in_use, collapsed):
    figures = {"num_prototypes": num_prototypes, "usage_entropy": math.log(in_use), "used_prototypes": 2}
    alarms = Alarms()
    told = [s.name for _ in range(5) for s, _ in alarms.judge({"epoch": 2, **figures})]
    assert told == ["prototypes_collapsed"] * collapsed


# Situation -> figure, its threshold (of 64 prototypes), the sick side of it, and what docs/healthy_run.md says of it.
THRESHOLDS = {
    "features_collapsed": ("effective_rank", 2, "below", "| below 2: all photos look alike"),
    "few_prototypes": ("live_prototypes_epoch", 0.25 * 64, "below", "| below a quarter of K:"),
    "teacher_uniform": ("teacher_entropy", 0.97 * math.log(64), "above", "| stays above 0.97 ln K:"),
    "teacher_sharp": ("teacher_entropy", 0.05 * math.log(64), "below", " Below 0.05 ln K:"),
    "no_queries": ("num_queries", 2, "below", "| below 2: the slot contrast"),
    "slow_data": ("data_time_share", 0.3, "above", "| above 0.3:"),
}


@pytest.mark.parametrize("name", THRESHOLDS)
def test_where_a_situation_begins_and_the_guide_says_so(name, repo):
    figure, threshold, side, told = THRESHOLDS[name]
    (situation,) = (s for s in SITUATIONS if s.name == name)
    sick, well = (1.001, 0.999) if side == "above" else (0.999, 1.001)
    assert situation.holds({**HEALTHY, figure: sick * threshold})
    assert not situation.holds({**HEALTHY, figure: well * threshold})
    guide = (repo / "docs/healthy_run.md").read_text(encoding="utf-8")
    (row,) = (line for line in guide.splitlines() if line.startswith("| `") and f"`{figure}`" in line.split("|")[1])
    assert told in row


def test_what_the_curves_page_calls_healthy_begins_where_no_alarm_is_given():
    for name, (figure, threshold, side, _) in THRESHOLDS.items():
        low, high = HEALTHY_RANGES_OF_K[figure](64) if figure in HEALTHY_RANGES_OF_K else HEALTHY_RANGES[figure]
        assert (high <= threshold) if side == "above" else (low >= threshold), name
    assert HEALTHY_RANGES_OF_K["teacher_entropy"](64) == (0.05 * math.log(64), 0.97 * math.log(64))


def test_health_is_silent_and_so_is_what_cannot_be_judged():
    alarms = Alarms()
    assert not any(alarms.judge(HEALTHY) for _ in range(50))
    assert not any(alarms.judge({"epoch": 9, "data_time_share": None}) for _ in range(50))


def test_the_first_epoch_is_not_judged_except_for_its_speed():
    sick = {key: value for figures, _ in SICK.values() for key, value in figures.items()}
    told = [s.name for _ in range(30) for s, _ in Alarms().judge({**HEALTHY, **sick, "epoch": 1})]
    assert told == []
    alarms = Alarms()
    assert [s.name for _ in range(30) for s, _ in alarms.judge({**HEALTHY, **sick, "epoch": 1})] == ["slow_data"]


def test_a_resumed_run_does_not_repeat_itself():
    sick = {**HEALTHY, **SICK["slow_data"][0]}
    first, second = Alarms(), Alarms()
    assert sum(len(first.judge(sick)) for _ in range(6)) == 1
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert sum(len(second.judge(sick)) for _ in range(6)) == 0


# --- in a run ------------------------------------------------------------------------------------------------------

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
    next(tmp_path.glob("2*")).rename(tmp_path / "1")  # folders of starts within one second would be one
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
        next(tmp_path.glob("2*")).rename(tmp_path / number)
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
