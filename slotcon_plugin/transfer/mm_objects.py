"""Files of COCO's form for mmdet: one's own; and COCO's with one class, ``object``: where things are, not what.

A detector that has seen some hundred photos does not know eighty classes yet, and its AP over them is about zero
whatever it started from; where objects are it can learn in that time.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from logging import WARNING, LogRecord
from typing import Any, ClassVar

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.logging import MMLogger

from slotcon_plugin.engine.console import log_only
from slotcon_plugin.transfer.annotations import make_judgeable

OBJECT = "object"


def merge_categories(coco: COCO) -> COCO:
    """Let every annotation of a loaded file be of one category, ``object`` with id 1; in place."""
    coco.dataset["categories"] = [{"id": 1, "name": OBJECT}]
    for annotation in coco.dataset["annotations"]:
        annotation["category_id"] = 1
    return _index_again(coco)


def _index_again(coco: COCO) -> COCO:
    coco.createIndex()
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
    return coco


@DATASETS.register_module()
class CocoObjectDataset(CocoDataset):
    """mmdet's ``CocoDataset``, the same options, with one class."""

    METAINFO: ClassVar = {"classes": (OBJECT,), "palette": [(220, 20, 60)]}

    @staticmethod
    def COCOAPI(path: str) -> COCO:  # noqa: N802 (what mmdet calls it)
        return merge_categories(COCO(path))


@METRICS.register_module()
class OwnCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric`` for files as labelling tools export them.

    Their annotations may be numbered from 0 and need no ``iscrowd``, see
    :func:`~slotcon_plugin.transfer.annotations.make_judgeable`. pycocotools' tables go to the log file alone, and a
    detector that finds nothing yet, as in its first iterations, is no error.

    Args:
        ann_file: annotations of COCO's form.
        kwargs: see mmdet's.
    """

    def __init__(self, ann_file: str, **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, **kwargs)
        make_judgeable(self._coco_api.dataset["annotations"])
        _index_again(self._coco_api)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """mmdet's."""
        logger, said = MMLogger.get_current_instance(), StringIO()
        logger.addFilter(_nothing_found_is_a_warning)
        try:
            with redirect_stdout(said):
                return super().compute_metrics(results)
        finally:
            logger.removeFilter(_nothing_found_is_a_warning)
            log_only(said.getvalue())


def _nothing_found_is_a_warning(record: LogRecord) -> bool:
    if record.getMessage() == "The testing results of the whole dataset is empty.":
        record.levelno, record.levelname = WARNING, "WARNING"
        record.msg = "The detector finds nothing in these photos yet: its AP is 0"
    return True


@METRICS.register_module()
class CocoObjectMetric(OwnCocoMetric):
    """The same, which compares with one class.

    Args:
        ann_file: COCO's annotations, of any categories.
        kwargs: see mmdet's.
    """

    def __init__(self, ann_file: str, **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, **kwargs)
        merge_categories(self._coco_api)
