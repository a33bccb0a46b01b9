"""Time steps of SlotCon and VADeR at several batches, ours and a plain arm in turn, into a result file; or tabulate it.

    python tools/benchmark_gpu.py --out work_dirs/gpu_check/gpu.json
    python tools/benchmark_gpu.py --out work_dirs/gpu_check/gpu.json --resume
    python tools/benchmark_gpu.py --table work_dirs/gpu_check/gpu.json
    python tools/benchmark_gpu.py --device cpu --out /tmp/rehearsal.json

The plain arm takes the step as the papers' code does (slotcon_plugin/profiling/plain_step.py). Random views stand in
for photos. On a GPU the last rows are ours with backbone and projector as CUDA graphs (model.compile=reduce-overhead).
A row that fails says why, the others are measured all the same, and the status at the end is 1.
"""

from __future__ import annotations

import gc
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slotcon_plugin.arguments import add_device, tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.errors import RunFailedError, UserError
from slotcon_plugin.files import write_json

CONFIGS = {"SlotCon": "slotcon", "VADeR": "vader"}
BATCHES = (64, 128, 256, 512)
COMPILED_BATCH = 256
REHEARSAL = {"train_dataloader.dataset.view_size": 64}


def main() -> None:
    parser = tool_parser(__doc__)
    add_device(parser)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--repeats", type=int, default=10, help="timed steps of each arm (%(default)s)")
    parser.add_argument("--out", type=Path, help="result file to write")
    parser.add_argument("--resume", action="store_true", help="measure what --out lacks, or has as failed")
    parser.add_argument("--table", type=Path, help="print this result file as a table, and measure nothing")
    args = parser.parse_args()
    if args.table:
        if not args.table.is_file():
            raise UserError(f"there is no result file {args.table}; --out FILE writes one")
        print(table(json.loads(args.table.read_text())))
        return
    if not args.out:
        parser.error("--out FILE or --table FILE")
    former = json.loads(args.out.read_text()) if args.resume and args.out.is_file() else None
    for result in measure(args.device, args.dtype, args.repeats, former):
        write_json(args.out, result)  # what is measured is kept, whatever comes
    print(table(result))
    failed = sum("failed" in row for row in result["rows"])
    if failed:
        raise RunFailedError(f"{failed} of {len(result['rows'])} rows failed; why is below the table")


def measure(device: str, dtype: str, repeats: int, former: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Images/s and peak memory of both arms for every method and batch that fits: the result so far, row after row.

    Ends early when the GPU can no longer be used.

    Args:
        former: an earlier result, whose rows that have not failed are kept.

    Raises:
        UserError: that is of another device, torch or setting.
    """
    import torch

    from slotcon_plugin.config import load_config
    from slotcon_plugin.profiling.plain_step import plain_step
    from slotcon_plugin.profiling.step import profile_step

    on_gpu = device != "cpu"
    configs = Path(__file__).resolve().parent.parent / "configs/pretrain"
    where = torch.cuda.get_device_name() if on_gpu else "CPU, a rehearsal: ResNet-18, small heads, views of 64"
    size = "coco" if on_gpu else "small"
    result = {"device": where, "torch": str(torch.__version__), "dtype": dtype, "repeats": repeats}
    for name, value in result.items() if former else ():
        if former.get(name) != value:
            raise UserError(f"--resume: the file was measured with {name} {former.get(name)}, this is {value}")
    kept = [row for row in former["rows"] if "failed" not in row] if former else []
    rows = {(row["method"], row["batch"], row["compile"]): row for row in kept}
    plan = list(_plan(on_gpu))

    def so_far() -> dict[str, Any]:
        keys = [(method, batch, mode) for method, _, batch, mode in plan]
        return {**result, "rows": [rows[key] for key in keys if key in rows]}

    if rows:
        yield so_far()
    for method, name, batch, mode in plan:
        if (method, batch, mode) in rows:
            continue
        row: dict[str, Any] = {"method": method, "batch": batch, "compile": mode}
        options = ({} if on_gpu else REHEARSAL) | {"model.compile": mode}
        try:
            cfg = load_config(configs / f"{name}_{size}.py", options)
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
        usable = True
        try:
            _free(on_gpu)
        except RuntimeError:  # after an error in a kernel every call fails
            traceback.print_exc()
            usable, lost = False, "the GPU could not be used any more"
            row["failed"] = f"{row['failed']}; {lost}" if "failed" in row else lost
        rows[method, batch, mode] = row
        yield so_far()
        if not usable:
            return


def _free(on_gpu: bool) -> None:
    """Give back what the last model held; raises where the GPU is in no state to go on."""
    import torch

    if on_gpu:
        torch.cuda.synchronize()
        torch.compiler.reset()  # compiled code and CUDA graphs hold their memory
    gc.collect()  # models hold themselves by their hooks
    if on_gpu:
        torch.cuda.empty_cache()


def _plan(on_gpu: bool) -> Iterator[tuple[str, str, int, str | bool]]:
    """Method, config, batch, mode of compilation: what is compiled comes last, for it takes longest and may fail."""
    for method, name in CONFIGS.items():
        for batch in BATCHES if on_gpu else (4,):
            yield method, name, batch, False
    for method, name in CONFIGS.items() if on_gpu else ():
        yield method, name, COMPILED_BATCH, "reduce-overhead"


def table(result: dict[str, Any]) -> str:
    """A result file in Markdown, as docs/benchmarks.md shows it."""
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


if __name__ == "__main__":
    run_command(main)
