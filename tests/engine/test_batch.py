"""The recipe's total batch on other hardware: tables done by hand."""

import pytest
from mmengine.config import Config

from slotcon_plugin.engine.batch import fit_batch, plan_batch, stretch_iterations
from slotcon_plugin.errors import UserError


@pytest.mark.parametrize(
    ("total", "processes", "most", "mode", "expected"),
    [
        # keep the recipe: (images per process, passes, learning rate)
        (16, 8, 2, "accumulate", (2, 1, 1.0)),
        (16, 8, 4, "accumulate", (2, 1, 1.0)),  # too many: divided
        (16, 1, 2, "accumulate", (2, 8, 1.0)),
        (16, 2, 4, "accumulate", (4, 2, 1.0)),
        (16, 16, 4, "accumulate", (1, 1, 1.0)),
        (512, 8, None, "accumulate", (64, 1, 1.0)),
        (512, 1, None, "accumulate", (512, 1, 1.0)),
        # follow the hardware
        (16, 8, 2, "scale-lr", (2, 1, 1.0)),
        (16, 1, 4, "scale-lr", (4, 1, 0.25)),
        (16, 16, 2, "scale-lr", (2, 1, 2.0)),
        (16, 1, 3, "scale-lr", (3, 1, 0.1875)),
        (512, 8, None, "scale-lr", (64, 1, 1.0)),
        (512, 3, None, "scale-lr", (170, 1, 510 / 512)),
    ],
)
def test_plans(total, processes, most, mode, expected):
    assert plan_batch(total, processes, most, mode)[:3] == expected


def test_passes_that_the_config_asks_for_count():
    assert plan_batch(512, 2, 32, "scale-lr", accumulate=2)[:3] == (32, 2, 0.25)
    assert plan_batch(512, 2, None, "scale-lr", accumulate=4)[:3] == (64, 4, 1.0)
    assert plan_batch(16, 1, 4, "accumulate", accumulate=4)[:3] == (4, 4, 1.0)
    with pytest.raises(UserError, match="16 cannot be made of 1 process x 4 images x 2 accumulated passes"):
        plan_batch(16, 1, 4, "accumulate", accumulate=2)


def test_a_changed_recipe_is_never_silent():
    text = plan_batch(16, 1, 4, "scale-lr").text
    assert "NOT the recipe's 16: learning rate x 0.25, optimiser steps x 4" in text
    assert "8 accumulated passes, the recipe's, except that BatchNorm sees 2 images" in plan_batch(16, 1, 2).text
    assert plan_batch(16, 8, 2).text == "total batch 16 = 8 processes x 2 images, the recipe's"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((16, 1, 3), "total batch of 16 cannot be made of 1 process x 3 images"),
        ((16, 32, 1), "cannot be made of 32 processes x 1 images"),
        ((16, 3), "cannot be made of 3 processes x 5 images; choose .* --batch-mode scale-lr"),
        ((16, 0, 2), r"must be at least 1, got \(16, 0, 2, 1\)"),
        ((16, 1, 2, "other"), "accumulate, scale-lr, got 'other'"),
    ],
)
def test_impossible_plans_say_what_to_do(arguments, message):
    with pytest.raises(UserError, match=message):
        plan_batch(*arguments)


def recipe(mode: str | None = "scale-lr", **loader) -> Config:
    """As SlotCon's for COCO."""
    return Config(
        dict(
            default_scope="slotcon_plugin",
            model=dict(teacher_momentum=0.99),
            auto_scale_lr=dict(base_batch_size=512) | (dict(mode=mode) if mode else {}),
            optim_wrapper=dict(optimizer=dict(lr=2.0)),
            param_scheduler=[dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=True)],
            train_dataloader=dict(**loader),
            train_cfg=dict(type="PretrainLoop", max_epochs=800),
        )
    )


@pytest.mark.parametrize("mode", ["scale-lr", None])
@pytest.mark.parametrize(("processes", "share"), [(8, 64), (1, 512), (16, 32)])
def test_a_share_of_the_recipe_changes_nothing_else(mode, processes, share):
    cfg, same = recipe(mode), recipe(mode)
    fit_batch(cfg, processes)
    assert cfg.train_dataloader.pop("batch_size") == share
    assert cfg.auto_scale_lr.pop("enable") is False
    assert cfg.to_dict() == same.to_dict()


def test_pretraining_follows_another_batch():
    cfg = recipe(batch_size=32)
    cfg.optim_wrapper.accumulative_counts = 2
    fit_batch(cfg, 2)  # total 128, a quarter of the recipe
    assert cfg.optim_wrapper.optimizer.lr == 0.5
    assert cfg.param_scheduler[0].eta_min == 2.5e-7
    assert cfg.model.teacher_momentum == pytest.approx(0.99**0.25)
    assert cfg.train_cfg.max_epochs == 800


def test_pretraining_can_keep_the_batch():
    cfg = recipe(batch_size=32)
    fit_batch(cfg, 2, "accumulate")
    assert cfg.optim_wrapper.accumulative_counts == 8
    assert (cfg.optim_wrapper.optimizer.lr, cfg.model.teacher_momentum) == (2.0, 0.99)


def test_cuda_graphs_and_accumulated_passes_do_not_go_together():
    cfg = recipe(batch_size=32)
    cfg.model.compile = "reduce-overhead"
    with pytest.raises(
        UserError, match=r"gradients may not be accumulated .* 8 accumulated passes.*model.compile=True"
    ):
        fit_batch(cfg, 2, "accumulate")
    cfg = recipe(batch_size=32)
    cfg.model.compile = "reduce-overhead"
    fit_batch(cfg, 2)  # a smaller batch
    cfg = recipe(batch_size=32)
    cfg.model.compile, cfg.auto_scale_lr = "reduce-overhead", {}
    fit_batch(cfg, 2)
    cfg.optim_wrapper.accumulative_counts = 2
    with pytest.raises(UserError, match=r"over several of them: optim_wrapper.accumulative_counts=2\. Take model"):
        fit_batch(cfg, 2)


