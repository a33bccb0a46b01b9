#!/usr/bin/env bash
# From nothing to a pretrained backbone, on two CPU cores in less than ten minutes.
set -euo pipefail

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    cat <<'TEXT'
usage: bash tools/quickstart.sh [PHOTOS] [--work-dir DIR]

Makes a virtual environment (.venv), installs the package, pretrains SlotCon for a few minutes, exports the backbone,
compares its frozen features with those of a random backbone, and draws what the prototypes have found.

  PHOTOS          folder of your own photos, nested or flat; without it demo scenes are made
  --work-dir DIR  where everything goes (default: work_dirs/quickstart)
TEXT
    exit 0
fi

# a relative path is meant from where the user stands
arguments=()
for argument in "$@"; do
    if [ -e "$argument" ]; then argument="$(realpath "$argument")"; fi
    arguments+=("$argument")
done
if [ "${#arguments[@]}" -gt 0 ] && [ "${arguments[0]#-}" = "${arguments[0]}" ] && [ ! -d "${arguments[0]}" ]; then
    echo "quickstart.sh: ${arguments[0]} is not a folder; give a folder of photos, or nothing for demo scenes" >&2
    exit 2
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh pretrain
exec "${SLOTCON_VENV:-$PWD/.venv}/bin/python" -m slotcon_plugin quickstart "${arguments[@]}"
