"""Settings that follow from the run: what the rules give, where the values go, what the log says of it."""

import math

import pytest
from mmengine.config import Config

from slotcon_plugin.config import RunSize, load_config, settle
from slotcon_plugin.config.rules import teacher_momentum
from slotcon_plugin.errors import UserError
from slotcon_plugin.models.teacher import cosine_momentum

SMALL = "configs/pretrain/slotcon_small.py"


def run_of(steps: int, photos: int = 2915, batch: int = 64) -> RunSize:
    return RunSize(photos=photos, batch=batch, recipe_batch=64, epochs=10, steps=steps)


@pytest.mark.parametrize("steps", [100, 198, 450, 900])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_short_run_forgets_its_random_weights(steps, schedule):
    """The average is made step by step; of weights of 1 at the start and 0 afterwards, what is left."""
    m, left = teacher_momentum(0.999, run_of(steps), schedule), 1.0
    for step in range(1, steps + 1):
        left *= cosine_momentum(m, step, steps) if schedule == "cosine" else m
    assert 0.0004 < left < 0.0013
    with_paper = math.prod(cosine_momentum(0.99, step, steps) for step in range(1, steps + 1))
    assert with_paper > 0.01


@pytest.mark.parametrize(
    ("steps", "recipe", "schedule", "expected"),
    [
        (450, 0.99, "cosine", 0.9689),  # 1 - 14 / 450
        (450, 0.999, "constant", 0.9844),
        (184_800, 0.99, "cosine", 0.99),  # the paper's run: the paper's value
        (20, 0.99, "cosine", 0.5),
    ],
)
def test_teacher_momentum(steps, recipe, schedule, expected):
    assert teacher_momentum(recipe, run_of(steps), schedule) == expected


def test_the_recipes_momentum_is_for_its_batch():
    assert teacher_momentum(0.99, run_of(100_000, batch=16)) == pytest.approx(0.99**0.25)


def test_values_take_the_place_of_rules(repo):
    cfg = load_config(repo / SMALL)
    text = settle(cfg, run_of(450))
    assert cfg.model.teacher_momentum == 0.9689
    assert "2,915 photos, 10 epochs, 450 steps of 64 images" in text
    assert "teacher_momentum 0.9689, not the recipe's 0.99: the teacher forgets" in text
    assert settle(cfg, run_of(100)) == ""
    assert cfg.model.teacher_momentum == 0.9689


def test_a_value_of_ones_own_is_left_alone(repo):
    cfg = load_config(repo / SMALL, {"model.teacher_momentum": 0.9})
    assert "teacher_momentum" not in settle(cfg, run_of(450))
    assert cfg.model.teacher_momentum == 0.9


def test_without_a_run_the_recipes_values_hold(repo):
    cfg = load_config(repo / SMALL)
    settle(cfg)
    assert cfg.model.teacher_momentum == 0.99


@pytest.mark.parametrize("written", ["${momentum(0.99)}", "${teacher_momentum()}", "${teacher_momentum(a b)}"])
def test_rules_that_are_none(written):
    with pytest.raises(UserError, match="in the config"):
        settle(Config({"model": {"teacher_momentum": written}}), run_of(450))
