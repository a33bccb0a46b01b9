"""Which device a command runs on, and why."""

from __future__ import annotations

import os
import time
from pathlib import Path

_DEVICES = Path("/dev")
_CPU_TIMES = Path("/proc/stat")
_LOOK_S = 0.3


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


def crowded_cpu(threads: int) -> str | None:
    """What to say when other programs leave fewer cores free than this one has threads; Linux only.

    The threads of an operation wait for the last of them: one that has to share its core holds up the others, and two
    threads take longer than one would.
    """
    if threads < 2 or not _CPU_TIMES.is_file():
        return None
    busy, total = _cpu_times()
    time.sleep(_LOOK_S)
    busy, total = (now - then for now, then in zip(_cpu_times(), (busy, total)))
    cores = os.cpu_count()
    taken = cores * busy / max(total, 1)
    if taken < 0.5 or cores - taken > threads - 0.5:
        return None
    return (
        f"other programs keep {taken:.1f} of the {cores} CPU cores busy, and this one has {threads} threads that wait "
        f"for each other: fewer are faster, OMP_NUM_THREADS={max(round(cores - taken), 1)} before the command"
    )


def _cpu_times() -> tuple[int, int]:
    """Time that all cores together were busy, and all of their time, since the machine has started."""
    user, nice, system, idle, waiting, *others = map(int, _CPU_TIMES.read_text().split("\n", 1)[0].split()[1:9])
    return user + nice + system + sum(others), user + nice + system + idle + waiting + sum(others)
