"""How every pretraining runs: logging, checkpoints, exact resume. Nothing of a method is decided here."""

default_scope = "slotcon_plugin"
custom_imports = dict(imports=["slotcon_plugin"], allow_failed_imports=False)

train_cfg = dict(type="PretrainLoop", max_epochs=800)
init = None  # weights to start from, as --init says; None = random ones

default_hooks = dict(
    runtime_info=dict(type="LateRuntimeInfoHook"),
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="PretrainSchedulerHook"),
    # `atomic`: a checkpoint appears under its name when it is complete
    checkpoint=dict(
        type="SafeCheckpointHook", by_epoch=False, interval=1000, max_keep_ckpts=3, backend_args=dict(backend="atomic")
    ),
    teacher=dict(type="TeacherUpdateHook"),
    declaration=dict(type="DeclarationHook"),
    exact_resume=dict(type="ExactResumeHook"),
    slot_health=dict(type="SlotHealthHook", interval=50),
    nan_guard=dict(type="NanGuardHook"),
    stop_on_signal=dict(type="StopOnSignalHook"),
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl", timeout=300),  # seconds until a process that does not answer ends the run
)
log_processor = dict(window_size=50, by_epoch=True)
log_level = "INFO"
visualizer = dict(
    type="mmengine.Visualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
)
randomness = dict(seed=0)
