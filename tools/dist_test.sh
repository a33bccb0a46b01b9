#!/usr/bin/env bash
# Evaluates CHECKPOINT of a transfer run with GPUS processes on this machine.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]

  tools/dist_test.sh configs/transfer/mmseg/fcn_r50_cityscapes.py work_dirs/fcn_r50_cityscapes/iter_90000.pth 8

NNODES, NODE_RANK, MASTER_ADDR, PORT: as for dist_train.sh.
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 3 ]; then
    echo "dist_test.sh: expected CONFIG, CHECKPOINT and GPUS, got $# argument(s): $*" >&2
    usage >&2
    exit 2
fi
CONFIG="$1" CHECKPOINT="$2" GPUS="$3"
shift 3
for file in "$CONFIG" "$CHECKPOINT"; do
    [ -f "$file" ] || { echo "dist_test.sh: no file $file" >&2; exit 2; }
done
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CALLER="$0" exec bash "$TOOLS/launch.sh" "$GPUS" "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" "$@"
