"""Evaluations while training: do prototypes become classes, do features get better or forget?

Labels never reach the training, and what it draws at random stays what it was. One process works, the others wait:
keep the sets small.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.runner import Runner

from slotcon_plugin.engine.between_epochs import BetweenEpochsHook
from slotcon_plugin.evaluation.features import INPUT_SIZE, OwnPixels, pixels_of
from slotcon_plugin.evaluation.probe import probe_backbone
from slotcon_plugin.evaluation.readers import open_labelled_set
from slotcon_plugin.evaluation.unsupervised import prototypes_of, segment_unsupervised
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.models.modes import evaluating
from slotcon_plugin.registry import HOOKS

_NOISE = 1.0  # mIoU between two probes of the same features, with heads of other seeds and a hundred photos

PROBE = "linear_probe"
"""What :class:`LinearProbeHook` has found last, in the run's message hub: a text for people."""


def _add_scalars(runner: Runner, figures: dict[str, float]) -> None:
    """To every backend; without `iter`, as mmengine's logger writes it, a record's step is an epoch (see curves)."""
    runner.visualizer.add_scalars({**figures, "iter": runner.iter}, step=runner.iter)


@HOOKS.register_module()
class UnsupervisedSegHook(BetweenEpochsHook):
    """Scores the teacher's prototypes on a small labelled set before training, every few epochs, and at the end.

    Figures go to the log and, under ``unsupervised/``, to every backend of the visualizer (TensorBoard,
    ``vis_data/scalars.json``), the step being the iteration.

    Args:
        data: root folder of a labelled set in any layout of `open_labelled_set`.
        split: its split.
        layout: "auto" or a layout's name.
        interval: epochs between two evaluations.
        limit: photos used, spread evenly over the split; None takes all.
        short_side: photos are resized to this short side.
        batch_size: photos at a time.
    """

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
        super().__init__(interval)
        # opened here: a wrong path is to be found before the first epoch, not after it
        self.data = open_labelled_set(data, split, layout).subset(limit)
        self.short_side = short_side
        self.batch_size = batch_size

    def before_train(self, runner: Runner) -> None:
        """Refuse a method without prototypes; evaluate the untrained model."""
        prototypes_of(unwrapped(runner.model), "teacher")
        super().before_train(runner)

    def work(self, runner: Runner) -> None:
        """See the class."""
        result = segment_unsupervised(
            unwrapped(runner.model), self.data, short_side=self.short_side, batch_size=self.batch_size
        )
        figures = result.metrics()
        _add_scalars(runner, {f"unsupervised/{name}": value for name, value in figures.items()})
        shown = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
        runner.logger.info(f"Unsupervised segmentation of {self.data.name} ({len(self.data)} photos): {shown}")


@HOOKS.register_module()
class LinearProbeHook(BetweenEpochsHook):
    """Probes the frozen features of the branch that is exported, before training, every few epochs, and at the end.

    A line each time, the figure under ``probe/mIoU`` in every backend of the visualizer, and the last one in the run's
    closing words. A run from weights whose features become worse than those of the weights is warned about, once; not
    one that was resumed without the probe's value at its start.

    Args:
        data: root folder of a labelled set in any layout of `open_labelled_set`.
        train, test: splits; a head learns on one and is scored on the other.
        layout: "auto" or a layout's name.
        interval: epochs between two probes.
        limit: photos used of each split, spread evenly; None takes all.
        input_size: height and width; None = 240 x 320, or the size that the network is made for.
        stages, epochs: see :func:`~slotcon_plugin.evaluation.probe.probe_backbone`.
    """

    def __init__(
        self,
        data: str,
        train: str = "train",
        test: str = "val",
        layout: str = "auto",
        interval: int = 1,
        limit: int | None = 100,
        input_size: tuple[int, int] | None = None,
        stages: Sequence[int] = (-2, -1),
        epochs: int = 15,
    ) -> None:
        super().__init__(interval)
        self.train, self.test = (open_labelled_set(data, split, layout).subset(limit) for split in (train, test))
        self.input_size = input_size and tuple(input_size)
        self.settings = {"stages": tuple(stages), "epochs": epochs}
        self._start: float | None = None
        self._start_iter = 0
        self._warned = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """A resumed run knows what it began with."""
        if self._start is not None:
            checkpoint[PROBE] = {"start": self._start, "start_iter": self._start_iter, "warned": self._warned}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """See :meth:`before_save_checkpoint`."""
        if PROBE in checkpoint:
            former = checkpoint[PROBE]
            self._start, self._warned = former["start"], former["warned"]
            self._start_iter = former.get("start_iter", 0)  # checkpoints of old do not say

    def work(self, runner: Runner) -> None:
        """See the class."""
        model = unwrapped(runner.model)
        network = model.branch(model.transfer_branch)["backbone"]
        backbone = OwnPixels(network, *pixels_of(model))
        size = self.input_size or getattr(network, "image_size", None) or INPUT_SIZE
        asked = dict(seeds=(0,), neighbours=0, device=next(model.parameters()).device, input_size=size)
        with evaluating(model):  # the whole: what is compiled for training's batches alone looks at its own mode
            result = probe_backbone(backbone, self.train, self.test, **asked, **self.settings)["linear"]
        miou = result.miou[0]
        text = f"{miou:.1f} mIoU"
        if self._start is None:
            self._start, self._start_iter = miou, runner.iter
        else:
            at = f"after iteration {self._start_iter}" if self._start_iter else "before training"
            text += f", {self._start:.1f} {at}"
        _add_scalars(runner, {"probe/mIoU": miou})
        runner.message_hub.update_info(PROBE, f"{text} ({len(self.train)} photos of {self.train.name}, linear)")
        print_log(f"linear probe after iteration {runner.iter}: {text}", "current")
        from_weights = model.init and self._start_iter == 0
        if from_weights and miou < self._start - _NOISE and not self._warned:
            self._warned = True
            print_log(
                f"The features have become worse than those of the weights that the run began with: {text}. If it "
                "stays so, lower the learning rate (optim_wrapper.optimizer.lr) or train for fewer epochs",
                "current",
                logging.WARNING,
            )
