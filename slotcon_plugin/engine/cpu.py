"""What makes training on a CPU faster."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc to keep the memory of freed tensors for the next step instead of giving it back to the system.

    A step frees and asks for the same gigabytes over and over; handing them back costs a page fault for every 4 KiB,
    about a fifth of a ResNet-50 step on two cores (docs/benchmarks.md).

    Returns:
        Whether the C library took the settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_MMAP_MAX: 0, _M_TOP_PAD: 2**28}
    return all(libc.mallopt(option, value) == 1 for option, value in settings.items())
