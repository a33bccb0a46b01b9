"""Groupings of a few fixed photos while a run goes on."""

from __future__ import annotations

import numpy as np
from mmengine.runner import Runner

from slotcon_plugin.engine.between_epochs import BetweenEpochsHook
from slotcon_plugin.errors import UserError
from slotcon_plugin.models.distributed import unwrapped
from slotcon_plugin.models.modes import evaluating
from slotcon_plugin.photos import evenly_spaced
from slotcon_plugin.registry import HOOKS
from slotcon_plugin.visualization.grouped import group_photos
from slotcon_plugin.visualization.sheet import contact_sheet


@HOOKS.register_module()
class GroupingPicturesHook(BetweenEpochsHook):
    """Sends a contact sheet of groupings to the visualizer (TensorBoard, ``vis_data/vis_image`` in the work dir).

    The photos stay the same, and a prototype keeps its colour, so that one can watch segments form. One is drawn
    before the first step and after the last as well; of a method with several heads, a sheet a head.

    Args:
        num_photos: how many photos of the training set to draw, evenly spaced.
        interval: epochs between pictures.
        short_side: of what the model sees, in pixels.
    """

    def __init__(self, num_photos: int = 6, interval: int = 1, short_side: int = 320) -> None:
        super().__init__(interval)
        if num_photos < 1:
            raise UserError(f"GroupingPicturesHook: num_photos must be 1 or more, got {num_photos}")
        self.photos: list[str] = []
        self.num_photos = num_photos
        self.short_side = short_side

    def before_train(self, runner: Runner) -> None:
        """Choose the photos; draw the groupings before training."""
        unwrapped(runner.model).require("groups", "GroupingPicturesHook")
        source = runner.train_dataloader.dataset.source
        self.photos = [source.path(index) for index in evenly_spaced(len(source), self.num_photos)]
        super().before_train(runner)

    def work(self, runner: Runner) -> None:
        """Draw them."""
        model = unwrapped(runner.model)
        shown = model.shown_head
        try:
            with evaluating(model):
                for head in model.heads or (None,):
                    model.show_head(head)
                    photos = group_photos(model, self.photos, self.short_side, max_side=480)
                    name = f"groupings_{head}" if head else "groupings"
                    sheet = np.asarray(contact_sheet(photos, height=200))
                    runner.visualizer.add_image(name, sheet, step=runner.iter)
        except (UserError, MemoryError) as error:  # pictures are not worth a run
            runner.logger.warning(f"GroupingPicturesHook draws nothing: {str(error) or type(error).__name__}")
        finally:
            model.show_head(shown)
