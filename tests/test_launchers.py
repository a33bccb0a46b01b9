"""The shell launchers: OpenMMLab's conventions, and messages for wrong arguments."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slotcon_plugin.errors import UserError
from slotcon_plugin.launch import main, on_gpus

CONVENTIONS = ("NNODES", "NODE_RANK", "MASTER_ADDR", "PORT", "GPUS", "GPUS_PER_NODE", "SRUN_ARGS")


def run(script: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    env = {key: value for key, value in os.environ.items() if key not in CONVENTIONS}
    env |= {"PYTHON": sys.executable, **variables}
    return subprocess.run(["bash", f"tools/{script}", *arguments], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture
def checkout(repo, tmp_path) -> Path:
    """The launchers beside a train.py that only says what it was given."""
    (tmp_path / "tools").mkdir()
    for script in repo.glob("tools/*.sh"):
        shutil.copy(script, tmp_path / "tools")
    (tmp_path / "tools/train.py").write_text(
        "import os, sys\n"
        "names = ('RANK', 'WORLD_SIZE', 'MASTER_PORT')\n"
        "words = [*(os.environ.get(name, '-') for name in names), *sys.argv[1:]]\n"
        "os.write(1, (' '.join(words) + '\\n').encode())\n"  # in one piece: two processes share the pipe
    )
    (tmp_path / "config.py").touch()
    return tmp_path


@pytest.mark.slow
def test_dist_train_starts_the_processes_and_passes_arguments_on(checkout):
    done = run("dist_train.sh", "config.py", "2", "--resume", cwd=checkout, PORT="29611")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        f"{rank} 2 29611 config.py --resume --launcher pytorch" for rank in (0, 1)
    ]


@pytest.mark.slow
def test_a_failing_process_fails_the_launcher_and_a_free_port_is_found(checkout):
    (checkout / "tools/train.py").write_text("import os, sys; print(os.environ['MASTER_PORT']); sys.exit(3)")
    done = run("dist_train.sh", "config.py", "1", cwd=checkout)
    assert done.returncode == 3  # the process's own: 2 for wrong use stays 2
    assert "Traceback" not in done.stderr
    assert int(done.stdout.splitlines()[0]) > 1023


@pytest.mark.parametrize(
    ("script", "arguments", "variables", "message"),
    [
        ("dist_train.sh", ["config.py"], {}, "expected CONFIG and GPUS, got 1 argument(s): config.py"),
        ("dist_train.sh", ["none.py", "2"], {}, "no config file none.py"),
        ("dist_train.sh", ["config.py", "two"], {}, "GPUS must be a whole number, got 'two'"),
        ("dist_train.sh", ["config.py", "0"], {}, "must be at least 1, got 0"),
        ("dist_train.sh", ["config.py", "8"], {"NNODES": "2"}, "NNODES=2 needs MASTER_ADDR"),
        ("dist_train.sh", ["config.py", "8"], {"NODE_RANK": "1"}, "NODE_RANK must be below NNODES=1, got 1"),
        ("dist_test.sh", ["config.py", "2"], {}, "expected CONFIG, CHECKPOINT and GPUS, got 2"),
        ("dist_test.sh", ["config.py", "none.pth", "2"], {}, "no file none.pth"),
        ("slurm_train.sh", ["gpu", "job"], {}, "expected PARTITION, JOB_NAME and CONFIG, got 2"),
        ("slurm_train.sh", ["gpu", "job", "config.py"], {}, "srun is not here"),
        ("setup_env.sh", ["everything"], {}, "expected 'pretrain' or 'all', got 'everything'"),
    ],
)
def test_wrong_arguments_are_named(checkout, script, arguments, variables, message):
    if "srun" in message and shutil.which("srun"):
        pytest.skip("this machine has Slurm")
    done = run(script, *arguments, cwd=checkout, **variables)
    assert done.returncode == 2
    assert message in done.stderr


def test_slurm_train_asks_for_whole_nodes(checkout):
    fake = checkout / "bin"
    fake.mkdir()
    (fake / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (fake / "srun").chmod(0o755)
    path = f"{fake}:{os.environ['PATH']}"
    variables = {"PATH": path, "GPUS": "16", "SRUN_ARGS": "--time 1"}
    done = run("slurm_train.sh", "gpu", "job", "config.py", "--resume", cwd=checkout, **variables)
    words = done.stdout.split()
    assert {"--partition=gpu", "--job-name=job", "--gres=gpu:8", "--ntasks=16", "--ntasks-per-node=8"} <= set(words)
    assert words[-4:] == ["config.py", "--launcher", "slurm", "--resume"]
    assert words[words.index("--time") + 1] == "1"
    odd = run("slurm_train.sh", "gpu", "job", "config.py", cwd=checkout, PATH=path, GPUS="12", GPUS_PER_NODE="8")
    assert "GPUS=12 must be a multiple of GPUS_PER_NODE=8" in odd.stderr


@pytest.mark.parametrize(("status", "job", "requeued"), [(75, "17", True), (75, "", False), (1, "17", False)])
def test_slurm_train_has_a_stopped_job_requeued(checkout, status, job, requeued):
    fake = checkout / "bin"
    fake.mkdir()
    for name, body in (("srun", f"exit {status}"), ("scontrol", 'echo "scontrol $*"')):
        (fake / name).write_text(f"#!/bin/sh\n{body}\n")
        (fake / name).chmod(0o755)
    path = f"{fake}:{os.environ['PATH']}"
    done = run("slurm_train.sh", "gpu", "job", "config.py", cwd=checkout, PATH=path, SLURM_JOB_ID=job)
    assert done.returncode == status
    assert ("scontrol requeue 17" in done.stdout) == requeued


def test_a_launcher_of_torch_before_2_9_passes_on_what_it_can(monkeypatch):
    monkeypatch.setattr("slotcon_plugin.launch.parse_args", lambda argv: argparse.Namespace())
    monkeypatch.setattr("slotcon_plugin.launch.run", lambda options: None)
    assert main([]) == 0


def test_more_gpus_than_there_are_are_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    with pytest.raises(UserError, match="--gpus 16: this machine has 8"):
        on_gpus(["pretrain", "photos"], 16)
