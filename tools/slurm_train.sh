#!/usr/bin/env bash
# Trains CONFIG under Slurm, one task per GPU.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]

  GPUS=16 tools/slurm_train.sh gpu slotcon configs/pretrain/slotcon_coco.py --work-dir work_dirs/slotcon_coco

  GPUS           all of the job (default 8)
  GPUS_PER_NODE  default 8, or GPUS where that is fewer
  CPUS_PER_TASK  default 5
  SRUN_ARGS      further arguments of srun, for instance "--time 3-0 --account mine"
  PORT           of the master process (default 29500)

Asked to stop (SIGTERM, SIGUSR1: preemption, scancel, the time limit), it writes a checkpoint and leaves with status 75.
Inside a batch job (sbatch --requeue --signal=USR1@120) it then has the job requeued, which resumes by itself.
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 3 ]; then
    echo "slurm_train.sh: expected PARTITION, JOB_NAME and CONFIG, got $# argument(s): $*" >&2
    usage >&2
    exit 2
fi
PARTITION="$1" JOB_NAME="$2" CONFIG="$3"
shift 3
[ -f "$CONFIG" ] || { echo "slurm_train.sh: no config file $CONFIG" >&2; exit 2; }
command -v srun >/dev/null || {
    echo "slurm_train.sh: srun is not here; on a machine without Slurm use tools/dist_train.sh $CONFIG GPUS" >&2
    exit 2
}
GPUS="${GPUS:-8}"
GPUS_PER_NODE="${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}"
[ $((GPUS % GPUS_PER_NODE)) = 0 ] || {
    echo "slurm_train.sh: GPUS=$GPUS must be a multiple of GPUS_PER_NODE=$GPUS_PER_NODE" >&2
    exit 2
}
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export MASTER_PORT="${PORT:-29500}"
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
# SRUN_ARGS is a list of words: it is split on purpose.
# shellcheck disable=SC2086
status=0
srun --partition="$PARTITION" --job-name="$JOB_NAME" --gres="gpu:$GPUS_PER_NODE" --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash "$TOOLS/python.sh" -u "$TOOLS/train.py" "$CONFIG" --launcher slurm "$@" || status=$?
if [ "$status" = 75 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
