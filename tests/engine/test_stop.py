"""Asked to stop, a run finishes its step, writes a checkpoint and can go on as if nothing had been."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook

from slotcon_plugin.checkpoints.runs import numbered_checkpoints
from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.engine import stop
from slotcon_plugin.engine.checkpoint import SafeCheckpointHook
from slotcon_plugin.errors import STOPPED, RunStoppedError
from tests.processes import children, free_port

LISTENS = [dict(type="StopOnSignalHook")]
LONG = ["--cfg-options", "train_cfg.max_epochs=1000"]  # it does not end by itself
NUMBERS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP]


class Kill(Hook):
    """Sends this process a signal in the middle of an iteration (counted from 1)."""

    def __init__(self, number, *iterations):
        self.number, self.iterations = number, iterations

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 in self.iterations:
            os.kill(os.getpid(), self.number)


def state(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def log_of(run):
    return "".join(path.read_text() for path in run.rglob("*.log"))


@pytest.fixture
def listening():
    """Gives a signal a handler for this test: tests that were started in the background inherit ignored signals."""
    former = {}

    def listen(number, handler):
        former[number] = signal.signal(number, handler)

    yield listen
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_the_step_is_finished_saved_and_gone_on_with(tiny, tmp_path, number, listening):
    whole = tiny(tmp_path / "whole", hooks=LISTENS, epochs=3)
    whole.train()
    former = signal.default_int_handler
    listening(number, former)
    stopped = tiny(tmp_path / "run", hooks=LISTENS, epochs=3)
    stopped.register_hook(Kill(number, 5))
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    with pytest.raises(RunStoppedError, match=rf"Stopped by {name} after iteration 5, .*iter_5\.pth; --resume"):
        stopped.train()
    assert signal.getsignal(number) is former
    assert numbered_checkpoints(tmp_path / "run")[0].name == "iter_5.pth"
    resumed = tiny(tmp_path / "run", hooks=LISTENS, epochs=3, resume=True)
    resumed.train()
    want, got = state(whole), state(resumed)
    assert [name for name in want if not torch.equal(want[name], got[name])] == []
    assert log_of(tmp_path / "run").count("Stopped by") == 1


def test_accumulated_gradients_are_not_lost(tiny, tmp_path):
    """Checkpoints do not hold them: the run stops, and saves on its way, after whole steps of the optimiser alone."""
    wrapper = dict(accumulative_counts=4)
    whole = tiny(tmp_path / "whole", epochs=4, optim_wrapper=wrapper)
    whole.train()
    stopped = tiny(tmp_path / "run", hooks=LISTENS, epochs=4, optim_wrapper=wrapper)
    stopped._hooks = [hook for hook in stopped.hooks if type(hook) is not CheckpointHook]
    stopped.register_hook(SafeCheckpointHook(interval=3, by_epoch=False))
    stopped.register_hook(Kill(signal.SIGTERM, 9))
    with pytest.raises(RunStoppedError, match="after iteration 12"):
        stopped.train()
    assert [path.stem for path in numbered_checkpoints(tmp_path / "run")] == ["iter_12", "iter_8", "iter_4"]
    resumed = tiny(tmp_path / "run", epochs=4, resume=True, optim_wrapper=wrapper)
    resumed.train()
    want, got = state(whole), state(resumed)
    assert [name for name in want if not torch.equal(want[name], got[name])] == []


def test_what_has_just_been_saved_is_not_saved_again(tiny, tmp_path):
    runner = tiny(hooks=LISTENS)
    runner.register_hook(Kill(signal.SIGTERM, 3))
    with pytest.raises(RunStoppedError):
        runner.train()
    assert log_of(tmp_path).count("Saving checkpoint") == 1


def test_a_second_ctrl_c_ends_at_once_but_not_the_launchers_repetition(tiny, monkeypatch):
    hook = stop.StopOnSignalHook()
    hook._ask(signal.SIGINT, None)
    hook._ask(signal.SIGINT, None)
    monkeypatch.setattr(stop, "_AGAIN_S", -1.0)
    hook._ask(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        hook._ask(signal.SIGINT, None)


def test_a_run_that_fails_leaves_no_handler_behind(tiny, tmp_path):
    """A worker process that is started later would not end when it is asked to."""
    runner = tiny(hooks=LISTENS, model=dict(type="PoisonedSlotCon"))
    runner.model.loss = None  # fails at its first step
    before = {number: signal.getsignal(number) for number in NUMBERS}
    with pytest.raises(TypeError), stop.signals_given_back():
        runner.train()
    assert {number: signal.getsignal(number) for number in NUMBERS} == before


def wait_for(condition, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_signal_to_the_whole_group_spares_the_workers_until_the_checkpoint_is_written(
    tmp_path, repo, config_file, start
):
    config = config_file("bfloat16")
    command = [sys.executable, str(repo / "tools/train.py"), str(config), "--work-dir", str(tmp_path / "run"), *LONG]
    process = start(command, start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    wait_for((tmp_path / "run/iter_4.pth").exists, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == STOPPED, errors
    assert b"Traceback" not in errors
    newest = numbered_checkpoints(tmp_path / "run")[0]
    assert f"Stopped by SIGTERM after iteration {newest.stem[5:]}, saved as" in log_of(tmp_path / "run")
    assert load_file(newest)["meta"]["iter"] == int(newest.stem[5:])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL], ids=lambda number: number.name)
def test_two_ranks_stop_together_when_their_launcher_is_asked_or_killed(tmp_path, repo, config_file, start, number):
    config = config_file("bfloat16")
    command = ["bash", str(repo / "tools/dist_train.sh"), str(config), "2", "--work-dir", str(tmp_path / "run"), *LONG]
    process = start(
        command, env={**os.environ, "PYTHON": sys.executable}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    wait_for((tmp_path / "run/iter_4.pth").exists, process)
    ranks = children(process.pid)
    assert len(ranks) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (STOPPED if number != signal.SIGKILL else -signal.SIGKILL), errors
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{rank}") for rank in ranks):
        assert time.monotonic() < deadline, "ranks outlive their launcher"
        time.sleep(0.1)
    newest = numbered_checkpoints(tmp_path / "run")[0]
    assert f" after iteration {newest.stem[5:]}, saved as" in log_of(tmp_path / "run")
    assert load_file(newest)["state_dict"]["teacher_steps"] == int(newest.stem[5:])


SRUN = """#!{python}
# As srun --kill-on-bad-exit does: two tasks; when one has failed the other gets SIGTERM; the highest status is its own.
import os, signal, subprocess, sys
told = {{"SLURM_NTASKS": "2", "SLURM_NODELIST": "here", "SLURM_JOB_ID": "17"}}
command = sys.argv[sys.argv.index("bash"):]
tasks = [
    subprocess.Popen(command, env={{**os.environ, **told, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}})
    for i in range(2)
]
signal.signal(signal.SIGUSR1, lambda number, _: [task.send_signal(number) for task in tasks])
_, status = os.waitpid(tasks[0].pid, 0)
tasks[1].terminate()
statuses = os.waitstatus_to_exitcode(status), tasks[1].wait()
sys.exit(max(status if status >= 0 else 128 - status for status in statuses))
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo 127.0.0.1; else echo "scontrol $*"; fi
"""
LINGER = """
import atexit, os, time
if os.environ.get("SLURM_PROCID") == "1":
    atexit.register(time.sleep, 10)
