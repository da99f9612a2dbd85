#!/usr/bin/env bash
# Installs the system packages that the tests need on Debian and Ubuntu, as root or with sudo. On other systems it
# names what to install.
#
#   packages.sh            install what is missing; fast when nothing is
#   packages.sh --check    print what is missing, change nothing; exit 1 when something is
#   packages.sh --images   also install what builds images without a Docker daemon
#   packages.sh --charts   also build what checks the Helm chart and the alerts; some minutes and 3 GB at the first time
#
# With CI=true a package that is still missing at the end is an error (exit 1); otherwise it is only named,
# because tests that need it are skipped.
set -euo pipefail

# One requirement per line: name | commands, any one is enough | apt packages | purpose
NEEDS='
chromium | chromium chromium-browser google-chrome google-chrome-stable | chromium fonts-liberation | tests of the HTML report
g++ | g++ c++ clang++ | g++ | the code that torch.compile generates for a CPU
redis-server | redis-server | redis-server | tests of verdicts in Redis
java | java | default-jre-headless | tests with Apache Kafka
mvn | mvn | maven | the jars of Apache Kafka
'
[ "${1:-}" != --images ] || NEEDS+='buildah | buildah | buildah | images without a Docker daemon
debootstrap | debootstrap /usr/sbin/debootstrap | debootstrap | a base image from Debian packages
'

# A command counts only if it runs: Ubuntu's chromium-browser is a script that asks for the snap.
runs() {
    command -v "$1" >/dev/null 2>&1 && "$1" --version >/dev/null 2>&1
}

# Prints the lines of NEEDS that no command on this machine satisfies.
missing() {
    local name commands packages purpose command
    while IFS='|' read -r name commands packages purpose; do
        [ -n "$name" ] || continue
        for command in $commands; do
            runs "$command" && continue 2
        done
        echo "$name|$packages|$purpose"
    done <<<"$NEEDS"
}

describe() {
    local name packages purpose
    while IFS='|' read -r name packages purpose; do
        echo "  ${name% }: for$purpose (Debian packages:${packages% })"
    done <<<"$1"
}

is_ubuntu() {
    [ -r /etc/os-release ] && grep -q '^ID=ubuntu' /etc/os-release
}

# Prints the apt packages of the given lines, without those that apt cannot provide here.
apt_packages() {
    local name packages _
    while IFS='|' read -r name packages _; do
        if [ "${name% }" = chromium ] && is_ubuntu; then
            echo "Ubuntu's chromium package only points to the snap, so it is left out. Install one of:" \
                "'snap install chromium', or Google Chrome's own .deb." >&2
            continue
        fi
        echo "$packages"
    done <<<"$1"
}

install() {
    local -a packages as_root=()
    read -r -d '' -a packages <<<"$(apt_packages "$1")" || true
    [ ${#packages[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "No apt-get here: install these with the system's own package manager." >&2
        return 0
    fi
    if [ "$(id -u)" -ne 0 ]; then
        # -n: a script called by make must not wait for a password.
        if ! sudo -n true >/dev/null 2>&1; then
            echo "Neither root nor password-free sudo: run 'sudo apt-get install ${packages[*]}' yourself." >&2
            return 0
        fi
        as_root=(sudo -n)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0)
    "${as_root[@]}" update
    "${as_root[@]}" install --yes --no-install-recommends "${packages[@]}" >/dev/null
}

case "${1:-}" in
    "" | --check | --images | --charts) ;;
    *)
        echo "usage: ${0##*/} [--check|--images|--charts]" >&2
        exit 2
        ;;
esac

# Ends the script; with --charts the tools of the chart come last, since Maven and Java build some of them.
finish() {
    [ "${1:-}" = --charts ] || exit 0
    local root python
    root="$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)"
    python="$root/.venv/bin/python"
    if [ ! -x "$python" ]; then
        echo "No .venv here: run 'make setup' first." >&2
    elif "$python" "$root/deploy/local/chart_tools.py"; then
        exit 0
    fi
    [ "${CI:-}" != true ] || exit 1
    echo "Tests of the chart are skipped." >&2
    exit 0
}

lacking="$(missing)"
[ -n "$lacking" ] || finish "${1:-}"

if [ "${1:-}" = --check ]; then
    echo "Missing:"
    describe "$lacking"
    exit 1
fi

echo "Installing:"
describe "$lacking"
# A mirror that fails must not hide what is missing: that is reported below.
install "$lacking" || echo "apt-get failed." >&2

lacking="$(missing)"
[ -n "$lacking" ] || finish "${1:-}"
echo "Still missing:" >&2
describe "$lacking" >&2
[ "${CI:-}" != true ] || exit 1
echo "Tests that need these are skipped." >&2
finish "${1:-}"
