"""Where the tests of this folder run.

    python -m pytest -m gpu

Without a GPU all of it is skipped. SLOTCON_CHECK_DEVICE=cpu runs what a CPU can run, as a rehearsal.
"""

import os

import pytest
import torch

DEVICE = os.environ.get("SLOTCON_CHECK_DEVICE", "cuda")
needs_device = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a GPU, and there is none"),
]
on_gpu_alone = pytest.mark.skipif(DEVICE == "cpu", reason="a rehearsal on the CPU")
