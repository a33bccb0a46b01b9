"""Where the time of a training step goes."""

from __future__ import annotations

import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from mmengine.config import Config
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from slotcon_plugin.config import settle
from slotcon_plugin.data.photometric import PhotometricConfig, draw_photometric
from slotcon_plugin.engine.cpu import keep_freed_memory
from slotcon_plugin.errors import RunFailedError
from slotcon_plugin.models import BasePretrainer
from slotcon_plugin.registry import MODELS, OPTIMIZERS

_REST = "the rest"


@dataclass(frozen=True)
class StepProfile:
    """What :func:`profile_step` measured.

    Attributes:
        batch_size: images a step.
        step_s: median wall time of a whole step, seconds.
        step_spread_s: largest minus smallest of the steps' times.
        parts_s: median seconds of each part of the branches (student and teacher, forward and backward), of optimiser
            and teacher's average, and of the rest: losses and what lies between the parts.
        gflop_per_image: arithmetic of all convolutions and matrix products of a step, 1 multiply-add = 2 FLOP.
        peak_gib: most memory in use: of the device, or of the process on a CPU.
        matmul_tflops: what a large matrix product reaches on this device in this precision.
    """

    batch_size: int
    step_s: float
    step_spread_s: float
    parts_s: dict[str, float]
    gflop_per_image: float
    peak_gib: float
    matmul_tflops: float

    @property
    def images_per_s(self) -> float:
        """Images trained on in a second."""
        return self.batch_size / self.step_s

    @property
    def tflops(self) -> float:
        """Arithmetic of :attr:`gflop_per_image` in a second, TFLOP/s."""
        return self.gflop_per_image * self.images_per_s / 1e3

    def __str__(self) -> str:
        total = sum(self.parts_s.values())
        rows = [(name, f"{1e3 * s:.1f}", f"{s / total:.1%}") for name, s in self.parts_s.items()]
        return (
            f"{self.images_per_s:.2f} images/s, {self.step_s * 1e3:.1f} ms a step of {self.batch_size} "
            f"(spread {self.step_spread_s * 1e3:.1f} ms), peak memory {self.peak_gib:.2f} GiB\n"
            f"{self.gflop_per_image:.1f} GFLOP an image: {self.tflops:.3g} TFLOP/s, "
            f"{self.tflops / self.matmul_tflops:.0%} of what a large matrix product reaches here "
            f"({self.matmul_tflops:.3g} TFLOP/s)\n"
            + tabulate(rows, ["part", "ms", "share"], colalign=("left", "right", "right"), disable_numparse=True)
        )


def profile_step(
    cfg: Config, batch_size: int, dtype: str, device: str, repeats: int = 10, by_part: bool = True
) -> StepProfile:
    """Time training steps of a pretraining config on random views; as in most steps of a run, no figures are computed.

    Nothing is read from the disk.

    Args:
        cfg: a pretraining config.
        batch_size: images a step.
        dtype: 'float32', 'bfloat16' or 'float16' of the autocast (no gradient scaling).
        device: where.
        repeats: timed steps.
        by_part: time as many steps again, part by part by hooks, with which a compiled part would be compiled anew.

    Raises:
        RunFailedError: the config asks for a compiled model, and nothing was compiled.
    """
    settle(cfg)
    where, precision = torch.device(device), getattr(torch, dtype)
    if where.type == "cpu":
        keep_freed_memory()
    else:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32  # as what it is compared with
    matmul_tflops = _matmul_tflops(where, precision)
    torch.manual_seed(0)
    model: BasePretrainer = MODELS.build(cfg.model).to(where).train()
    model.reporting = False
    optimizer = OPTIMIZERS.build({**cfg.optim_wrapper.optimizer, "params": list(model.student.parameters())})
    batch = model.data_preprocessor(random_samples(batch_size, cfg.train_dataloader.dataset.view_size), True)
    clock = PartClock(where)

    def forward_and_backward() -> None:
        optimizer.zero_grad()  # before the activations are there, as a training run does
        with torch.autocast(where.type, precision, enabled=precision is not torch.float32):
            losses = model(**batch, mode="loss")
        model.parse_losses(losses)[0].backward()

    def step() -> None:
        forward_and_backward()
        clock.switch("optimiser")
        optimizer.step()
        clock.switch("teacher's average")
        model.update_teacher()

    # Without the stance torch.compile would give up for good on all code that it meets under a counting mode.
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        forward_and_backward()
    graphs = _graphs_so_far() if model.compile_mode else 0
    step_s, spread = median_time(step, repeats, where)
    peak = peak_bytes(where)
    if model.compile_mode and _graphs_so_far() == graphs:
        raise RunFailedError(f"the step was not compiled, though model.compile is {cfg.model.compile!r}")
    parts: dict[str, list[float]] = defaultdict(list)
    if by_part:
        clock.watch(model.student)
        clock.watch(model.teacher)
    for _ in range(repeats if by_part else 0):
        for name, seconds in clock.run(step).items():
            parts[name].append(seconds)
    return StepProfile(
        batch_size=batch_size,
        step_s=step_s,
        step_spread_s=spread,
        parts_s={name: statistics.median(seconds) for name, seconds in parts.items()},
        gflop_per_image=counter.get_total_flops() / batch_size / 1e9,
        peak_gib=peak / 2**30,
        matmul_tflops=matmul_tflops,
    )


