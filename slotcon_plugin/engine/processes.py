"""The processes that a launcher has started, made into a group."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.utils.dl_utils import set_multi_processing

from slotcon_plugin.command import end_with_parent


def start_processes(cfg: Config) -> int:
    """Start the process group of the launcher's processes and return how many there are; without a GPU with gloo.

    ``env_cfg.dist_cfg.timeout`` is the time in seconds after which a process that does not answer ends the run.
    mmengine's own start insists on a GPU, and its wrapper on a device to put the model on.
    """
    if cfg.get("launcher", "none") == "none":
        return 1
    end_with_parent()
    env = cfg.get("env_cfg", {})
    options = {**env.get("dist_cfg", {}), **_store_of_a_restart()}
    set_multi_processing(**env.get("mp_cfg", {}), distributed=True)  # as the runner does, before it is too late
    if torch.cuda.is_available():
        init_dist(cfg.launcher, **options)
    else:
        with patch("torch.cuda.set_device"):
            init_dist(cfg.launcher, **{**options, "backend": "gloo"})
        cfg.model_wrapper_cfg = dict(
            type="MMDistributedDataParallel",
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get("find_unused_parameters", False),
        )
    return dist.get_world_size()


def _store_of_a_restart() -> dict[str, Any]:
    """torchrun's store outlives a restart, and so do the addresses of the dead in it: look below a name of its own."""
    if (attempt := os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == "0":
        return {}
    store, rank, world_size = next(dist.rendezvous("env://"))
    return {"store": dist.PrefixStore(f"restart {attempt}", store), "rank": rank, "world_size": world_size}
