"""Where the time of a training step goes."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from fvcore.nn import FlopCountAnalysis
from mmengine.config import Config
from torch import Tensor

from slotcon_plugin.engine.cpu import keep_freed_memory
from slotcon_plugin.models import BasePretrainer
from slotcon_plugin.registry import MODELS, OPTIMIZERS


@dataclass(frozen=True)
class StepFigures:
    """What :func:`benchmark_step` measured.

    Attributes:
        batch_size: images a step.
        step_s: median wall time of a whole step, seconds.
        step_spread_s: largest minus smallest of the steps' times.
        parts_s: median seconds of each part; ``losses`` is what the others leave of the step.
        gflop_per_image: arithmetic of backbone and projector, two views, both branches, 1 multiply-add = 2 FLOP.
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
        return self.batch_size / self.step_s

    @property
    def tflops(self) -> float:
        return self.gflop_per_image * self.images_per_s / 1e3

    def __str__(self) -> str:
        shares = "\n".join(
            f"  {name:<12}{seconds * 1e3:9.1f} ms  {seconds / self.step_s:6.1%}"
            for name, seconds in self.parts_s.items()
        )
        return (
            f"{self.images_per_s:.2f} images/s, {self.step_s * 1e3:.1f} ms a step of {self.batch_size} "
            f"(spread {self.step_spread_s * 1e3:.1f} ms), peak memory {self.peak_gib:.2f} GiB\n"
            f"{self.gflop_per_image:.1f} GFLOP an image: {self.tflops:.3g} TFLOP/s, "
            f"{self.tflops / self.matmul_tflops:.0%} of what a large matrix product reaches here "
            f"({self.matmul_tflops:.3g} TFLOP/s)\n{shares}"
        )


def _median_time(work: Callable[[], object], repeats: int, device: torch.device) -> tuple[float, float]:
    """Median and spread of the wall time of ``work``, after one call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]), max(times[1:]) - min(times[1:])


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    seconds, _ = _median_time(lambda: a @ b, 10, device)
    return 2 * side**3 / seconds / 1e12


def _views(cfg: Config, batch_size: int, device: torch.device) -> dict[str, Tensor | list[Tensor]]:
    side = cfg.train_dataloader.dataset.view_size
    views = [torch.randn(batch_size, 3, side, side, device=device) for _ in range(2)]
    low = torch.rand(batch_size, 2, 2, device=device) * 100
    crop_boxes = torch.cat([low, low + 200], dim=-1)
    return dict(
        views=[view.contiguous(memory_format=torch.channels_last) for view in views],
        crop_boxes=crop_boxes,
        flipped=torch.rand(batch_size, 2, device=device) < 0.5,
        sample_index=torch.arange(batch_size, device=device),
    )


def benchmark_step(cfg: Config, batch_size: int, dtype: str, device: str, repeats: int = 10) -> StepFigures:
    """Time training steps of a pretraining config on random views; nothing is read from the disk.

    Args:
        cfg: a pretraining config.
        batch_size: images a step.
        dtype: 'float32', 'bfloat16' or 'float16' of the autocast (no gradient scaling).
        device: where.
        repeats: timed repetitions of each part.
    """
    torch.manual_seed(0)
    where, precision = torch.device(device), getattr(torch, dtype)
    if where.type == "cpu":
        keep_freed_memory()
    else:
        torch.backends.cudnn.benchmark = True
    model: BasePretrainer = MODELS.build(cfg.model).to(where).train()
    optimizer = OPTIMIZERS.build({**cfg.optim_wrapper.optimizer, "params": list(model.student.parameters())})
    batch = _views(cfg, batch_size, where)
    views, student, teacher = batch["views"], model.student, model.teacher
    projector = "projector" if "projector" in student else None

    def autocast():
        return torch.autocast(where.type, precision, enabled=precision is not torch.float32)

    def forward_and_backward() -> None:
        with autocast():
            losses = model(**batch, mode="loss")
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()

    def step() -> None:
        forward_and_backward()
        optimizer.step()
        model.update_teacher()

    def through(head: str | None) -> None:
        def run(parts):
            maps = [parts["backbone"](view)[-1] for view in views]
            return [parts[head](m) for m in maps] if head else maps

        with autocast():
            outputs = run(student)
            with torch.no_grad():
                run(teacher)
        optimizer.zero_grad()
        sum(out.float().mean() for out in outputs).backward()

    step_s, spread = _median_time(step, repeats, where)
    peak = _peak_bytes(where)
    backbone_s, _ = _median_time(lambda: through(None), repeats, where)
    heads_s = _median_time(lambda: through(projector), repeats, where)[0] - backbone_s if projector else 0.0
    forward_and_backward()
    optimizer_s, _ = _median_time(optimizer.step, repeats, where)
    teacher_s, _ = _median_time(model.update_teacher, repeats, where)
    parts = {"backbone": backbone_s, "projector": heads_s, "optimiser": optimizer_s, "teacher": teacher_s}
    parts["losses"] = step_s - sum(parts.values())
    return StepFigures(
        batch_size=batch_size,
        step_s=step_s,
        step_spread_s=spread,
        parts_s=parts,
        gflop_per_image=_gflop_per_image(model, views[0][:1], projector),
        peak_gib=peak / 2**30,
        matmul_tflops=_matmul_tflops(where, precision),
    )


@torch.no_grad()
def _gflop_per_image(model: BasePretrainer, image: Tensor, projector: str | None) -> float:
    model.eval()
    parts = model.student
    maps = parts["backbone"](image)
    macs = FlopCountAnalysis(parts["backbone"], image).unsupported_ops_warnings(False).total()
    if projector:
        macs += FlopCountAnalysis(parts[projector], maps[-1]).unsupported_ops_warnings(False).total()
    # two views; the student's backward costs two forwards; the teacher has none
    return 2 * 2 * (3 + 1) * macs / 1e9
