"""N steps, kill -9, resume, M steps: bit for bit what N + M steps give, with workers and in the middle of an epoch."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from slotcon_plugin.convert.safe_load import load_file
from slotcon_plugin.engine import allow_checkpoint_classes


def tensors(tree, prefix=""):
    """Every tensor of a checkpoint, by its path."""
    if isinstance(tree, torch.Tensor):
        yield prefix, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from tensors(value, f"{prefix}/{key}")
    elif isinstance(tree, (list, tuple)):
        for i, value in enumerate(tree):
            yield from tensors(value, f"{prefix}/{i}")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_resume_after_sigkill_is_exact(tmp_path, repo, config_file, dtype):
    config = config_file(dtype)

    def command(work_dir, *more):
        return [
            sys.executable,
            str(repo / "tools/train.py"),
            str(config),
            "--work-dir",
            str(tmp_path / work_dir),
            *more,
        ]

    whole = subprocess.Popen(command("whole"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    killed = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed/iter_8.pth").exists():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert whole.wait() == 0, whole.stderr.read()
    left = sorted((tmp_path / "killed").glob("iter_*.pth"))
    assert left and not (tmp_path / "killed/iter_30.pth").exists()
    # the newest checkpoint was cut short by the kill: the one before it must be used
    newest = max(left, key=lambda p: int(p.stem[5:]))
    newest.write_bytes(newest.read_bytes()[:-1000])

    resumed = subprocess.run(command("killed", "--resume"), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{newest.name} is damaged or cut short" in resumed.stdout + resumed.stderr

    allow_checkpoint_classes()
    want, got = (torch.load(tmp_path / run / "iter_30.pth", weights_only=True) for run in ("whole", "killed"))
    assert want["meta"]["iter"] == got["meta"]["iter"] == 30
    for part in ("state_dict", "optimizer"):
        a, b = dict(tensors(want[part])), dict(tensors(got[part]))
        assert a.keys() == b.keys() and len(a) > 80
        assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert want["optimizer"]["loss_scaler"] == got["optimizer"]["loss_scaler"]
    assert [s["last_step"] for s in want["param_schedulers"]] == [s["last_step"] for s in got["param_schedulers"]]
    assert want["state_dict"]["teacher_steps"] > 20


@pytest.mark.slow
def test_two_processes_on_cpus_train_as_one_run(tmp_path, repo, config_file):
    config = config_file("bfloat16")
    options = f"--work-dir {tmp_path / 'run'} --cfg-options train_cfg.max_epochs=2".split()
    done = subprocess.run(
        ["bash", str(repo / "tools/dist_train.sh"), str(config), "2", *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Total batch 8 = 2 processes x 4 images" in done.stdout + done.stderr
    checkpoint = load_file(tmp_path / "run/iter_6.pth")  # 13 photos a process: three batches an epoch
    assert checkpoint["state_dict"]["teacher_steps"] == 6
    assert checkpoint["state_dict"]["center.value"].abs().max() > 0
