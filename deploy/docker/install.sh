#!/bin/sh
# The steps of both images' builder stages.
#
#   install.sh dependencies VENV    Unmask's locked run-time dependencies, in a new virtual environment
#   install.sh unmask VENV          Unmask itself, as a wheel built from the working directory
#
# TORCH_INDEX, if not empty, is the URL of a package index with CPU-only wheels of torch and torchvision. The lock's
# wheels for Linux need CUDA libraries to start: gigabytes that a CPU never uses. CPU-only wheels are not on the common
# index, so the lock has no hashes for them; for these two packages only the version is pinned.
set -eu

here="$(cd "$(dirname "$0")" && pwd)"
cuda='torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+'

# --no-deps: the lock is complete; nothing else may be installed.
# --only-binary: building a source distribution would fetch a build backend without a hash.
pip_install() {
    venv="$1"
    shift
    python -m pip --disable-pip-version-check --python "$venv/bin/python" install --no-deps --only-binary :all: "$@"
}

dependencies() {
    python -m venv --without-pip "$1"
    if [ -z "${TORCH_INDEX:-}" ]; then
        pip_install "$1" --require-hashes -r "$here/requirements.lock"
        return
    fi
    wanted="$(mktemp)"
    awk -v cuda="^($cuda)==" '/^[a-z0-9]/ { keep = $0 !~ cuda } keep' "$here/requirements.lock" >"$wanted"
    pip_install "$1" --require-hashes -r "$wanted"
    sed -nE 's/^((torch|torchvision)==[^ ]+).*/\1/p' "$here/requirements.lock" >"$wanted"
    pip_install "$1" --index-url "$TORCH_INDEX" -r "$wanted"
    rm "$wanted"
}

unmask() {
    build="$(mktemp -d)"
    python -m venv --without-pip "$build/venv"
    pip_install "$build/venv" --require-hashes -r "$here/build.lock"
    "$build/venv/bin/hatchling" build -t wheel -d "$build/dist"
    pip_install "$1" --no-index "$build"/dist/unmask-*.whl
    rm -r "$build"
}

case "${1:-}:${2:-}" in
    dependencies:?*) dependencies "$2" ;;
    unmask:?*) unmask "$2" ;;
    *)
        echo "usage: ${0##*/} dependencies|unmask VENV" >&2
        exit 2
        ;;
esac
