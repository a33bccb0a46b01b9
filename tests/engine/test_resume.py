"""N steps, kill -9, resume, M steps: bit for bit what N + M steps give, with workers and in the middle of an epoch."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.engine import allow_checkpoint_classes
from tests.processes import Python, run_python, run_ranks


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
        return repo / "tools/train.py", config, "--work-dir", tmp_path / work_dir, *more

    whole, killed = (Python(*command(run)) for run in ("whole", "killed"))
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed/iter_8.pth").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait().returncode == -signal.SIGKILL
    done = whole.wait()
    assert done.returncode == 0, done.stderr
    left = sorted((tmp_path / "killed").glob("iter_*.pth"))
    assert left and not (tmp_path / "killed/iter_30.pth").exists()
    # the newest checkpoint was cut short by the kill: the one before it must be used
    newest = max(left, key=lambda p: int(p.stem[5:]))
    newest.write_bytes(newest.read_bytes()[:-1000])

    resumed = run_python(*command("killed", "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert f"{newest.name} is damaged or cut short" in resumed.stdout + resumed.stderr

    allow_checkpoint_classes()
    want, got = (torch.load(tmp_path / run / "iter_30.pth", weights_only=True) for run in ("whole", "killed"))
    assert want["meta"]["iter"] == got["meta"]["iter"] == 30
    for part in ("state_dict", "optimizer"):
        a, b = dict(tensors(want[part])), dict(tensors(got[part]))
        assert a.keys() == b.keys() and len(a) > 60
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


RECORDER = """
import json
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from slotcon_plugin.registry import HOOKS


@HOOKS.register_module()
class Recorder(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        with open(f"{runner.work_dir}/seen{get_rank()}.txt", "a") as file:
            print(json.dumps([runner.epoch, runner.iter, data_batch["sample_index"].tolist()]), file=file)
"""


def seen(work_dir):
    """(epoch, iteration) -> the photos of its batch on all ranks; what was in there is taken away."""
    batches = {}
    for file in work_dir.glob("seen*.txt"):
        for epoch, iteration, photos in map(json.loads, file.read_text().splitlines()):
            batches.setdefault((epoch, iteration), []).extend(photos)
        file.unlink()
    return batches


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on_behind_what_was_seen(
    tmp_path, repo, config_file, monkeypatch, before, after
):
    config, work_dir = config_file("bfloat16"), tmp_path / "run"
    (tmp_path / "recorder.py").write_text(RECORDER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with config.open("a") as file:
        file.write("custom_imports = dict(imports=['recorder'])\ncustom_hooks = [dict(type='Recorder')]\n")

    def train(processes, epochs, *more):
        command = [repo / "tools/train.py", config, "--launcher", "pytorch", "--work-dir", work_dir, *more]
        command += ["--cfg-options", f"train_cfg.max_epochs={epochs}"]
        return "".join(done.stdout + done.stderr for done in run_ranks(*[command] * processes))

    per_epoch = {1: 6, 2: 3}  # of 26 photos in batches of 4
    train(before, 2)
    first = seen(work_dir)
    for path in work_dir.glob("iter_*.pth"):
        if path.name != f"iter_{8 // before}.pth":  # a third of the second epoch
            path.unlink()
    assert len(list(work_dir.glob("iter_*.pth"))) == 1
    log = train(after, 3, "--resume")
    assert (
        f"iteration {8 // before} is iteration {8 // after} by this count, {2 // after} of {6 // after} of epoch 2"
        in log
    )
    rest = seen(work_dir)
    assert sorted(rest) == [(i // per_epoch[after], i) for i in range(8 // after, 18 // after)]
    second_epoch = [photos for (epoch, i), photos in first.items() if epoch == 1 and i < 8 // before]
    second_epoch += [photos for (epoch, _), photos in rest.items() if epoch == 1]
    shown = [photo for photos in second_epoch for photo in photos]
    assert len(shown) == len(set(shown)) == 24
    checkpoint = load_file(work_dir / f"iter_{18 // after}.pth")
    assert checkpoint["state_dict"]["teacher_steps"] == 18 // after
