#!/usr/bin/env bash
# The interpreter that the launchers use: $PYTHON, else an active environment, else the checkout's .venv, else python
# or, where that is its only name, python3.
#   bash tools/python.sh tools/train.py --help
set -euo pipefail
VENV="${SLOTCON_VENV:-$(dirname "${BASH_SOURCE[0]}")/../.venv}"
if [ -n "${PYTHON:-}" ]; then
    exec "$PYTHON" "$@"
elif [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$VENV/bin/python" ]; then
    exec "$VENV/bin/python" "$@"
fi
exec "$(command -v python || command -v python3 || echo python)" "$@"
