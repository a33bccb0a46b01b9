"""default_runtime for runs of minutes: logged and saved more often."""

_base_ = ["default_runtime.py"]

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=100),
    slot_health=dict(interval=10),
)
log_processor = dict(window_size=10)