class PartClock:
    """Books the time of a step on the parts of its branches, by hooks on them: a method need not say what it has.

    A part's backward begins when the gradient of one of its outputs is known, and ends when that of its input is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._part, self._since = _REST, 0.0

    def watch(self, branch: nn.ModuleDict) -> None:
        """Book the forward and backward time of each part of a branch on its name."""
        for name, part in _leaves(branch):
            self.seconds.setdefault(name, 0.0)
            part.register_forward_pre_hook(partial(self._enter, name))
            part.register_forward_hook(partial(self._leave, name))

    def run(self, step: Callable[[], object]) -> dict[str, float]:
        """Seconds of each part in one step; they add up to the whole."""
        self.seconds = dict.fromkeys([*self.seconds, "optimiser", "teacher's average", _REST], 0.0)
        self._part, self._since = _REST, _now(self.device)
        step()
        self.switch(_REST)
        return self.seconds

    def switch(self, part: str) -> None:
        """From here on the time is ``part``'s; does nothing while no branch is watched."""
        if self.seconds:
            now = _now(self.device)
            self.seconds[self._part] += now - self._since
            self._part, self._since = part, now

    def _enter(self, name: str, _: nn.Module, inputs: tuple) -> None:
        # An input may be the output of another part, whose backward has then begun.
        self._on_gradient(inputs, lambda _: self.switch(_REST) if self._part == name else None)
        self.switch(name)

    def _leave(self, name: str, _: nn.Module, inputs: tuple, outputs: object) -> None:
        self.switch(_REST)
        self._on_gradient(outputs if isinstance(outputs, (tuple, list)) else (outputs,), lambda _: self.switch(name))

    @staticmethod
    def _on_gradient(values: tuple | list, call: Callable[[Tensor], None]) -> None:
        for value in values:
            if isinstance(value, Tensor) and value.requires_grad:
                value.register_hook(call)


def _leaves(parts: nn.ModuleDict, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The parts that compute, by their paths: a branch may hold dicts of parts."""
    for name, part in parts.items():
        if isinstance(part, nn.ModuleDict):
            yield from _leaves(part, f"{path}{name}.")
        else:
            yield f"{path}{name}", part


def random_samples(count: int, side: int) -> dict[str, Tensor]:
    """What a loader gives: collated samples of TwoViewDataset."""
    low = torch.rand(count, 2, 2) * 100
    rng = np.random.default_rng(0)
    colours = [[draw_photometric(rng, PhotometricConfig()) for _ in range(2)] for _ in range(count)]
    return dict(
        views=torch.randint(0, 256, (count, 2, 3, side, side), dtype=torch.uint8),
        crop_boxes=torch.cat([low, low + 200], dim=-1),
        flipped=torch.rand(count, 2) < 0.5,
        photometric=torch.from_numpy(np.array(colours)),
        sample_index=torch.arange(count),
    )


def median_time(work: Callable[[], object], repeats: int, device: torch.device) -> tuple[float, float]:
    """Median and spread of the wall time of ``work``, after one call that is not counted.

    On a GPU, :func:`peak_bytes` counts from the end of that call: it searches for algorithms, and allocates for each.
    """
    work()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(repeats):
        start = _now(device)
        work()
        times.append(_now(device) - start)
    return statistics.median(times), max(times) - min(times)


def _now(device: torch.device) -> float:
    """Seconds, when the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_bytes(device: torch.device) -> int:
    """Most bytes in use: on a GPU by tensors since the last reset, on a CPU by this process since it started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _graphs_so_far() -> int:
    """How many graphs torch.compile has made in this process."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@cache  # measured once for all models, before the first of them takes memory
def _matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    seconds, _ = median_time(lambda: a @ b, 10, device)
    return 2 * side**3 / seconds / 1e12
