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

DEVICE=cuda WHEELS="" FETCH="" OUT="$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../work_dirs/gpu_check"
fail() { echo "gpu_check.sh: $1" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case "$1" in
        --device | --wheels | --fetch | --out)
            [ $# -gt 1 ] || fail "$1 needs a value"
            case "$1" in --device) DEVICE="$2" ;; --wheels) WHEELS="$(realpath -m "$2")" ;; --fetch) FETCH="$(realpath -m "$2")" ;; --out) OUT="$(realpath -m "$2")" ;; esac
            shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) echo "gpu_check.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
run() { bash tools/python.sh "$@"; }
case "$DEVICE" in cuda | cpu) ;; *) fail "--device is cuda or cpu, not $DEVICE" ;; esac
if [ -n "$FETCH" ]; then
    run -m pip wheel --quiet --no-deps --wheel-dir "$FETCH" --constraint requirements/tested.txt \
        mmengine simplejpeg tabulate addict yapf platformdirs termcolor rich markdown-it-py mdurl pygments pyyaml ||
        fail "pip could not get the packages; --fetch needs a network, and the Python version that will run the check"
    du -sh "$FETCH"
    exit 0
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "$WHEELS" ]; then
    compgen -G "$WHEELS/*.whl" > /dev/null || fail "there are no wheels in $WHEELS; --fetch DIR fills a folder"
    missing=()  # what the environment has stays in use
    for wheel in "$WHEELS"/*.whl; do
        name="$(basename "$wheel")"
        run -c 'import sys; from importlib.metadata import version; version(sys.argv[1])' "${name%%-*}" 2> /dev/null ||
            missing+=("$wheel")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        run -m pip install --quiet --no-index --no-deps --upgrade --target "$OUT/packages" "${missing[@]}" ||
            fail "these wheels are not for this Python; --fetch must run with the same version"
        export PYTHONPATH="$PYTHONPATH:$OUT/packages"
    fi
fi
lacking="$(run -c 'import pytest, slotcon_plugin' 2>&1 > /dev/null | tail -n 1)" || true
case "$lacking" in *Error*) fail "$lacking; --wheels DIR takes packages from a folder, see --help" ;; esac
if [ "$DEVICE" = cuda ] && ! run -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    fail "torch sees no GPU; --device cpu rehearses without one"
fi
failed=0
SLOTCON_CHECK_DEVICE="$DEVICE" run -m pytest -q -m gpu -p no:cacheprovider tests/gpu || failed=$?
run tools/benchmark_gpu.py --device "$DEVICE" --out "$OUT/gpu.json"  # figures also where a test has failed
exit $failed
