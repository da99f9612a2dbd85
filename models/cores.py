"""How many cores a process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Cores this process may keep busy: its affinity, cut by the CPU quotas of its cgroup and those above.

    A container's quota shows neither in `os.cpu_count()` nor in the affinity; as many threads as the host has
    cores would be throttled. A quota of 1.5 cores counts as 2.

    Args:
        root: where `proc` and the cgroup file systems are searched.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _cpu_quotas(root))]))


def _cpu_quotas(root: Path) -> Iterator[float]:
    """CPU quotas in cores, from the process's own cgroup up to the top of each hierarchy that is mounted."""
    for mount, own in _cpu_hierarchies(root):
        for group in (own, *own.parents):
            if not group.is_relative_to(mount):
                break
            # Version 2: "QUOTA PERIOD" in microseconds, or "max PERIOD"; version 1: two files, and -1 for no limit.
            v2 = _read(group / "cpu.max").split()
            v1 = [_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            for limit in (v2, v1):
                if len(limit) == 2 and all(number.isdigit() and int(number) > 0 for number in limit):
                    yield int(limit[0]) / int(limit[1])


def _cpu_hierarchies(root: Path) -> Iterator[tuple[Path, Path]]:
    """Mount point and own group of each cgroup hierarchy that controls the CPU: cgroups(7), proc(5)."""
    own_groups: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            own_groups["cgroup2" if controllers == "" else "cgroup"] = path
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, rest = after.partition(" ")
        # A version 1 mount names its controllers among its options, a version 2 mount has them all.
        if kind not in own_groups or (kind == "cgroup" and "cpu" not in rest.split(" ")[-1].split(",")):
            continue
        mounted, mount_point = before.split(" ")[3:5]
        mount = root / mount_point.lstrip("/")
        # Inside a container the group's path can be the host's, and the mount starts at that very group.
        own, top = Path(own_groups[kind]), Path(mounted)
        yield mount, mount / own.relative_to(top) if own.is_relative_to(top) else mount


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # no such file: no such limit (not Linux, no cgroup, the root group)
        return ""
