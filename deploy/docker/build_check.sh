#!/usr/bin/env bash
# Builds an image without a Docker daemon, runs it as a container would be run, and checks its size.
#
#   build_check.sh [DOCKERFILE]    default: deploy/docker/Dockerfile.cpu
#
# `make images` installs what it needs. The base image is pulled; where that is not possible, one like it is made from Debian's
# packages. pip gets this machine's configuration and certificates.
# LIMIT_MB is the largest size allowed, in 10^6 bytes of files.
set -euo pipefail

repository="$(cd "$(dirname "$0")/../.." && pwd)"
dockerfile="$(realpath "${1:-$repository/deploy/docker/Dockerfile.cpu}")"
limit_mb="${LIMIT_MB:-1000}"
# Of Unmask's own environment: a stage that makes clips has another.
lock="$repository/$(grep -o 'dependencies deploy/docker/[a-z]*\.lock /opt/unmask' "$dockerfile" | cut -d' ' -f2)"
base=docker.io/library/python:3.11-slim-bookworm
image="localhost/unmask-check:$(basename "${dockerfile##*.}")"
export BUILDAH_ISOLATION=chroot

work="$(mktemp -d)"
container=
root=
cleanup() {
    for mounted in "$root/tmp" "$root/clips" "$root/dev" "$root/sys" "$root/proc" "$root"; do
        [ -z "$root" ] || umount "$mounted" 2>/dev/null || true
    done
    [ -z "$container" ] || { buildah rm "$container" && buildah rmi "$image"; } >/dev/null
    rm -rf "$work"
}
trap cleanup EXIT

[ "$(id -u)" -eq 0 ] || {
    echo "building and mounting images needs root" >&2
    exit 1
}

make_base() {
    echo "==> the base image cannot be pulled: making one from Debian's packages"
    local mirror scratch
    mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -1)"
    debootstrap --variant=minbase --include=python3.11,python3.11-venv,python3-pip,ca-certificates bookworm \
        "$work/debian" "$mirror" >"$work/debootstrap.log" || {
        tail "$work/debootstrap.log" >&2
        return 1
    }
    rm -rf "$work"/debian/var/cache/apt/* "$work"/debian/var/lib/apt/lists/*
    # As in the official image: python and python3 in /usr/local/bin, and pip may install.
    ln -sf /usr/bin/python3.11 "$work/debian/usr/local/bin/python"
    ln -sf /usr/bin/python3.11 "$work/debian/usr/local/bin/python3"
    rm -f "$work/debian/usr/lib/python3.11/EXTERNALLY-MANAGED"
    scratch="$(buildah from scratch)"
    buildah add --quiet "$scratch" "$work/debian" / >/dev/null
    buildah commit --quiet --rm "$scratch" "$base" >/dev/null
    rm -rf "$work/debian"
}

buildah inspect --type image "$base" >/dev/null 2>&1 || timeout 60 buildah pull --quiet "$base" 2>/dev/null || make_base

mounts=()
for path in /etc/pip.conf /etc/ssl/certs; do
    [ ! -e "$path" ] || mounts+=(--volume "$path:$path:ro")
done
echo "==> build $image"
buildah build --quiet --pull=never "${mounts[@]}" --build-arg "BASE=$base" --file "$dockerfile" --tag "$image" "$repository"

# Runs a command as a container would: the image's user, a read-only root, /tmp in memory.
inside() {
    env -i PATH=/opt/unmask/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp USER=unmask PYTHONDONTWRITEBYTECODE=1 \
        UNMASK_CACHE=/cache UNMASK_OFFLINE=1 COLUMNS=120 \
        /usr/sbin/chroot --userspec=10001:10001 "$root" "$@"
}

container="$(buildah from --pull=never "$image")"
root="$(buildah mount "$container")"
size_mb="$(($(du --summarize --block-size=1 "$root" | cut -f1) / 1000000))"
(cd "$repository" && .venv/bin/python -m tests.media "$work/clips" >/dev/null)
chmod -R a+rX "$work/clips"
mkdir -p "$root/clips" "$root/cache"
mount --bind "$root" "$root"
mount --bind "$work/clips" "$root/clips"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777,size=1g tmpfs "$root/tmp"

echo "==> unmask doctor"
inside unmask doctor
echo "==> the environment matches the lock; Unmask comes from its wheel"
cp "$lock" "$work/clips/image.lock"
inside python - /clips/image.lock <<'PYTHON'
import re, sys, sysconfig
from importlib.metadata import distributions
import models, pipeline, trainers

locked = set(re.findall(r"^([a-z0-9.-]+)==", open(sys.argv[1]).read(), re.M))
installed = {re.sub(r"[-_.]+", "-", found.name).lower() for found in distributions(path=[sysconfig.get_path("purelib")])}
assert installed - locked == {"unmask"}, installed - locked
for package in (models, pipeline, trainers):
    assert package.__file__.startswith(sysconfig.get_path("purelib")), package.__file__
print(f"{len(installed)} distributions")
PYTHON
echo "==> unmask scan, as user 10001 with a read-only root"
if inside touch /cache/x 2>/dev/null; then
    echo "the root can be written" >&2
    exit 1
fi
inside unmask scan /clips/original.mp4 /clips/fake.mp4 --jsonl /tmp/verdicts.jsonl
[ "$(grep -c '"outcome":"scored"' "$root/tmp/verdicts.jsonl")" -eq 2 ]
echo "==> size: $size_mb MB, at most $limit_mb; its largest parts:"
du --block-size=MB --max-depth=1 "$root"/opt/unmask/lib/python3.11/site-packages | sort -rn | sed -n '2,9p' |
    sed "s#$root##"
[ "$size_mb" -le "$limit_mb" ]
echo "All checks passed."
