"""Time a training step: images/s, peak memory, the share of each part, and how near it comes to the device's limit.

    python tools/benchmark_step.py configs/pretrain/slotcon_coco.py --batch-size 8
    python tools/benchmark_step.py configs/pretrain/slotcon_coco.py --batch-size 64 --device cuda
    python tools/benchmark_step.py configs/pretrain/vader_coco.py --batch-size 8 --dtype float32

Random views stand in for photos; tools/benchmark_pipeline.py times the photos' side.
"""

from __future__ import annotations

from slotcon_plugin.arguments import add_cfg_options, add_device, at_least, tool_parser
from slotcon_plugin.command import run_command


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("config", help="a pretraining config")
    parser.add_argument("--batch-size", type=int, default=8, help="images a step (%(default)s)")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    add_device(parser)
    parser.add_argument("--repeats", type=at_least(1), default=10, help="timed repetitions of each part (%(default)s)")
    add_cfg_options(parser)
    args = parser.parse_args()

    from slotcon_plugin.config import load_config
    from slotcon_plugin.profiling.step import profile_step

    cfg = load_config(args.config, args.cfg_options)
    print(profile_step(cfg, args.batch_size, args.dtype, args.device, args.repeats))


if __name__ == "__main__":
    run_command(main)
