"""The checkpoint with which a run has ended."""

from __future__ import annotations

from pathlib import Path

from mmengine.runner import Runner


def last_checkpoint(runner: Runner) -> Path:
    """The newest checkpoint of a run, where it lies now.

    What the run has noted is the place where the checkpoint was written. A finished run that was moved, or copied, and
    is started again with ``--resume`` writes none and has read that note in its checkpoint.
    """
    noted = Path(runner.message_hub.get_info("last_ckpt"))
    here = Path(runner.work_dir) / noted.name
    return here if here.is_file() else noted  # a finished run resumed by a path lies in another work dir
