#!/usr/bin/env bash
# Makes the project's virtual environment. Safe to call again: takes a second when nothing has changed.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash tools/setup_env.sh [pretrain|all]

  pretrain   what pretraining needs; nothing compiles (default, a few minutes)
  all        also mmcv, mmdet, mmsegmentation, detectron2's Python part and the test tools.
             mmcv compiles its ops once: 2 to 5 minutes on 2 cores; pip keeps the wheel for the next time.

The environment is .venv in the checkout; SLOTCON_VENV=/some/where puts it (or takes an existing one) elsewhere.
PYTHON=/path/to/python3.11 chooses the interpreter it is made with (3.10 or newer).
Tested versions: requirements/tested.txt.
TEXT
}

WHAT="${1:-pretrain}"
case "$WHAT" in
    pretrain | all) ;;
    -h | --help) usage; exit 0 ;;
    *) echo "setup_env.sh: expected 'pretrain' or 'all', got '$WHAT'" >&2; usage >&2; exit 2 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${SLOTCON_VENV:-$PWD/.venv}"
PY="$VENV/bin/python"
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '[setup] %s\n' "$*"; }
# The checkout's path belongs to the stamp: an editable install points at one checkout.
digest() { { echo "$PWD"; cat setup.py pyproject.toml requirements/tested.txt tools/setup_env.sh; } | cksum | tr ' ' '-'; }
# 'all' contains 'pretrain', never the other way round.
is_done() {
    for done_already in "$WHAT" all; do
        [ -x "$PY" ] && [ "$(cat "$VENV/.slotcon-$done_already" 2>/dev/null)" = "$(digest)" ] && return 0
    done
    return 1
}
pip_install() { "$PY" -m pip install --quiet --constraint requirements/tested.txt "$@"; }
has() { "$PY" -c "import $1" >/dev/null 2>&1; }

find_python() {
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.10 python3 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "setup_env.sh: no Python >= 3.10 with venv found. Install one (on Debian: python3 and python3-venv), or set" \
        "PYTHON=/path/to/python3.11" >&2
    return 1
}

# Runs a command that is silent for minutes; says every 30 s that it is alive, shows its log when it fails.
with_heartbeat() {
    local what="$1" log beat status=0 began=$SECONDS
    shift
    log="$(mktemp)"
    ( while sleep 30; do say "$what: $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s"; done ) &
    beat=$!
    "$@" >"$log" 2>&1 || status=$?
    kill "$beat" 2>/dev/null || true
    wait "$beat" 2>/dev/null || true
    [ "$status" = 0 ] || { tail -n 60 "$log" >&2; echo "setup_env.sh: $what failed (above: the end of its output)" >&2; }
    rm -f "$log"
    return "$status"
}

install_pretrain() {
    if [ ! -x "$PY" ]; then
        python="$(find_python)"
        say "making $VENV with $("$python" --version)"
        "$python" -m venv "$VENV"
    fi
    with_heartbeat "installing the package (torch comes with its CUDA libraries: several GB)" pip_install --editable .
}

install_mmcv() {
    has mmcv._ext && return
    # mmcv's setup.py imports torch and pkg_resources: both must be here before it is built.
    pip_install setuptools wheel ninja
    with_heartbeat "compiling mmcv's ops (2 to 5 minutes on 2 cores, once)" build_mmcv
}

# mmcv is 77 small files that each include all of torch: reading torch's headers is nearly all of the work, and debug
# symbols (Python's own flags ask for them) most of the rest and 80 of its 83 MB. With GCC the headers are read once, and
# their precompiled form is taken by every file. GCC compares flags and falls back on the headers where they differ.
build_mmcv() (
    headers="$(mktemp -d)"
    trap 'rm -rf "$headers"' EXIT
    flags="$("$PY" -c 'import sysconfig as s; print(s.get_config_var("CFLAGS"), s.get_config_var("CCSHARED"))') -g0"
    printf '#include <torch/types.h>\n#include <vector>\n' >"$headers/torch_types.hpp"
    if "${CXX:-c++}" --version 2>&1 | grep -q "Free Software Foundation"; then
        # shellcheck disable=SC2086,SC2046  # lists of words
        "${CXX:-c++}" $flags -std=c++17 -DTORCH_API_INCLUDE_EXTENSION_H -DTORCH_EXTENSION_NAME=_ext $("$PY" -c '
import sysconfig
from torch.utils.cpp_extension import include_paths
print(*(f"-I{path}" for path in [*include_paths(), sysconfig.get_path("include")]))') \
            -x c++-header "$headers/torch_types.hpp" -o "$headers/torch_types.hpp.gch"
        flags="$flags -include $headers/torch_types.hpp"
    fi
    PATH="$VENV/bin:$PATH" CFLAGS="$flags" MAX_JOBS="${MAX_JOBS:-$(OMP_NUM_THREADS="" nproc)}" MMCV_WITH_OPS=1 \
        "$PY" -m pip install --constraint requirements/tested.txt --no-build-isolation --no-deps mmcv
)

# detectron2 is not on the package index under its own name. This wheel of release 0.7.2 is tagged for one Python
# version, but its Python part runs on all, without the C extension, and that is all the tests need.
install_detectron2() {
    has detectron2 && return
    site="$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    pip_install --no-deps --only-binary=:all: --python-version 3.10 --target "$site" sal-detectron2
}

is_done && exit 0
mkdir -p "$VENV"
if command -v flock >/dev/null; then # two scripts started at once: the second waits, then finds the work done
    exec 9>"$VENV/.slotcon-lock"
    flock 9
    is_done && exit 0
fi

install_pretrain
if [ "$WHAT" = all ]; then
    with_heartbeat "installing the test tools" pip_install --editable ".[dev,docs,parquet]"
    install_mmcv
    with_heartbeat "installing mmdet and mmsegmentation" pip_install mmdet mmsegmentation ftfy regex
    install_detectron2
    with_heartbeat "installing what detectron2 needs" \
        pip_install pycocotools iopath fvcore omegaconf hydra-core yacs tabulate termcolor cloudpickle cityscapesscripts
    # what the tests skip without: missing here, it is an error and no skipped test
    "$PY" -c 'import mmcv.ops, mmdet.datasets, mmdet.models, mmseg.datasets, mmseg.models, slotcon_plugin
import detectron2.engine, detectron2.modeling, detectron2.modeling.backbone.vit
import PIL._avif, material, mkdocs, pyarrow.parquet, pycocotools.mask, shtab'
fi
digest >"$VENV/.slotcon-$WHAT"
say "ready: $VENV ($WHAT); activate it by: source $VENV/bin/activate"
