"""Runs of two processes on one machine, as torchrun starts them."""

import re

import pytest
import timm
import torch

from slotcon_plugin.checkpoints.safe_load import load_file
from tests.processes import run_ranks


@pytest.mark.slow
def test_ranks_end_a_budget_together(tmp_path, repo, config_file):
    """Both plan the same number of steps, though their clocks differ: else one would wait for the other for ever."""
    command = [
        repo / "tools/train.py",
        config_file("bfloat16"),
        "--launcher",
        "pytorch",
        "--work-dir",
        tmp_path / "run",
    ]
    command += ["--budget", "40s", "--batch-mode", "scale-lr"]
    run_ranks(command, command)
    checkpoints = list((tmp_path / "run").glob("iter_*.pth"))
    last = load_file(max(checkpoints, key=lambda path: path.stat().st_mtime))
    budget = last["meta"]["budget"]
    assert budget["seconds"] == 40
    assert 1 < budget["used"] < 200  # two processes on a busy machine with few cores
    assert last["meta"]["iter"] == last["state_dict"]["teacher_steps"].item() >= 1


@pytest.mark.slow
def test_ranks_hold_the_backbone_and_then_train_it(tmp_path, repo, config_file):
    weights = tmp_path / "weights.pth"
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    config = tmp_path / "heads_first.py"
    config.write_text(
        f"_base_ = [{str(config_file('bfloat16'))!r}]\n"
        "default_hooks = dict(heads_first=dict(type='HeadsFirstHook', share=0.5))\n"
    )
    command = [repo / "tools/train.py", config, "--launcher", "pytorch", "--work-dir", tmp_path / "run"]
    command += ["--init", weights, "--init-title", "noise"]
    run_ranks(command, command)
    given = {f"model.{k}": v for k, v in torch.load(weights).items() if not re.match(r"fc\.|.*num_batches", k)}
    files = sorted((tmp_path / "run").glob("iter_*.pth"), key=lambda path: int(path.stem.split("_")[1]))
    steps = int(files[-1].stem.split("_")[1])
    held, moved = [file for file in files if int(file.stem.split("_")[1]) <= steps // 2], files[-1]
    assert held
    for file in held:
        state = load_file(file)["state_dict"]
        for branch in ("student", "teacher"):
            assert all(torch.equal(state[f"{branch}.backbone.{key}"], value) for key, value in given.items())
    state = load_file(moved)["state_dict"]
    assert not any(torch.equal(state[f"student.backbone.{key}"], value) for key, value in given.items())
