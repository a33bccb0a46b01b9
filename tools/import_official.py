"""Import a whole checkpoint of the reference SlotCon code, to visualise, evaluate or continue training.

    python tools/import_official.py ckpt_epoch_800.pth work_dirs/official/slotcon_coco.pth

Reads both branches, projectors, prototypes, predictor and center; depth, widths and the number of prototypes come
from the file. Writes OUT.pth and beside it OUT.py, the config of its model, for the tools that ask for a config. To
train on, set load_from in a pretraining config with the same model: weights continue, schedules start anew.
"""

from slotcon_plugin.arguments import tool_parser
from slotcon_plugin.command import run_command
from slotcon_plugin.convert.official import import_official
from slotcon_plugin.models import SlotCon


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("source", metavar="SRC", help="checkpoint of the reference code")
    parser.add_argument("out", metavar="OUT", help="checkpoint to write, ending in .pth")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.pth and OUT.py if they exist")
    args = parser.parse_args()
    model = import_official(args.source, args.out, SlotCon, overwrite=args.overwrite)
    print(f"wrote {args.out} and its config: {model}")


if __name__ == "__main__":
    run_command(main)
