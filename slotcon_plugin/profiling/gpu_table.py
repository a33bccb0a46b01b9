"""Steps of SlotCon and VADeR at several batches, ours and a plain arm in turn, and their table."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from slotcon_plugin.config import load_config
from slotcon_plugin.errors import UserError
from slotcon_plugin.profiling.plain_step import plain_step
from slotcon_plugin.profiling.step import profile_step

_CONFIGS = {"SlotCon": "slotcon", "VADeR": "vader"}
_BATCHES = (64, 128, 256, 512)
_COMPILED_BATCH = 256
_REHEARSAL = {"train_dataloader.dataset.view_size": 64}


def measure(device: str, dtype: str, repeats: int, former: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Images/s and peak memory of both arms for every method and batch that fits: the result so far, row after row.

    A row that fails says why in ``failed``, and the others are measured all the same. Ends early when the GPU can no
    longer be used.

    Args:
        device: a GPU's; ``cpu`` is a rehearsal with small networks and views.
        dtype: of :func:`~slotcon_plugin.profiling.step.profile_step`.
        repeats: timed steps of each arm.
        former: an earlier result, whose rows that have not failed are kept.

    Raises:
        UserError: that is of another device, torch or setting.
    """
    on_gpu = device != "cpu"
    where = torch.cuda.get_device_name() if on_gpu else "CPU, a rehearsal: ResNet-18, small heads, views of 64"
    result = {"device": where, "torch": str(torch.__version__), "dtype": dtype, "repeats": repeats}
    for name, value in result.items() if former else ():
        if former.get(name) != value:
            raise UserError(f"--resume: the file was measured with {name} {former.get(name)}, this is {value}")
    kept = [row for row in former["rows"] if "failed" not in row] if former else []
    rows = {(row["method"], row["batch"], row["compile"]): row for row in kept}
    plan = list(_plan(on_gpu))

    def so_far() -> dict[str, Any]:
        return {**result, "rows": [rows[key] for key in plan if key in rows]}

    if rows:
        yield so_far()
    for method, batch, mode in plan:
        if (method, batch, mode) in rows:
            continue
        row = rows[method, batch, mode] = {"method": method, "batch": batch, "compile": mode}
        _fill(row, dtype, device, repeats)
        usable = _try_to_free(row, on_gpu)
        yield so_far()
        if not usable:
            return


def _plan(on_gpu: bool) -> Iterator[tuple[str, int, str | bool]]:
    """Method, batch, mode of compilation: what is compiled comes last, for it takes longest and may fail."""
    for method in _CONFIGS:
        for batch in _BATCHES if on_gpu else (4,):
            yield method, batch, False
    for method in _CONFIGS if on_gpu else ():
        yield method, _COMPILED_BATCH, "reduce-overhead"


def _fill(row: dict[str, Any], dtype: str, device: str, repeats: int) -> None:
    """The figures of a row, of ours and (nothing compiled) of the plain arm, as far as they can be taken."""
    on_gpu, batch, mode = device != "cpu", row["batch"], row["compile"]
    config = f"configs/pretrain/{_CONFIGS[row['method']]}_{'coco' if on_gpu else 'small'}.py"
    try:
        cfg = load_config(config, ({} if on_gpu else _REHEARSAL) | {"model.compile": mode})
        ours = profile_step(cfg, batch, dtype, device, repeats, by_part=False)
        row |= {"images_per_s": ours.images_per_s, "gib": ours.peak_gib}
        row |= {"of_matmul": ours.tflops / ours.matmul_tflops}
        if not mode:
            _free(on_gpu)
            seconds, row["plain_gib"] = plain_step(cfg, batch, dtype, device, repeats)
            row["plain_images_per_s"] = batch / seconds
    except torch.OutOfMemoryError:
        row["out_of_memory"] = True
    except (RuntimeError, AssertionError) as error:  # CUDA's, a compiler's, or cuDNN's where memory is short
        traceback.print_exc()
        row["failed"] = next(iter(str(error).splitlines()), "") or type(error).__name__


def _try_to_free(row: dict[str, Any], on_gpu: bool) -> bool:
    """Whether the GPU can be used after a row; if not, the row says so."""
    try:
        _free(on_gpu)
    except RuntimeError:  # after an error in a kernel every call fails
        traceback.print_exc()
        lost = "the GPU could not be used any more"
        row["failed"] = f"{row['failed']}; {lost}" if "failed" in row else lost
        return False
    return True


def _free(on_gpu: bool) -> None:
    """Give back what the last model held; raises where the GPU is in no state to go on."""
    if on_gpu:
        torch.cuda.synchronize()
        torch.compiler.reset()  # compiled code and CUDA graphs hold their memory
    gc.collect()  # models hold themselves by their hooks
    if on_gpu:
        torch.cuda.empty_cache()


def table(result: dict[str, Any]) -> str:
    """What :func:`measure` gave, in Markdown, as docs/benchmarks.md shows it."""
    lines = [
        f"{result['device']}, torch {result['torch']}, {result['dtype']}, median of {result['repeats']} steps.",
        "",
        "| method | batch | images/s | plain | x plain | of a large matrix product | GiB | plain | x plain |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    reasons = []
    for row in result["rows"]:
        word = "failed" if "failed" in row else "out of memory" if row.get("out_of_memory") else "-"
        figures = [word, *["-"] * 6]
        if "of_matmul" in row:  # then it was the plain arm that failed
            ours, gib = row["images_per_s"], row["gib"]
            figures = [f"{ours:.0f}", word, "-", f"{row['of_matmul']:.0%}", f"{gib:.1f}", "-", "-"]
            if "plain_images_per_s" in row:
                plain, plain_gib = row["plain_images_per_s"], row["plain_gib"]
                figures[1:3] = f"{plain:.0f}", f"{ours / plain:.2f}"
                figures[5:7] = f"{plain_gib:.1f}", f"{gib / plain_gib:.2f}"
        method = row["method"] + (", CUDA graphs" if row.get("compile") else "")
        lines.append(f"| {method} | {row['batch']} | {' | '.join(figures)} |")
        if "failed" in row:
            reasons.append(f"* {method}, batch {row['batch']}: {row['failed']}")
    return "\n".join([*lines, "", *reasons] if reasons else lines)
