"""The figures of health, and from where on they raise an alarm."""

import json
import math

import numpy as np
import pytest
import torch

from slotcon_plugin.engine.health import monitored_figures
from slotcon_plugin.engine.health_alarms import SITUATIONS, Alarms
from slotcon_plugin.engine.health_figures import effective_rank, entropy, gradient_norm, usage_figures
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
