#!/usr/bin/env bash
# Runs the builder stage of an image without Docker, then scans a generated clip with the installed package.
#
#   install_check.sh [DOCKERFILE]    default: deploy/docker/Dockerfile.cpu
#
# The steps are read from the Dockerfile: ARG and ENV are exported (the caller's values win), WORKDIR and COPY use a
# temporary root, and each RUN line runs unchanged except that /opt/ is moved below that root. Any other instruction is
# an error. Needs Python 3.11 and, for the clip, `make setup`.
set -euo pipefail
shopt -s extglob

repository="$(cd "$(dirname "$0")/../.." && pwd)"
dockerfile="$(realpath "${1:-$repository/deploy/docker/Dockerfile.cpu}")"
root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
# The scan runs as another user.
chmod 755 "$root"

# Prints the builder stage, one instruction per line.
builder_stage() {
    sed -e '/^ *#/d' -e ':more' -e '/\\$/{N;s/\\\n */ /;b more' -e '}' "$dockerfile" |
        awk '$1 == "FROM" { builder = / AS builder$/; next } builder && NF'
}

# copy SOURCE... DESTINATION, like COPY: a folder's content, not the folder.
copy() {
    local -a sources=("${@:1:$#-1}")
    local destination="${!#}" source
    for source in "${sources[@]}"; do
        if [ -d "$repository/$source" ]; then
            mkdir -p "$destination"
            cp -r "$repository/$source/." "$destination"
        else
            [[ $destination != */ ]] || mkdir -p "$destination"
            cp "$repository/$source" "$destination"
        fi
    done
}

run_steps() {
    local instruction rest
    local -a words
    while read -r instruction rest; do
        echo "==> $instruction $rest"
        case "$instruction" in
            ARG | ENV)
                local name="${rest%%=*}" value="${rest#*=}"
                [ -n "${!name+set}" ] || export "$name=${value//\"/}"
                ;;
            WORKDIR)
                mkdir -p "$root$rest"
                cd "$root$rest"
                ;;
            COPY)
                read -r -a words <<<"$rest"
                copy "${words[@]}"
                ;;
            RUN)
                rest="${rest##+(--mount=+([^ ])+( ))}"
                sh -euc "${rest//\/opt\//$root/opt/}" </dev/null
                ;;
            *)
                echo "cannot run the instruction $instruction" >&2
                exit 1
                ;;
        esac
    done < <(builder_stage)
}

# Runs a command as the image's user: no capabilities, none of the caller's environment.
as_user() {
    (cd "$root/tmp" && "${drop[@]}" env -i PATH="$root/opt/unmask/bin:/usr/bin:/bin" HOME="$root/tmp" TMPDIR="$root/tmp" \
        USER=unmask PYTHONDONTWRITEBYTECODE=1 UNMASK_OFFLINE=1 "$@")
}

drop=()
if [ "$(id -u)" -eq 0 ]; then
    drop=(setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all)
    # For example a Python in root's home.
    if ! "${drop[@]}" python3.11 -c '' 2>/dev/null; then
        echo "Other users cannot run $(command -v python3.11): everything runs as root, without capabilities."
        drop=(setpriv --no-new-privs --inh-caps=-all --bounding-set=-all)
    fi
fi

# The base image's Python and pip.
python3.11 -m venv "$root/usr/local"
PATH="$root/usr/local/bin:$PATH" run_steps

mkdir -m 1777 "$root/tmp"
(cd "$repository" && .venv/bin/python -m tests.media "$root/tmp/clips")

echo "==> the environment matches the lock; Unmask comes from its wheel"
as_user python - "$repository/deploy/docker/requirements.lock" <<'PYTHON'
import re, sys, sysconfig
from importlib.metadata import distributions
import models, pipeline, trainers

locked = set(re.findall(r"^([a-z0-9.-]+)==", open(sys.argv[1]).read(), re.M))
installed = {re.sub(r"[-_.]+", "-", found.name).lower() for found in distributions()}
assert installed - locked == {"unmask"}, installed - locked
for package in (models, pipeline, trainers):
    assert package.__file__.startswith(sysconfig.get_path("purelib")), package.__file__
print(f"{len(installed)} distributions")
PYTHON
echo "==> unmask --help"
as_user unmask --help
echo "==> unmask doctor"
as_user unmask doctor
echo "==> unmask scan"
as_user unmask scan clips/original.mp4 clips/fake.mp4 --jsonl "$root/tmp/verdicts.jsonl"
du -sh "$root/opt/unmask"
echo "All checks passed."
