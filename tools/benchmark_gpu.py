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

import json
from pathlib import Path

from slotcon_plugin.arguments import add_device, at_least, tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.errors import RunFailedError, UserError
from slotcon_plugin.files import write_json


def main() -> None:
    parser = tool_parser(__doc__)
    add_device(parser)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--repeats", type=at_least(1), default=10, help="timed steps of each arm (%(default)s)")
    parser.add_argument("--out", type=Path, help="result file to write")
    parser.add_argument("--resume", action="store_true", help="measure what --out lacks, or has as failed")
    parser.add_argument("--table", type=Path, help="print this result file as a table, and measure nothing")
    args = parser.parse_args()
    if not args.out and not args.table:
        parser.error("--out FILE or --table FILE")

    from slotcon_plugin.profiling.gpu_table import measure, table

    if args.table:
        if not args.table.is_file():
            raise UserError(f"there is no result file {args.table}; --out FILE writes one")
        print(table(json.loads(args.table.read_text())))
        return
    former = json.loads(args.out.read_text()) if args.resume and args.out.is_file() else None
    for result in measure(args.device, args.dtype, args.repeats, former):
        write_json(args.out, result)  # what is measured is kept, whatever comes
    print(table(result))
    failed = sum("failed" in row for row in result["rows"])
    if failed:
        raise RunFailedError(f"{failed} of {len(result['rows'])} rows failed; why is below the table")


if __name__ == "__main__":
    run_command(main)
