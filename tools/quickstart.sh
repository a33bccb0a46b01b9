#!/usr/bin/env bash
# From nothing to a pretrained backbone, on two idle CPU cores in less than ten minutes.
set -euo pipefail

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    cat <<'TEXT'
usage: bash tools/quickstart.sh [PHOTOS] [--work-dir DIR] [--resume]

Makes a virtual environment (.venv), installs the package, pretrains SlotCon for a few minutes, exports the backbone,
compares its frozen features with those of a random backbone, and draws what the prototypes have found.

  PHOTOS          folder of your own photos, nested or flat; without it demo scenes are made
  --work-dir DIR  where everything goes (default: work_dirs/quickstart)
  --resume        go on with a try that was stopped
TEXT
    exit 0
fi

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ "$#" -gt 0 ] && [ "${1#-}" = "$1" ] && [ ! -d "$1" ]; then
    echo "quickstart.sh: $1 is not a folder; give a folder of photos, or nothing for demo scenes" >&2
    exit 2
fi
bash "$ROOT/tools/setup_env.sh" pretrain
exec "${SLOTCON_VENV:-$ROOT/.venv}/bin/python" -m slotcon_plugin quickstart "$@"
