#!/usr/bin/env bash
# Common to dist_train.sh and dist_test.sh: torchrun by OpenMMLab's conventions.
#   launch.sh GPUS SCRIPT [args]
set -euo pipefail
GPUS="$1"
shift
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
fail() { echo "$(basename "${CALLER:-$0}"): $*" >&2; exit 2; }

NNODES="${NNODES:-1}"
NODE_RANK="${NODE_RANK:-0}"
MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}"
for number in GPUS NNODES NODE_RANK; do
    [[ "${!number}" =~ ^[0-9]+$ ]] || fail "$number must be a whole number, got '${!number}'"
done
[ "$GPUS" -ge 1 ] || fail "GPUS (processes on this machine) must be at least 1, got $GPUS"
[ "$NODE_RANK" -lt "$NNODES" ] || fail "NODE_RANK must be below NNODES=$NNODES, got $NODE_RANK"
if [ "$NNODES" -gt 1 ] && [ "$MASTER_ADDR" = 127.0.0.1 ]; then
    fail "NNODES=$NNODES needs MASTER_ADDR: the address of the machine with NODE_RANK=0, the same on every machine"
fi
if [ -z "${PORT:-}" ]; then
    if [ "$NNODES" -gt 1 ]; then
        PORT=29500 # every machine must name the same one
    else
        PORT="$(bash "$ROOT/tools/python.sh" -c \
            'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
    fi
fi

# torchrun would set it too, with a banner that hides the run's first lines.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" exec bash "$ROOT/tools/python.sh" -m slotcon_plugin.launch \
    --nnodes "$NNODES" --node_rank "$NODE_RANK" --master_addr "$MASTER_ADDR" --master_port "$PORT" \
    --nproc_per_node "$GPUS" "$@" --launcher pytorch
