"""Shared by the tests that need a GPU."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _kernels_that_compare():
    """float32 is float32: cuDNN's convolutions keep 10 of its 23 bits by default. Nothing is left to the next test."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    settings = [(cudnn, "allow_tf32"), (matmul, "allow_tf32"), (cudnn, "benchmark"), (cudnn, "deterministic")]
    before = [getattr(*setting) for setting in settings]
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    yield
    for setting, value in zip(settings, before):
        setattr(*setting, value)