"""


@pytest.mark.slow
def test_a_preempted_job_of_slurm_is_requeued_whichever_task_leaves_first(tmp_path, repo, config_file, start):
    (tmp_path / "bin").mkdir()
    for name, body in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(body)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "late").mkdir()
    (tmp_path / "late/sitecustomize.py").write_text(LINGER)
    told = {"PYTHON": sys.executable, "SLURM_JOB_ID": "17", "GPUS": "2", "PORT": str(free_port())}
    told |= {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path / "late")}
    command = ["bash", str(repo / "tools/slurm_train.sh"), "gpu", "job", str(config_file("bfloat16"))]
    process = start(
        [*command, "--work-dir", str(tmp_path / "run"), *LONG],
        env={**os.environ, **told},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for((tmp_path / "run/iter_4.pth").exists, process)
    (srun,) = children(process.pid)
    os.kill(srun, signal.SIGUSR1)
    said, errors = process.communicate(timeout=90)
    assert process.returncode == STOPPED, errors
    assert "scontrol requeue 17" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tools/train.py c.py --overwrite", "go on with: python tools/train.py c.py --resume"),
        ("/bin/slotcon pretrain p --resume", "go on with: slotcon pretrain p --resume"),
        ("/bin/slotcon pretrain p --resume a/iter_3.pth --seed 1", "go on with: slotcon pretrain p --seed 1 --resume"),
        ("/bin/slotcon pretrain --resume=a/iter_3.pth p", "go on with: slotcon pretrain p --resume"),
        ("/bin/slotcon pretrain --resume --seed 1 p", "go on with: slotcon pretrain --seed 1 p --resume"),
        (
            "/lib/slotcon_plugin/__main__.py quickstart p --work-dir runs/a",
            "go on with: slotcon quickstart p --work-dir runs/a --resume",
        ),
        ("/lib/pytest/__main__.py tests", "--resume goes on from there"),
    ],
)
def test_the_command_that_goes_on(words, expected, monkeypatch):
    monkeypatch.setattr(stop, "own_command", lambda: "slotcon")
    monkeypatch.setattr(sys, "argv", words.split())
    assert stop._how_to_go_on() == expected
