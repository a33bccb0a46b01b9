"""Photos and masks of one's own as a data set of mmsegmentation's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from slotcon_plugin.evaluation import open_labelled_set
from slotcon_plugin.evaluation.labelled_set import FOREIGN
from slotcon_plugin.evaluation.metrics import IGNORE


@DATASETS.register_module()
class LabelledPhotosDataset(BaseSegDataset):
    """What :func:`~slotcon_plugin.evaluation.open_labelled_set` finds: the data sets that probes take, as they lie.

    Args:
        data_root: folder with ``images/SPLIT``, ``annotations/SPLIT`` and, perhaps, ``classes.txt``; or a data set in
            another layout of :mod:`~slotcon_plugin.evaluation.readers`.
        split: which part.
        kwargs: see mmseg's; ``metainfo.classes`` are the names of the classes.

    Raises:
        UserError: photos or masks are missing, or a mask holds an index without a class.
    """

    def __init__(self, data_root: str | Path, split: str = "train", **kwargs: Any) -> None:
        self.labelled = open_labelled_set(data_root, split)
        super().__init__(ignore_index=IGNORE, reduce_zero_label=False, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """A photo and its mask each; stored values that are not the index of their class are told to the loader."""
        table = enumerate(self.labelled.table.tolist())
        label_map = {stored: index for stored, index in table if index not in (stored, FOREIGN)}
        return [
            {
                "img_path": str(photo),
                "seg_map_path": str(mask),
                "label_map": label_map or None,
                "reduce_zero_label": False,
                "seg_fields": [],
            }
            for photo, mask in self.labelled.items
        ]
