"""Unsupervised segmentation while training: a curve that says whether prototypes become classes."""

from __future__ import annotations

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation.readers import open_labelled_set
from slotcon_plugin.evaluation.unsupervised import prototypes_of, segment_unsupervised
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.registry import HOOKS


@HOOKS.register_module()
class UnsupervisedSegHook(Hook):
    """Scores the teacher's prototypes on a small labelled set before training, every few epochs, and at the end.

    Labels never reach the training. Figures go to the log and, under ``unsupervised/``, to every backend of the
    visualizer (TensorBoard, ``vis_data/scalars.json``), the step being the iteration. One process works, the others
    wait: keep the set small.

    Args:
        data: root folder of a labelled set in any layout of `open_labelled_set`.
        split: its split.
        layout: "auto" or a layout's name.
        interval: epochs between two evaluations.
        limit: photos used, spread evenly over the split; None takes all.
        short_side: photos are resized to this short side.
        batch_size: photos at a time.
    """

    priority = "LOW"  # after the teacher's update

    def __init__(
        self,
        data: str,
        split: str = "val",
        layout: str = "auto",
        interval: int = 1,
        limit: int | None = 100,
        short_side: int = 320,
        batch_size: int = 8,
    ) -> None:
        if interval < 1:
            raise UserError(f"UnsupervisedSegHook: interval must be at least 1 epoch, got {interval}")
        # opened here: a wrong path is to be found before the first epoch, not after it
        self.data = open_labelled_set(data, split, layout).subset(limit)
        self.interval = interval
        self.short_side = short_side
        self.batch_size = batch_size

    def before_train(self, runner: Runner) -> None:
        """Refuse a method without prototypes; the value of the untrained model is where the curve starts."""
        prototypes_of(unwrapped(runner.model), "teacher")
        if runner.iter == 0:
            self._evaluate(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Evaluate every `interval` epochs and after the last."""
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._evaluate(runner)

    def _evaluate(self, runner: Runner) -> None:
        if not is_main_process():
            return
        result = segment_unsupervised(
            unwrapped(runner.model), self.data, short_side=self.short_side, batch_size=self.batch_size
        )
        figures = result.metrics()
        runner.visualizer.add_scalars({f"unsupervised/{k}": v for k, v in figures.items()}, step=runner.iter)
        shown = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
        runner.logger.info(f"Unsupervised segmentation of {self.data.name} ({len(self.data)} photos): {shown}")
