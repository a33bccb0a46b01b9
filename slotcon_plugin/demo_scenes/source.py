"""Demo scenes as a source of photos: made when a run first asks for them."""

from __future__ import annotations

from mmengine.dist import barrier, is_main_process

from slotcon_plugin.data import ImageFolder
from slotcon_plugin.demo_scenes.make import make_demo_scenes
from slotcon_plugin.registry import DATASETS


@DATASETS.register_module()
class DemoScenes(ImageFolder):
    """The training split of a set of demo scenes, which is written to ``root`` if it is not there.

    Args:
        root: folder of the set; its masks serve for evaluation (``--data ROOT``).
        num_train: scenes to train on.
        num_val: scenes for evaluation.
        size: (width, height) in pixels.
        seed: another seed gives other scenes.
    """

    def __init__(
        self, root: str, num_train: int = 1200, num_val: int = 80, size: tuple[int, int] = (320, 240), seed: int = 0
    ) -> None:
        if is_main_process():
            make_demo_scenes(root, {"train": num_train, "val": num_val}, tuple(size), seed)
        barrier()
        super().__init__(f"{root}/images/train")
