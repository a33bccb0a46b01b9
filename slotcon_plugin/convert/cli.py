"""The command line that the four conversion tools share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slotcon_plugin.convert.convert import convert
from slotcon_plugin.convert.sources import SOURCES, known_kinds


def run(target: str, description: str, argv: Sequence[str] | None = None) -> None:
    """Parse, convert, say what was done."""
    parser = argparse.ArgumentParser(
        description=description, epilog=known_kinds(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint to read")
    parser.add_argument("out", metavar="OUT", help="file to write; nothing is written when the proof fails")
    parser.add_argument(
        "--which",
        choices=("teacher", "student"),
        help="branch to take (default: what the method's authors transfer; the teacher for SlotCon)",
    )
    parser.add_argument(
        "--from",
        dest="kind",
        metavar="KIND",
        help=f"kind of CKPT, if recognising it from its keys goes wrong: {', '.join(s.kind for s in SOURCES)}",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    if target != "torchvision":
        parser.add_argument(
            "--config", help="transfer config: prove with the backbone that it builds, not with the recipe's"
        )
    args = parser.parse_args(argv)
    config = getattr(args, "config", None)
    meta = convert(args.checkpoint, args.out, target, args.which, args.kind, config, overwrite=args.force)
    print(summary(args.out, meta))


def summary(out: str, meta: dict) -> str:
    """What was read, how it was proved, what was written."""
    proof = meta["proof"]
    if proof["method"] == "feature parity":
        worst = max(proof["relative_errors"].values())
        proved = f"every stage's map equals that of {proof['framework']}: largest relative error {worst:.1e}"
    else:
        proved = f"by the key map alone, not by features: {proof['reason']}"
    left_out = f"        its FPN is left out: {meta['fpn_left_out']}\n" if "fpn_left_out" in meta else ""
    return (
        f"read    {meta['source_file']}: kind {meta['kind']}, {meta['branch']}, ResNet-{meta['depth']}"
        f"{' with FPN' if meta['fpn'] else ''}\n"
        f"sha256  {meta['source_sha256']}\n"
        f"{left_out}"
        f"proved  {proved}\n"
        f"wrote   {out}\n"
        f"input   {meta['colour_order']}, mean {meta['mean']}, std {meta['std']} (pixels 0..255), stem {meta['stem']}, "
        f"stride in the {'1x1' if meta['stride_in_1x1'] else '3x3'} convolution"
    )
