"""Import a whole checkpoint of the reference SlotCon code, to visualise, evaluate or continue training.

    python tools/import_official.py ckpt_epoch_800.pth work_dirs/official/slotcon_coco.pth

Reads both branches, projectors, prototypes, predictor and center; depth, widths and the number of prototypes come
from the file. Writes OUT.pth and beside it OUT.py, the config of its model, for the tools that ask for a config. To
train on, set load_from in a pretraining config with the same model: weights continue, schedules start anew.
"""

import argparse
import sys

from slotcon_plugin.convert.errors import ConversionError
from slotcon_plugin.convert.official import import_official
from slotcon_plugin.models import SlotCon


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SRC", help="checkpoint of the reference code")
    parser.add_argument("out", metavar="OUT", help="checkpoint to write, ending in .pth")
    args = parser.parse_args()
    try:
        model = import_official(args.source, args.out, SlotCon)
    except ConversionError as error:
        print(f"error: {error}\nnothing was written", file=sys.stderr)
        return 1
    print(f"wrote {args.out} and its config: {model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
