"""Groupings of a few fixed photos while a run goes on."""

from __future__ import annotations

import numpy as np
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.photos import evenly_spaced
from slotcon_plugin.registry import HOOKS
from slotcon_plugin.visualization.grouped import group_photos
from slotcon_plugin.visualization.sheet import contact_sheet


@HOOKS.register_module()
class GroupingPicturesHook(Hook):
    """Sends a contact sheet of groupings to the visualizer (TensorBoard, ``vis_data/vis_image`` in the work dir).

    The photos stay the same, and a prototype keeps its colour, so that one can watch segments form. One is drawn
    before the first step as well; of a method with several heads, a sheet a head.

    Args:
        num_photos: how many photos of the training set to draw, evenly spaced.
        interval: epochs between pictures.
        short_side: of what the model sees, in pixels.
    """

    priority = "LOW"

    def __init__(self, num_photos: int = 6, interval: int = 1, short_side: int = 320) -> None:
        if interval < 1 or num_photos < 1:
            raise UserError(
                f"GroupingPicturesHook: interval and num_photos must be 1 or more, got {interval} and {num_photos}"
            )
        self.photos: list[str] = []
        self.num_photos = num_photos
        self.interval = interval
        self.short_side = short_side

    def before_train(self, runner: Runner) -> None:
        """Choose the photos; draw the groupings before training."""
        unwrapped(runner.model).require("groups", "GroupingPicturesHook")
        source = runner.train_dataloader.dataset.source
        self.photos = [source.path(index) for index in evenly_spaced(len(source), self.num_photos)]
        if runner.iter == 0:
            self._draw_on_first_rank(runner, step=0)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw them again."""
        if self.every_n_epochs(runner, self.interval):
            self._draw_on_first_rank(runner, step=runner.iter)

    def _draw_on_first_rank(self, runner: Runner, step: int) -> None:
        if is_main_process():
            self._draw(runner, step)
        barrier()  # that the others wait here, and not in a step, whose time a budget goes by

    def _draw(self, runner: Runner, step: int) -> None:
        model = unwrapped(runner.model)
        was_training, shown = model.training, getattr(model, "shown_head", None)
        model.eval()
        try:
            for head in getattr(model, "heads", (None,)):
                model.show_head(head)
                photos = group_photos(model, self.photos, self.short_side, max_side=480)
                name = f"groupings_{head}" if head else "groupings"
                runner.visualizer.add_image(name, np.asarray(contact_sheet(photos, height=200)), step=step)
        except (UserError, MemoryError) as error:  # pictures are not worth a run
            runner.logger.warning(f"GroupingPicturesHook draws nothing: {str(error) or type(error).__name__}")
        finally:
            model.show_head(shown)
            model.train(was_training)
