"""Shared by all tests: one thread a process and no GPU, so that figures are those of any machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)


def pytest_configure(config):
    if config.option.markexpr != "gpu":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout: configs/ and tools/ lie beside tests/."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


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
