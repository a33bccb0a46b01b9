"""Prototypes wait for the first share of a run; shared targets and the mean's entropy go through a run beside it."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from slotcon_plugin.errors import UserError


class Watch(Hook):
    """The student's prototypes and its projector before each iteration and after the last."""

    def __init__(self):
        self.prototypes, self.projector, self.losses = [], [], set()

    def _look(self, runner):
        self.prototypes.append(runner.model.student["grouping"].prototypes.detach().clone())
        self.projector.append(next(runner.model.student["projector"].parameters()).detach().clone())

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._look(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses |= outputs.keys()

    def after_train(self, runner):
        self._look(runner)


def test_prototypes_stay_for_the_first_share_and_move_then(tiny):
    model = dict(center=dict(type="Sinkhorn", window=3), mean_entropy_weight=0.2)
    decay = dict(optimizer=dict(type="AdamW", lr=0.01, weight_decay=0.5))  # which would move them without a gradient
    runner = tiny(epochs=2, model=model, optim_wrapper=decay, hooks=[dict(type="FrozenPrototypesHook", share=0.4)])
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    moved = [not torch.equal(a, b) for a, b in zip(watch.prototypes, watch.prototypes[1:])]
    assert moved == [False] * 3 + [True] * 4 + [False]  # the last step has a learning rate of 0
    assert all(not torch.equal(a, b) for a, b in zip(watch.projector, watch.projector[1:-1]))
    assert {"loss_group", "loss_slot", "loss_mean_entropy"} <= watch.losses
    assert "center" not in runner.model.monitor and not dict(runner.model.center.named_buffers())


def test_prototypes_that_have_learned_are_not_frozen_again_in_a_longer_run(tiny):
    hooks = [dict(type="FrozenPrototypesHook", share=0.5)]
    tiny(epochs=1, hooks=hooks).train()  # 4 steps, of which the last two move them; a checkpoint after 3
    runner = tiny(epochs=4, hooks=hooks, resume=True)  # 16 steps, half of which would be 8
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    assert runner.iter == 16 and not torch.equal(watch.prototypes[0], watch.prototypes[1])


def test_another_wrapper_is_refused(tiny):
    runner = tiny(hooks=[dict(type="FrozenPrototypesHook")])
    runner.optim_wrapper = OptimWrapper(torch.optim.SGD(runner.model.parameters(), lr=0.1))
    with pytest.raises(UserError, match=r"FrozenPrototypesHook throws gradients away .* OptimWrapper has no place for"):
        runner.train()


def test_a_share_that_cannot_be(tiny):
    with pytest.raises(UserError, match="share must be from 0 to below 1, got 1"):
        tiny(hooks=[dict(type="FrozenPrototypesHook", share=1)]).train()
