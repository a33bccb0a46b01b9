#!/usr/bin/env bash
# Checks and measures training on one GPU, in minutes and without a network.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash tools/gpu_check.sh [--device cuda|cpu] [--wheels DIR] [--only tests|steps] [--out DIR] [--resume]
       bash tools/gpu_check.sh --fetch DIR [--python VERSION]

Runs the tests that need a GPU (pytest -m gpu), then times steps of SlotCon and VADeR at batches of 64 to 512 against a
plain arm. Needs torch, torchvision, timm, numpy, opencv, scipy, safetensors, matplotlib, tensorboard and pytest.

  --fetch DIR       where there is a network: put the other packages (mmengine, simplejpeg, ...) into DIR, some MB;
                    wheels for Linux on x86-64
  --python VERSION  of the machine with the GPU, such as 3.12 (default: that of the Python that fetches)
  --wheels DIR      take those packages from DIR
  --only tests      the tests alone, --only steps the timing alone: two commands where one may not take so long
  --resume          time only what DIR/gpu.json lacks: after a first run that was cut off
  --device cpu      a rehearsal without a GPU, on small networks
  --out DIR         for the result file, gpu.json (default: work_dirs/gpu_check);
                    python tools/benchmark_gpu.py --table DIR/gpu.json prints it for docs/benchmarks.md
TEXT
}

DEVICE=cuda WHEELS="" FETCH="" VERSION="" ONLY="" RESUME="" OUT="$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../work_dirs/gpu_check"
fail() { echo "gpu_check.sh: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case "$1" in
        --device | --wheels | --fetch | --python | --only | --out)
            [ $# -gt 1 ] || fail "$1 needs a value"
            case "$1" in
                --device) DEVICE="$2" ;;
                --wheels) WHEELS="$(realpath -m "$2")" ;;
                --fetch) FETCH="$(realpath -m "$2")" ;;
                --python) VERSION="$2" ;;
                --only) ONLY="$2" ;;
                --out) OUT="$(realpath -m "$2")" ;;
            esac
            shift 2 ;;
        --resume) RESUME=--resume; shift ;;
        -h | --help) usage; exit 0 ;;
        *) echo "gpu_check.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
run() { bash tools/python.sh "$@"; }
case "$DEVICE" in cuda | cpu) ;; *) fail "--device is cuda or cpu, not $DEVICE" ;; esac
case "$ONLY" in "" | tests | steps) ;; *) fail "--only is tests or steps, not $ONLY" ;; esac
[ -z "$VERSION" ] || [ -n "$FETCH" ] || fail "--python goes with --fetch"
OWN="$(run -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
if [ -n "$FETCH" ]; then
    VERSION="${VERSION:-$OWN}"
    [[ "$VERSION" =~ ^3\.[0-9]+$ ]] || fail "--python is a version such as 3.12, not $VERSION"
    run -m pip download --quiet --no-deps --only-binary=:all: --python-version "$VERSION" --implementation cp \
        --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
        --dest "$FETCH" --constraint requirements/tested.txt \
        mmengine simplejpeg tabulate addict yapf platformdirs termcolor rich markdown-it-py mdurl pygments pyyaml ||
        fail "pip could not get the packages for Python $VERSION; --fetch needs a network"
    echo "for Python $VERSION: $(du -sh "$FETCH")"
    exit 0
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "$WHEELS" ]; then
    compgen -G "$WHEELS/*.whl" > /dev/null || fail "there are no wheels in $WHEELS; --fetch DIR fills a folder"
    missing=()  # what the environment has stays in use
    for name in $(basename -a "$WHEELS"/*.whl | sed 's/-.*//' | sort -u); do
        run -c 'import sys; from importlib.metadata import version; version(sys.argv[1])' "$name" 2> /dev/null ||
            missing+=("$name")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        PACKAGES="$(mktemp -d)"
        trap 'rm -rf "$PACKAGES"' EXIT
        meant="$(basename -a "$WHEELS"/*.whl | sed -n 's/.*-cp3\([0-9]*\)-.*/3.\1/p' | sort -u | paste -sd ' ')"
        run -m pip install --quiet --no-index --no-deps --find-links "$WHEELS" --target "$PACKAGES" "${missing[@]}" ||
            fail "pip could not install ${missing[*]}: the wheels in $WHEELS are for Python ${meant:-3}, this is $OWN;" \
                "fill the folder with --fetch DIR --python $OWN"
        export PYTHONPATH="$PYTHONPATH:$PACKAGES"
    fi
fi
lacking="$(run -c 'import pytest, slotcon_plugin' 2>&1 > /dev/null | tail -n 1)" || true
case "$lacking" in *Error*) fail "$lacking; --wheels DIR takes packages from a folder, see --help" ;; esac
if [ "$DEVICE" = cuda ] && ! run -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    fail "torch sees no GPU; --device cpu rehearses without one"
fi
failed=0
if [ "$ONLY" != steps ]; then
    SLOTCON_CHECK_DEVICE="$DEVICE" run -m pytest -q -m gpu -p no:cacheprovider tests/gpu || failed=$?
fi
if [ "$ONLY" != tests ]; then  # figures also where a test has failed
    run tools/benchmark_gpu.py --device "$DEVICE" --out "$OUT/gpu.json" $RESUME || failed=$?
fi
exit $failed
