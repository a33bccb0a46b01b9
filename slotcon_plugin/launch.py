"""torchrun, except that its exit status is that of the process that failed first: ``python -m slotcon_plugin.launch``.

torchrun itself ends every failure with status 1 and a traceback of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from slotcon_plugin.command import run_command
from slotcon_plugin.errors import STOPPED, UserError


def main(argv: list[str] | None = None) -> int:
    """Start the processes, wait for them. Takes torchrun's arguments.

    Returns:
        0, or the status of the first process that failed (128 + its number if a signal ended it, as shells say).
        75 after a signal to this process: it is passed on, and the others get 30 s to write a checkpoint.
    """
    options = parse_args(argv)
    if hasattr(options, "signals_to_handle"):  # torch 2.9 and newer
        options.signals_to_handle += ",SIGUSR1"
    try:
        run(options)
    except SignalException:
        return STOPPED
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


def on_gpus(words: Sequence[str], gpus: int) -> int:
    """Start a ``slotcon`` command again, in a process for each of some GPUs of this machine; see :func:`main`.

    Raises:
        UserError: there are GPUs, but not so many. Without any the processes run on the CPU.
    """
    if 0 < (there := torch.cuda.device_count()) < gpus:
        raise UserError(f"--gpus {gpus}: this machine has {there}; expected at most so many")
    own = ["--standalone", "--nproc_per_node", str(gpus), "-m", "slotcon_plugin"]
    return main([*own, *words, "--launcher", "pytorch"])


if __name__ == "__main__":
    run_command(main)
