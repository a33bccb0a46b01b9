"""The loading step of mm pipelines, by the reader that pretraining and evaluation have."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import TRANSFORMS, BaseTransform

from slotcon_plugin.photos import read_photo


@TRANSFORMS.register_module()
class LoadPhoto(BaseTransform):
    """mmcv's ``LoadImageFromFile`` for every kind of photo that :func:`~slotcon_plugin.photos.read_photo` knows.

    OpenCV has no decoder for some, leaves others as they are stored where their EXIF says to turn them, or takes other
    bits of 16: boxes and masks would not lie where they were drawn. In a run it does every step that is
    :data:`~slotcon_plugin.transfer.mm_data.BY_PILLOW`.

    Reads ``img_path``; adds ``img`` (H, W, 3) uint8 BGR, ``img_shape`` and ``ori_shape`` (H, W).
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class. Raises PhotoError, which names the file."""
        image = np.ascontiguousarray(read_photo(results["img_path"])[..., ::-1])
        return results | {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}
