#!/usr/bin/env bash
# Sets up everything that the tests need (all three frameworks) and runs them, style check included.
#   bash tools/run_tests.sh                      everything
#   bash tools/run_tests.sh -m "not slow"        arguments go to pytest
#   bash tools/run_tests.sh tests/test_results.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash tools/setup_env.sh all
# One thread a process: the tests' tensors are tiny and two workers share the cores. No GPU: results are the CPU's.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= MPLBACKEND=Agg
exec "${SLOTCON_VENV:-$PWD/.venv}/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
