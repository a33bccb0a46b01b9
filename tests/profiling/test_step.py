"""The time of a step is booked on the part that takes it, forward and backward, whatever parts a method has."""

import pytest
import torch
from torch import nn

from slotcon_plugin.config import load_config, settle
from slotcon_plugin.errors import RunFailedError
from slotcon_plugin.models import VADeR
from slotcon_plugin.models.wide import WideConv2d
from slotcon_plugin.profiling import step as step_module
from slotcon_plugin.profiling.plain_step import plain_step
from slotcon_plugin.profiling.step import PartClock, median_time, profile_step
from slotcon_plugin.registry import MODELS
from tests.processes import run_python


class Tick(torch.autograd.Function):
    """Lets a clock of our own go on, forward and backward."""

    now = 0

    @staticmethod
    def forward(ctx, x, ticks, ticks_back):
        ctx.ticks_back = ticks_back
        Tick.now += ticks
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        Tick.now += ctx.ticks_back
        return grad, None, None


class Part(nn.Module):
    def __init__(self, forward, backward):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.ticks = forward, backward

    def forward(self, x):
        return [Tick.apply(x * self.weight, *self.ticks)]


def test_each_part_gets_its_own_time(monkeypatch):
    monkeypatch.setattr("slotcon_plugin.profiling.step._now", lambda device: Tick.now)
    student = nn.ModuleDict({"first": Part(1, 10), "second": Part(100, 1000)})
    teacher = nn.ModuleDict({"first": Part(10_000, 7)})
    clock = PartClock(torch.device("cpu"))
    clock.watch(student)
    clock.watch(teacher)

    def step():
        outputs = []
        for _ in range(2):
            inner = student["first"](torch.ones(1))[0]
            inner = Tick.apply(inner, 3, 5) if outputs else inner  # parts follow each other, or something is between
            outputs.append(student["second"](inner)[0])
        with torch.no_grad():
            teacher["first"](torch.ones(1))
        Tick.apply(sum(outputs), 20, 40).backward()
        clock.switch("optimiser")
        Tick.now += 200

    seconds = clock.run(step)
    want = {"first": 2 * 11 + 10_000, "second": 2 * 1100, "optimiser": 200, "teacher's average": 0, "the rest": 68}
    assert seconds == want
    assert clock.run(step) == want, "a second step starts from zero"


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


def vader_on_small_views(repo, **model):
    cfg = load_config(repo / "configs/pretrain/vader_demo.py", {f"model.{key}": value for key, value in model.items()})
    cfg.train_dataloader.dataset.view_size = 64
    return cfg


def test_a_compiled_step_is_timed_compiled(repo, monkeypatch):
    """FLOP are counted in a step of its own, after which torch must still be willing to compile the others."""
    made, replayed = [], []

    def backend(graph, _):
        made.append(graph)
        return lambda *args: replayed.append(graph) or graph(*args)

    def compile_by_it(part, **options):
        part._compiled_call_impl = torch.compile(part._call_impl, backend=backend, dynamic=False)

    monkeypatch.setattr(nn.Module, "compile", compile_by_it)
    eager = profile_step(vader_on_small_views(repo), 2, "float32", "cpu", repeats=1, by_part=False)
    compiled = profile_step(vader_on_small_views(repo, compile=True), 2, "float32", "cpu", repeats=3, by_part=False)
    assert len(set(made)) == 4, "backbone and decoder of both branches"
    assert len(replayed) == 4 * 4, "one step that is not timed, three that are"
    assert compiled.gflop_per_image == eager.gflop_per_image


def test_a_step_that_is_not_compiled_is_not_taken_for_it(repo, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", lambda part, **options: setattr(part, "_compiled_call_impl", None))
    with pytest.raises(RunFailedError, match=r"step was not compiled, though model\.compile is True"):
        profile_step(vader_on_small_views(repo, compile=True), 2, "float32", "cpu", repeats=1)


def test_the_plain_arm_alone_computes_the_figures_of_a_report(repo, monkeypatch):
    reported, loss = [], VADeR.loss
    monkeypatch.setattr(VADeR, "loss", lambda model, *args: reported.append(model.reporting) or loss(model, *args))
    profile_step(vader_on_small_views(repo), 2, "float32", "cpu", repeats=1, by_part=False)
    assert reported == [False] * 3
    plain_step(vader_on_small_views(repo), 2, "float32", "cpu", repeats=1)
    assert reported[3:] == [True] * 2


def test_memory_counts_from_the_end_of_the_first_call(monkeypatch):
    done = []
    monkeypatch.setattr("slotcon_plugin.profiling.step._now", lambda device: len(done))
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: done.append("reset"))
    assert median_time(lambda: done.append("step"), 3, torch.device("cuda")) == (1, 0)
    assert done == ["step", "reset", "step", "step", "step"]


def test_the_matrix_product_is_timed_once_and_before_the_models(repo, monkeypatch):
    order, build = [], MODELS.build
    step_module._matmul_tflops.cache_clear()
    monkeypatch.setattr(step_module, "median_time", lambda *args: order.append("product or step") or (1.0, 0.0))
    monkeypatch.setattr(MODELS, "build", lambda *args: order.append("model") or build(*args))
    for _ in range(2):
        profile_step(vader_on_small_views(repo), 2, "float32", "cpu", repeats=1, by_part=False)
    step_module._matmul_tflops.cache_clear()  # of a clock that stood still
    models = [place for place, what in enumerate(order) if what == "model"]
    assert order.count("product or step") == 3
    assert order.index("product or step") < models[0]


def test_arithmetic_is_that_of_all_convolutions(repo):
    """Counted here from the shapes: each costs itself forward, and itself for each of the two gradients backward.

    But for weight gradients of wide convolutions, in which what a kernel sees outside of the map is left out.
    """
    cfg = load_config(repo / "configs/pretrain/vader_demo.py")
    cfg.train_dataloader.dataset.view_size = 64
    cfg.model.queue_size = 8
    settle(cfg)
    model = MODELS.build(cfg.model)
    flops, outside = [], []

    def count(conv, inputs, output):
        flops.append(2 * output[0].numel() * conv.weight[0].numel())
        if isinstance(conv, WideConv2d):
            seen = inside(output.shape[2], conv, 0) * inside(output.shape[3], conv, 1)
            outside.append((1 - seen) * flops[-1])

    def inside(side, conv, axis):
        taps, step, pad = conv.kernel_size[axis], conv.dilation[axis], conv.padding[axis]
        places = [0 <= place + tap * step - pad < side for place in range(side) for tap in range(taps)]
        return sum(places) / len(places)

    for part in model.student.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    with torch.no_grad():
        model.embed(torch.zeros(1, 3, 64, 64), "student")
    # one view to the student, the other to the teacher; images get no gradient
    assert outside and max(outside) > 0
    expected = 3 * sum(flops) - flops[0] + sum(flops) - sum(outside)
    measured = profile_step(cfg, 2, "float32", "cpu", repeats=1).gflop_per_image * 1e9
    assert measured == pytest.approx(expected, rel=0.01)  # similarities of pixels and keys are counted too


def test_the_tool_prints_the_profile(repo):
    command = ["tools/benchmark_step.py", "configs/pretrain/slotcon_demo.py", "--batch-size", "2"]
    command += ["--repeats", "1", "--dtype", "float32", "--cfg-options", "train_dataloader.dataset.view_size=32"]
    done = run_python(*command, cwd=repo)
    assert done.returncode == 0, done.stderr
    assert "a step of 2" in done.stdout
