"""The demo plan, made tiny, from scenes to tables; killed in the middle and finished by the same command."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

from slotcon_plugin.benchmark import load_plan, plan_steps
from slotcon_plugin.benchmark.records import read_json
from slotcon_plugin.benchmark.render import write_tables
from slotcon_plugin.benchmark.run import reasons_to_run
from slotcon_plugin.results import read_result

PLAN = """
_base_ = ["{repo}/configs/benchmark/demo.py"]
data = dict(scenes=dict(path="{root}/scenes", demo_scenes=[
    "--layout", "camvid", "--splits", "train=12", "val=2", "test=4", "--size", "96", "72"]))
pretraining = dict(_delete_=True, random=dict(), slotcon=dict(
    config="configs/pretrain/slotcon_demo.py", photos="scenes", hours=0.01,
    options={{
        "train_cfg.max_epochs": 4, "model.projector.hidden_channels": 16, "model.predictor.hidden_channels": 16,
        "model.grouping.num_prototypes": 12, "train_dataloader.batch_size": 4, "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False, "train_dataloader.dataset.view_size": 48,
        "default_hooks.checkpoint.interval": 2, "default_hooks.pictures.interval": 100,
        "optim_wrapper.dtype": "float32",
    }}))
tasks = dict(
    probe=dict(args=["--test", "test", "--neighbours", "0", "--input-size", "64", "96", "--epochs", "1"]),
    unsupervised=dict(args=["--split", "test", "--short-side", "64"]))
seeds = [0]
"""


@pytest.mark.slow
def test_killed_in_the_middle_and_finished_on_the_second_start(tmp_path, repo, monkeypatch):
    monkeypatch.chdir(repo)
    plan_file, work_dir = tmp_path / "tiny.py", tmp_path / "work"
    plan_file.write_text(PLAN.format(repo=repo, root=tmp_path))
    command = [sys.executable, "tools/benchmark.py", str(plan_file), "--work-dir", str(work_dir), "--gpus", "0"]
    steps = {step.name: step for step in plan_steps(load_plan(plan_file), work_dir)}
    assert list(steps) == [
        *("data/scenes", "pretrain/slotcon-seed0", "convert/slotcon-torchvision-seed0"),
        *("probe/slotcon-seed0", "unsupervised/slotcon-seed0"),
    ]
    pretraining = steps["pretrain/slotcon-seed0"].folder

    with open(tmp_path / "first.txt", "w") as out:
        first = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 120
        while not (pretraining / "last_checkpoint").exists() and time.monotonic() < deadline:
            assert first.poll() is None, (tmp_path / "first.txt").read_text()
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert not (pretraining / "step.json").exists(), "the step was over before the kill: make it longer"
    scenes_done = (steps["data/scenes"].folder / "step.json").stat().st_mtime_ns

    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "5 steps, 1 done" in second.stdout
    assert "data/scenes (" not in second.stdout, "a finished step was run again"
    assert (steps["data/scenes"].folder / "step.json").stat().st_mtime_ns == scenes_done
    logs = [path.read_text() for path in pretraining.glob("*/*.log")]
    assert any("resumed epoch" in log for log in logs), "the killed pretraining began anew"
    assert reasons_to_run(list(steps.values()), work_dir) == {}

    third = subprocess.run(command, capture_output=True, text=True)
    assert third.returncode == 0, third.stderr
    assert "5 steps, 5 done" in third.stdout
    assert "[" not in third.stdout, "everything was done, and yet a step was started"

    probe = read_result(work_dir / "probe/slotcon-seed0/linear_checkpoint.json")
    with open(work_dir / "table.csv") as file:
        cells = {(row["pretraining"], row["metric"]): row for row in csv.DictReader(file)}
    cell = cells["slotcon", "mIoU"]
    assert (cell["kind"], float(cell["mean"])) == ("measured", probe["metrics"]["mIoU"])
    assert cell["from"] == "probe/slotcon-seed0/linear_checkpoint.json"
    assert cells["random init" if ("random init", "mIoU") in cells else "random", "mIoU"]["kind"] == "measured"
    assert cells["slotcon", "mIoU_kmeans"]["kind"] == "measured"

    assert "ignored" not in (work_dir / "table.md").read_text(), "the table names the tool's own files"

    before = {name: (work_dir / name).read_bytes() for name in ("table.md", "table.csv", "table.html")}
    write_tables(load_plan(plan_file), [work_dir], work_dir)
    assert before == {name: (work_dir / name).read_bytes() for name in before}, "the same files gave another table"

    record = read_json(pretraining / "step.json")
    assert record["inputs"] == []
    assert "checkpoint.pth" in record["outputs"]
