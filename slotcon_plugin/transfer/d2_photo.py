"""detectron2's reading of data sets of one's own, by the reader that pretraining and evaluation have."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import check_image_size, convert_PIL_to_numpy, transform_proposals
from detectron2.utils.file_io import PathManager
from PIL import Image

from slotcon_plugin.photos import read_photo


class PhotoMapper(DatasetMapper):
    """detectron2's mapper of objects for every kind of photo that :func:`~slotcon_plugin.photos.read_photo` knows.

    detectron2's own reader makes 16-bit grey white, and turns TIFFs that Pillow has already turned.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """What the models take of a photo: ``image`` (3, H, W) in INPUT.FORMAT, and ``instances`` to train on.

        Raises:
            PhotoError: the file cannot be read; names it.
        """
        sample = copy.deepcopy(dataset_dict)
        pixels = read_photo(PathManager.get_local_path(sample["file_name"]))
        seen = T.AugInput(convert_PIL_to_numpy(Image.fromarray(pixels), self.image_format))
        check_image_size(sample, seen.image)
        changes = self.augmentations(seen)
        sample["image"] = torch.as_tensor(np.ascontiguousarray(seen.image.transpose(2, 0, 1)))
        size = seen.image.shape[:2]
        if self.proposal_topk is not None:
            transform_proposals(sample, size, changes, proposal_topk=self.proposal_topk)
        if not self.is_train:
            sample.pop("annotations", None)
        elif "annotations" in sample:
            self._transform_annotations(sample, changes, size)
        return sample
