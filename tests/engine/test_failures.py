"""What ends a run from outside is told in a sentence: a full disk, a folder that is gone, a rank that stands still."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.command import FAILED, run_command
from slotcon_plugin.engine import failures
from slotcon_plugin.engine.failures import failures_told
from slotcon_plugin.errors import RunFailedError
from tests.processes import children, free_port


class At(Hook):
    """Does something after an iteration (counted from 1)."""

    def __init__(self, iteration, deed):
        self.iteration, self.deed = iteration, deed

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            self.deed()


def train_with(runner, hook, work_dir):
    runner.register_hook(hook)
    with failures_told(work_dir):
        runner.train()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_a_full_disk_leaves_whole_checkpoints(tiny, tmp_path, monkeypatch, number):
    write_bytes = Path.write_bytes

    def full(path, content):
        write_bytes(path, content[: len(content) // 2])
        raise OSError(number, os.strerror(number), str(path))

    runner = tiny()
    with pytest.raises(RunFailedError, match=rf"written to the work dir {tmp_path}: .*go on with --resume"):
        train_with(runner, At(4, lambda: monkeypatch.setattr(Path, "write_bytes", full)), tmp_path)
    assert [path.name for path in tmp_path.rglob("*.pth")] == ["iter_3.pth"]
    assert load_file(tmp_path / "iter_3.pth")["meta"]["iter"] == 3
    assert not list(tmp_path.rglob(".part-*"))


def test_a_work_dir_that_is_removed_is_named(tiny, tmp_path):
    work_dir = tmp_path / "run"
    with pytest.raises(RunFailedError, match=rf"written to the work dir {work_dir}: .*No such file or directory"):
        train_with(tiny(work_dir), At(4, lambda: shutil.rmtree(work_dir)), work_dir)


def test_other_files_and_other_errors_keep_their_traceback(tmp_path):
    no_photo = FileNotFoundError(2, "No such file", "/photos/a.jpg")
    for error in (no_photo, RuntimeError("Timed out waiting"), KeyError(1)):
        with pytest.raises(type(error)) as caught, failures_told(tmp_path):  # one process waits for no other
            raise error
        assert caught.value is error
    assert not failures._is_in(f"{tmp_path}2/photo.jpg", tmp_path)


def test_a_bug_in_another_rank_reaches_a_file_beside_the_runs_log(tmp_path, monkeypatch):
    monkeypatch.setattr(failures, "get_rank", lambda: 3)

    def main():
        with failures_told(tmp_path):
            int("a bug")

    with pytest.raises(SystemExit):
        run_command(main)
    text = (tmp_path / "rank3.log").read_text()
    assert text.startswith("Traceback") and "invalid literal for int() with base 10: 'a bug'" in text


def command(repo, config, work_dir, *more):
    return [sys.executable, str(repo / "tools/train.py"), str(config), "--work-dir", str(work_dir), *more]


@pytest.mark.slow
def test_a_limit_on_files_ends_the_command_in_a_sentence(tmp_path, repo, config_file):
    done = subprocess.run(
        command(repo, config_file("bfloat16"), tmp_path / "run"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == FAILED
    assert f"error: nothing more can be written to the work dir {tmp_path / 'run'}: [Errno 27]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob("*.pth"))


LIMIT_S = 10


def start_two(start, repo, config, work_dir, *more, epochs=1000):
    launch = [sys.executable, "-m", "slotcon_plugin.launch", "--nproc_per_node", "2", *more]
    settings = [f"env_cfg.dist_cfg.timeout={LIMIT_S}", f"train_cfg.max_epochs={epochs}"]
    options = ["--launcher", "pytorch", "--cfg-options", *settings]
    return start(
        [*launch, "--master_port", str(free_port()), *command(repo, config, work_dir)[1:], *options],
        env={**os.environ, "PYTHONPATH": str(repo)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def rank_of(process, rank, checkpoint):
    """The id of one of the launcher's processes, when there is a checkpoint."""
    deadline = time.monotonic() + 240
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    for child in children(process.pid):
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return child
    raise AssertionError(f"there is no rank {rank}")


@pytest.mark.slow
def test_a_rank_that_stands_still_ends_the_other_in_time(tmp_path, repo, config_file, start):
    process = start_two(start, repo, config_file("bfloat16"), tmp_path / "run")
    stopped = rank_of(process, 0, tmp_path / "run/iter_4.pth")
    os.kill(stopped, signal.SIGSTOP)
    since, log = time.monotonic(), tmp_path / "run/rank1.log"
    while not (log.exists() and log.read_text()):
        assert time.monotonic() < since + LIMIT_S + 15  # and a busy machine
        time.sleep(0.1)
    text = log.read_text()
    assert text.startswith("error: another process has not answered for env_cfg.dist_cfg.timeout seconds")
    os.kill(stopped, signal.SIGKILL)  # the launcher would do so half a minute later
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None) and text.strip() in errors


@pytest.mark.slow
def test_torchruns_restart_goes_on_by_itself(tmp_path, repo, config_file, start):
    process = start_two(start, repo, config_file("bfloat16"), tmp_path / "run", "--max-restarts", "1", epochs=8)
    os.kill(rank_of(process, 1, tmp_path / "run/iter_4.pth"), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    log = "".join(path.read_text() for path in (tmp_path / "run").rglob("2*.log"))
    assert "resumed epoch" in log and "Epoch(train) [8][3/3]" in log, log
    checkpoint = load_file(tmp_path / "run/iter_24.pth")
    assert checkpoint["state_dict"]["teacher_steps"] == 24
    assert not (tmp_path / "run.old1").exists()
