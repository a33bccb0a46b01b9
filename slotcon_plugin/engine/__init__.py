"""What a run needs beside the model: optimisers, mixed precision, the loop, checkpoints and hooks."""

from slotcon_plugin.engine.checkpoint import (
    AtomicLocalBackend,
    SafeCheckpointHook,
    allow_checkpoint_classes,
    require_fit,
)
from slotcon_plugin.engine.frozen_prototypes import FrozenPrototypesHook
from slotcon_plugin.engine.heads_first import HeadsFirstHook
from slotcon_plugin.engine.health import CollapseError, SlotHealthHook
from slotcon_plugin.engine.hooks import PretrainSchedulerHook, RunStampHook, TeacherUpdateHook
from slotcon_plugin.engine.lars import LARS
from slotcon_plugin.engine.late import LateRuntimeInfoHook
from slotcon_plugin.engine.lock import lock_work_dir, set_aside
from slotcon_plugin.engine.loop import PretrainLoop
from slotcon_plugin.engine.mixed_precision import MixedPrecisionOptimWrapper
from slotcon_plugin.engine.nan_guard import NanGuardHook, NonFiniteLossError
from slotcon_plugin.engine.parameter_groups import PartOptimWrapperConstructor
from slotcon_plugin.engine.resume import ExactResumeHook
from slotcon_plugin.engine.stop import StopOnSignalHook
from slotcon_plugin.engine.work_dir import Claim, claim_work_dir, shared

__all__ = [
    "LARS",
    "AtomicLocalBackend",
    "Claim",
    "CollapseError",
    "ExactResumeHook",
    "FrozenPrototypesHook",
    "HeadsFirstHook",
    "LateRuntimeInfoHook",
    "MixedPrecisionOptimWrapper",
    "NanGuardHook",
    "NonFiniteLossError",
    "PartOptimWrapperConstructor",
    "PretrainLoop",
    "PretrainSchedulerHook",
    "RunStampHook",
    "SafeCheckpointHook",
    "SlotHealthHook",
    "StopOnSignalHook",
    "TeacherUpdateHook",
    "allow_checkpoint_classes",
    "claim_work_dir",
    "lock_work_dir",
    "require_fit",
    "set_aside",
    "shared",
]
