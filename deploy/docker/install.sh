#!/bin/sh
# The steps of both images' builder stages.
#
#   install.sh dependencies LOCK VENV    what is pinned in LOCK, in a new virtual environment
#   install.sh add LOCK VENV             what is pinned in LOCK, in this one
#   install.sh unmask VENV               Unmask itself, as a wheel built from the working directory
#
# requirements.lock is of serving on CPUs, without torch; cuda.lock has torch with the CUDA libraries; demo.lock makes clips.
set -eu

here="$(cd "$(dirname "$0")" && pwd)"

# --no-deps: the lock is complete; nothing else may be installed.
# --only-binary: building a source distribution would fetch a build backend without a hash.
pip_install() {
    venv="$1"
    shift
    python -m pip --disable-pip-version-check --python "$venv/bin/python" install --no-deps --only-binary :all: "$@"
}

dependencies() {
    python -m venv --without-pip "$2"
    pip_install "$2" --require-hashes -r "$1"
}

unmask() {
    build="$(mktemp -d)"
    python -m venv --without-pip "$build/venv"
    pip_install "$build/venv" --require-hashes -r "$here/build.lock"
    "$build/venv/bin/hatchling" build -t wheel -d "$build/dist"
    pip_install "$1" --no-index "$build"/dist/unmask-*.whl
    rm -r "$build"
}

case "$#:${1:-}" in
    3:dependencies) dependencies "$2" "$3" ;;
    3:add) pip_install "$3" --require-hashes -r "$2" ;;
    2:unmask) unmask "$2" ;;
    *)
        echo "usage: ${0##*/} dependencies LOCK VENV | add LOCK VENV | unmask VENV" >&2
        exit 2
        ;;
esac
