"""The recipe's total batch on other hardware: hand-made cases."""

import pytest

from slotcon_plugin.transfer.batch import plan_batch


@pytest.mark.parametrize(
    ("total", "processes", "each", "mode", "expected"),
    [
        (16, 8, 2, "accumulate", (1, 1.0, 1.0)),
        (16, 8, 2, "scale-lr", (1, 1.0, 1.0)),
        (16, 1, 2, "accumulate", (8, 1.0, 1.0)),
        (16, 2, 4, "accumulate", (2, 1.0, 1.0)),
        (16, 1, 4, "scale-lr", (1, 0.25, 4.0)),
        (16, 16, 2, "scale-lr", (1, 2.0, 0.5)),
        (16, 1, 3, "scale-lr", (1, 3 / 16, 16 / 3)),
    ],
)
def test_plans(total, processes, each, mode, expected):
    plan = plan_batch(total, processes, each, mode)
    assert plan[:3] == pytest.approx(expected)
    # as many images as in the recipe are seen, and the step stays in proportion to the batch
    seen = processes * each * plan.accumulate * plan.steps_factor
    assert seen == pytest.approx(total)
    assert plan.lr_factor == pytest.approx(processes * each * plan.accumulate / total)


def test_a_changed_recipe_is_never_silent():
    assert "NOT the recipe's 16" in plan_batch(16, 1, 4, "scale-lr").text
    assert "8 accumulated passes" in plan_batch(16, 1, 2, "accumulate").text
    assert plan_batch(16, 8, 2, "accumulate").text.endswith(": the recipe's")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((16, 1, 3, "accumulate"), "total batch of 16 is no multiple of 1 process x 3 images"),
        ((16, 32, 1, "accumulate"), "no multiple of 32 processes x 1 images"),
        ((16, 0, 2, "accumulate"), "must be at least 1, got 16, 0, 2"),
        ((16, 1, 2, "other"), "accumulate, scale-lr, got 'other'"),
    ],
)
def test_impossible_plans_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_batch(*arguments)
