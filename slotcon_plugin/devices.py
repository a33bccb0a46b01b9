"""Which device a command runs on, and why."""

from __future__ import annotations

import os
from pathlib import Path

_DEVICES = Path("/dev")


def choose_device() -> tuple[str, str]:
    """The GPU if PyTorch can use one, else the CPU.

    Returns:
        ``cuda`` or ``cpu``, and a reason to be read by people: the GPU's name, or why there is none.
    """
    import torch

    if torch.cuda.device_count():
        count = torch.cuda.device_count()
        return "cuda", torch.cuda.get_device_name() + (f", one of {count}" if count > 1 else "")
    if not (torch.version.cuda or torch.version.hip):
        return "cpu", "this PyTorch is built for CPUs only"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "cpu", "CUDA_VISIBLE_DEVICES hides the GPUs"
    return "cpu", "PyTorch finds no GPU, or no driver for it"


def unused_gpu() -> str | None:
    """What to say when the machine has an NVIDIA GPU that PyTorch cannot use and nobody has hidden."""
    device, why = choose_device()
    if device != "cpu" or "hides" in why or not list(_DEVICES.glob("nvidia[0-9]*")):
        return None
    return (
        f"this machine has an NVIDIA GPU, but {why}: the run goes on on the CPU, many times slower. "
        '`python -c "import torch; torch.zeros(1).cuda()"` says more; docs/install.md has the builds of PyTorch'
    )
