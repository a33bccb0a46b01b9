"""The time of a step is booked on the part that takes it, forward and backward, whatever parts a method has."""

import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from slotcon_plugin.config import load_config
from slotcon_plugin.profiling.step import PartClock, profile_step
from slotcon_plugin.registry import MODELS


class Nap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, asleep, back):
        ctx.back = back
        time.sleep(asleep)
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        time.sleep(ctx.back)
        return grad, None, None


class Sleeper(nn.Module):
    def __init__(self, forward, backward):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.naps = forward, backward

    def forward(self, x):
        return [Nap.apply(x * self.weight, *self.naps)]


def test_each_part_gets_its_own_time():
    student = nn.ModuleDict({"first": Sleeper(0.01, 0.04), "second": Sleeper(0.02, 0.08)})
    teacher = nn.ModuleDict({"first": Sleeper(0.16, 9)})
    clock = PartClock(torch.device("cpu"))
    clock.watch(student)
    clock.watch(teacher)

    def step():
        outputs = []
        for _ in range(2):
            inner = student["first"](torch.ones(1))[0]
            outputs.append(student["second"](inner if len(outputs) else inner * 2)[0])  # also with something between
        with torch.no_grad():
            teacher["first"](torch.ones(1))
        Nap.apply(sum(outputs), 0.03, 0.03).backward()
        clock.switch("optimiser")
        time.sleep(0.05)

    start = time.perf_counter()
    seconds = clock.run(step)
    whole = time.perf_counter() - start
    want = {"first": 2 * 0.05 + 0.16, "second": 2 * 0.10, "optimiser": 0.05, "teacher's average": 0, "the rest": 0.06}
    assert seconds == {name: pytest.approx(value, abs=0.03) for name, value in want.items()}
    assert sum(seconds.values()) == pytest.approx(whole, abs=0.01)
    assert list(clock.run(step)) == list(seconds), "a second step starts from zero"


@pytest.mark.parametrize(("name", "parts"), [("slotcon", "projector grouping predictor"), ("vader", "decoder")])
def test_a_config_is_profiled_by_the_parts_of_its_method(repo, name, parts):
    cfg = load_config(repo / f"configs/pretrain/{name}_demo.py")
    cfg.train_dataloader.dataset.view_size = 64
    profile = profile_step(cfg, batch_size=2, dtype="float32", device="cpu", repeats=2)
    assert list(profile.parts_s) == ["backbone", *parts.split(), "optimiser", "teacher's average", "the rest"]
    assert min(profile.parts_s.values()) > 0
    assert profile.images_per_s == pytest.approx(2 / profile.step_s)
    for word in ("images/s", "GFLOP an image", *profile.parts_s):
        assert word in str(profile)


def test_arithmetic_is_that_of_all_convolutions(repo):
    """Counted here from the shapes: each costs itself forward, and itself for each of the two gradients backward."""
    cfg = load_config(repo / "configs/pretrain/vader_demo.py")
    cfg.train_dataloader.dataset.view_size = 64
    cfg.model.queue_size = 8
    model = MODELS.build(cfg.model)
    flops = []

    def count(conv, inputs, output):
        flops.append(2 * output[0].numel() * conv.weight[0].numel())

    for part in model.student.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    with torch.no_grad():
        model.embed(torch.zeros(1, 3, 64, 64), "student")
    # one view to the student, the other to the teacher; images get no gradient
    expected = 3 * sum(flops) - flops[0] + sum(flops)
    measured = profile_step(cfg, 2, "float32", "cpu", repeats=1).gflop_per_image * 1e9
    assert measured == pytest.approx(expected, rel=0.01)  # similarities of pixels and keys are counted too


def test_the_tool_prints_the_profile(repo):
    command = [sys.executable, "tools/benchmark_step.py", "configs/pretrain/slotcon_demo.py", "--batch-size", "2"]
    command += ["--repeats", "1", "--dtype", "float32", "--cfg-options", "train_dataloader.dataset.view_size=32"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a step of 2" in done.stdout
