"""Folders of small synthetic photos."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    """Twelve photos of 96 x 72 in two folders, JPEG and PNG."""
    rng = np.random.default_rng(0)
    for number in range(12):
        small = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
        path = (
            tmp_path / "photos" / ("cats" if number % 2 else "dogs") / f"{number:02}.{'png' if number % 3 else 'jpg'}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "photos"
