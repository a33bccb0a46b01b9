#!/usr/bin/env bash
# Checks and measures training on one GPU, in minutes and without a network.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash tools/gpu_check.sh [--device cuda|cpu] [--wheels DIR] [--out DIR]
       bash tools/gpu_check.sh --fetch DIR

Runs the tests that need a GPU (pytest -m gpu), then times steps of SlotCon and VADeR at batches of 64 to 512 against a
plain arm. Needs torch, torchvision, timm, numpy, opencv, scipy, safetensors, matplotlib, tensorboard and pytest.

  --fetch DIR    where there is a network: put the other packages (mmengine, simplejpeg, ...) into DIR, some MB
  --wheels DIR   take those packages from DIR
  --device cpu   a rehearsal without a GPU, on small networks
  --out DIR      for the result file, gpu.json (default: work_dirs/gpu_check);
                 python tools/benchmark_gpu.py --table DIR/gpu.json prints it for docs/benchmarks.md
TEXT
}

DEVICE=cuda WHEELS="" FETCH="" OUT=work_dirs/gpu_check
while [ $# -gt 0 ]; do
    case "$1" in
        --device | --wheels | --fetch | --out)
            [ $# -gt 1 ] || { echo "gpu_check.sh: $1 needs a value" >&2; exit 2; }
            case "$1" in --device) DEVICE="$2" ;; --wheels) WHEELS="$(realpath -m "$2")" ;; --fetch) FETCH="$(realpath -m "$2")" ;; --out) OUT="$(realpath -m "$2")" ;; esac
            shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) echo "gpu_check.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
run() { bash tools/python.sh "$@"; }
if [ -n "$FETCH" ]; then
    run -m pip wheel --quiet --no-deps --wheel-dir "$FETCH" --constraint requirements/tested.txt \
        mmengine simplejpeg tabulate addict yapf platformdirs termcolor rich markdown-it-py mdurl pygments pyyaml
    du -sh "$FETCH"
    exit 0
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "$WHEELS" ]; then
    run -m pip install --quiet --no-index --no-deps --upgrade --target "$OUT/packages" "$WHEELS"/*.whl
    export PYTHONPATH="$PYTHONPATH:$OUT/packages"  # behind what the environment has
fi
if [ "$DEVICE" = cuda ] && ! run -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu_check.sh: torch sees no GPU; --device cpu rehearses without one" >&2
    exit 2
fi
SLOTCON_CHECK_DEVICE="$DEVICE" run -m pytest -q -m gpu -p no:cacheprovider tests/gpu
run tools/benchmark_gpu.py --device "$DEVICE" --out "$OUT/gpu.json"