def test_a_recipe_without_a_total_batch_is_told_of_the_one_it_gets():
    cfg = recipe(batch_size=4)
    cfg.pop("auto_scale_lr")
    cfg.optim_wrapper.accumulative_counts = 3
    assert "base_batch_size): 24 = 2 processes x 4 images x 3 accumulated passes" in fit_batch(cfg, 2)
    with pytest.raises(UserError, match="--batch-mode scale-lr: the config states no total batch"):
        fit_batch(cfg, 2, "scale-lr")


def test_a_momentum_that_must_follow_has_to_be_stated():
    cfg = recipe(batch_size=32)
    del cfg.model.teacher_momentum
    with pytest.raises(UserError, match="state model"):
        fit_batch(cfg, 2)


@pytest.mark.parametrize(("processes", "mode"), [(2, None), (2, "accumulate"), (8, None), (16, "scale-lr")])
def test_a_fitted_config_is_left_alone(processes, mode):
    cfg = recipe(batch_size=32)
    cfg.param_scheduler[0].update(by_epoch=False, begin=100, end=1000)
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=1000, val_interval=200)
    cfg.default_hooks = dict()
    fit_batch(cfg, processes, mode)
    once = Config(cfg.to_dict())
    fit_batch(cfg, processes)  # --batch-mode is said once
    assert cfg.to_dict() == once.to_dict()


def test_a_fitted_config_is_fitted_to_other_processes_as_its_recipe_is():
    """16 images as 8 passes of 2 on one process, its copy taken to 8 processes, and back."""
    cfg = recipe("accumulate", batch_size=2)
    cfg.auto_scale_lr.base_batch_size = 16
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=100)
    cfg.default_hooks = dict()
    for processes, passes in [(1, 8), (8, 1), (1, 8), (2, 4)]:
        fit_batch(cfg, processes)
        assert (cfg.optim_wrapper.accumulative_counts, cfg.train_cfg.max_iters) == (passes, 100 * passes)
        assert (cfg.optim_wrapper.optimizer.lr, cfg.auto_scale_lr.base_batch_size) == (2.0, 16)


def test_the_copy_of_a_scaled_run_scales_from_its_own_batch():
    cfg = recipe(batch_size=32)
    fit_batch(cfg, 2)  # 64 of 512
    fit_batch(cfg, 4)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2.0 * 128 / 512)
    assert cfg.model.teacher_momentum == pytest.approx(0.99 ** (128 / 512))


@pytest.mark.parametrize(("mode", "factor"), [("accumulate", 8), ("scale-lr", 8)])
def test_the_short_forms_of_mmengine(mode, factor):
    """A single schedule, a loop without a type, no default hooks."""
    cfg = recipe("accumulate", batch_size=2)
    cfg.auto_scale_lr.base_batch_size = 16
    cfg.param_scheduler = dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=False, T_max=100)
    cfg.train_cfg = dict(by_epoch=False, max_iters=100, val_interval=20)
    epochs = Config(cfg.to_dict())
    fit_batch(cfg, 1, mode)
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (100 * factor, 20 * factor)
    assert cfg.param_scheduler.T_max == 100 * factor
    assert cfg.param_scheduler.eta_min == pytest.approx(1e-6 if mode == "accumulate" else 1e-6 / 8)
    epochs.pop("param_scheduler")
    epochs.train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=2)
    fit_batch(epochs, 1, mode)
    assert epochs.train_cfg == dict(by_epoch=True, max_epochs=12, val_interval=2)


def test_what_counts_iterations_is_stretched_and_what_counts_epochs_is_not():
    counted = dict(begin=20, end=100, T_max=80, step_size=10, milestones=[1, 50], by_epoch=False)
    by_epoch = dict(type="MultiStepLR", end=12, milestones=[8, 11], by_epoch=True)
    loop = dict(max_iters=100.0, val_begin=50, val_interval=20)
    hook = dict(by_epoch=False, interval=25, save_begin=50)
    cfg = Config(dict(param_scheduler=[counted, by_epoch], train_cfg=loop, default_hooks=dict(checkpoint=hook)))
    stretch_iterations(cfg, 0.3)
    assert [dict(schedule) for schedule in cfg.param_scheduler] == [
        dict(begin=6, end=30, T_max=24, step_size=3, milestones=[1, 15], by_epoch=False),
        by_epoch,
    ]
    assert cfg.train_cfg == dict(max_iters=30, val_begin=15, val_interval=6)
    assert cfg.default_hooks.checkpoint == dict(by_epoch=False, interval=8, save_begin=15)


def test_a_warm_up_that_would_be_one_step_is_left_out():
    """mmengine's LinearLR of one step sets the rate to its start and never ends."""
    cfg = recipe(batch_size=512)  # on eight processes eight times the recipe's batch
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=1000)
    cfg.param_scheduler = [
        dict(type="LinearLR", start_factor=0.001, by_epoch=False, end=10),
        dict(type="PolyLR", by_epoch=False, begin=10, end=1000),
    ]
    fit_batch(cfg, 8)
    assert [dict(schedule) for schedule in cfg.param_scheduler] == [
        dict(type="PolyLR", by_epoch=False, begin=1, end=125)
    ]


def test_evaluations_whose_interval_is_not_stated_keep_theirs():
    cfg = recipe("accumulate", batch_size=2)
    cfg.auto_scale_lr.base_batch_size = 16
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=3000)
    fit_batch(cfg, 1)  # 8 passes a step
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (24000, 8000)
