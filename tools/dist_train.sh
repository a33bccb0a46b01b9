#!/usr/bin/env bash
# Trains CONFIG (pretraining or transfer) with GPUS processes on this machine.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]

  tools/dist_train.sh configs/pretrain/slotcon_coco.py 8
  tools/dist_train.sh configs/pretrain/slotcon_demo.py 2          two CPU processes (gloo) where there is no GPU
  tools/dist_train.sh configs/pretrain/slotcon_coco.py 8 --resume --work-dir work_dirs/slotcon_coco

Several machines: the same command on each, with
  NNODES=2 NODE_RANK=0 MASTER_ADDR=address.of.rank0 PORT=29500
On one machine a free PORT is chosen when none is given.
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 2 ]; then
    echo "dist_train.sh: expected CONFIG and GPUS, got $# argument(s): $*" >&2
    usage >&2
    exit 2
fi
CONFIG="$1" GPUS="$2"
shift 2
[ -f "$CONFIG" ] || { echo "dist_train.sh: no config file $CONFIG" >&2; exit 2; }
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CALLER="$0" exec bash "$TOOLS/launch.sh" "$GPUS" "$TOOLS/train.py" "$CONFIG" "$@"
